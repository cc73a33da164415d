//! What a model has of its base, and what a request says of it.

use serde_json::{Value, json};

use crate::fixture::{Folder, message};

/// Fields of the config blob.
fn config(folder: &Folder, model: &store::Model) -> Value {
    let path = folder.path(&format!("blobs/{}", model.manifest.config.digest.file_name()));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn what_makes_prompts_and_what_is_required_goes_from_child_to_child() {
    let folder = Folder::new();
    folder.model("base", json!({"renderer": "r", "parser": "p", "requires": "0.14.0"})).await;
    folder.create(json!({"model": "child", "from": "base", "parser": "q", "renderer": ""})).await.unwrap();
    folder.create(json!({"model": "grandchild", "from": "child", "requires": "0.15.0"})).await.unwrap();
    for (model, expected) in [
        ("base", ["r", "p", "0.14.0"]),
        ("child", ["r", "q", "0.14.0"]),
        ("grandchild", ["r", "q", "0.15.0"]),
    ] {
        let config = config(&folder, &folder.get(model).await.unwrap());
        assert_eq!(
            ["renderer", "parser", "requires"].map(|key| config[key].clone()),
            expected.map(Value::from)
        );
    }
}

#[tokio::test]
async fn a_base_is_found_however_it_is_spelled() {
    let folder = Folder::new();
    let base = folder.model("Base:V1", json!({})).await;
    for from in ["Base:V1", "base:v1", "library/BASE:v1", "registry.ollama.ai/library/base:V1", " base:v1\n"]
    {
        folder.create(json!({"model": "child", "from": from})).await.unwrap();
        let child = folder.get("child").await.unwrap();
        assert_eq!(
            (&child.weights, child.details.parent_model.as_str()),
            (&base.weights, "Base:V1"),
            "{from:?}"
        );
    }
    assert_eq!(folder.listed().await.len(), 2, "the child was replaced each time");
    let (status, text) = message(folder.create(json!({"model": "child", "from": "base"})).await);
    assert_eq!((status, text.as_str()), (404, "model 'base:latest' not found"), "another tag");
}

#[tokio::test]
async fn licenses_are_added_and_conversations_replaced() {
    let folder = Folder::new();
    let said =
        |text: &str| json!([{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]);
    folder.model("base", json!({"license": ["one", "two"], "messages": said("a")})).await;
    folder.create(json!({"model": "b", "from": "base", "license": "three", "messages": []})).await.unwrap();
    folder
        .create(json!({"model": "c", "from": "b", "license": ["two", "four"], "messages": said("c")}))
        .await
        .unwrap();
    let (b, c) = (folder.get("b").await.unwrap(), folder.get("c").await.unwrap());
    assert_eq!(b.licenses, ["one", "two", "three"]);
    assert_eq!(c.licenses, ["one", "two", "three", "four"]);
    let first =
        |model: &store::Model| model.messages.iter().map(|said| said.content.clone()).collect::<Vec<_>>();
    assert_eq!((first(&b), first(&c)), (vec!["a".into(), "yes".into()], vec!["c".to_owned(), "yes".into()]));
}

#[tokio::test]
async fn parameters_win_key_by_key_and_lists_as_a_whole() {
    let folder = Folder::new();
    folder.model("base", json!({"parameters": {"stop": ["a", "b"], "top_k": 3, "num_ctx": 100}})).await;
    let given = json!({"stop": ["c"], "num_ctx": null, "temperature": 0.5});
    folder.create(json!({"model": "child", "from": "base", "parameters": given})).await.unwrap();
    let child = folder.get("child").await.unwrap();
    let expected = json!({"num_ctx": 100, "stop": ["c"], "temperature": 0.5, "top_k": 3});
    assert_eq!(Value::Object(child.parameters.clone()), expected);
}

#[tokio::test]
async fn what_a_request_says_about_the_model_wins_over_its_files() {
    let folder = Folder::new();
    let info = json!({
        "capabilities": ["completion", "tools"], "model_family": "mine", "base_name": "theirs", "parameter_size": "7B",
        "quantization_level": "Q9", "context_length": 4096, "embedding_length": 77, "novel": [1], "empty": null,
    });
    let model = folder.model("a", json!({"info": info})).await;
    let details = &model.details;
    assert_eq!(
        (details.family.as_str(), details.families.clone()),
        ("mine", Some(vec!["mine".into(), "llama".into()]))
    );
    assert_eq!((details.parameter_size.as_str(), details.quantization_level.as_str()), ("7B", "Q9"));
    assert_eq!((details.context_length, details.embedding_length), (Some(4096), Some(77)));
    assert_eq!(model.capabilities, ["completion", "tools"]);
    let config = config(&folder, &model);
    assert_eq!((&config["base_name"], config.get("novel")), (&json!("theirs"), None));
    // A child inherits it, and may say something else.
    let request = json!({"model": "b", "from": "a", "info": {"parameter_size": "8B", "model_family": ""}});
    folder.create(request).await.unwrap();
    let child = folder.get("b").await.unwrap();
    assert_eq!((child.details.parameter_size.as_str(), child.details.family.as_str()), ("8B", "mine"));
}

#[tokio::test]
async fn what_cannot_be_true_of_a_model_is_refused() {
    let folder = Folder::new();
    folder.model("base", json!({})).await;
    let count = "must be an integer between 1 and 4294967295, got";
    for (info, expected) in [
        (json!({"context_length": 0}), format!("`info.context_length` {count} 0")),
        (json!({"context_length": -5}), format!("`info.context_length` {count} -5")),
        (json!({"embedding_length": 4294967296u64}), format!("`info.embedding_length` {count} 4294967296")),
        (json!({"embedding_length": "many"}), format!("`info.embedding_length` {count} \"many\"")),
        (json!({"model_family": 7}), "`info.model_family` must be a string, got 7".to_owned()),
        (json!({"parameter_size": []}), "`info.parameter_size` must be a string, got []".to_owned()),
        (
            json!({"capabilities": ["fly"]}),
            "`info.capabilities` must be a list of some of completion, tools, insert, vision, embedding, thinking, image, \
             audio, rerank, got [\"fly\"]"
                .to_owned(),
        ),
        (json!({"base_name": {("a".repeat(100)): 1}}), format!("must be a string, got {{\"{}", "a".repeat(38))),
    ] {
        let (status, text) = message(folder.create(json!({"model": "a", "from": "base", "info": info})).await);
        assert!(status == 400 && text.ends_with(&expected), "{info}: {text}");
    }
    assert_eq!(folder.listed().await, ["base:latest"]);
}

//! `create` when it works.

use std::sync::mpsc;

use api::ollama::{CreateRequest, Progress};
use gguf::TensorType;
use serde_json::{Value, json};
use store::{CreateSpec, Digest, Result};
use template::Kind;
use tokio::task::JoinHandle;

use crate::fixture::{Folder, gguf, name, writer};

fn config_of(folder: &Folder, model: &store::Model) -> Value {
    let bytes = std::fs::read(folder.store.blob_path(&model.manifest.config.digest)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_gguf_becomes_a_model_with_the_status_lines_in_order() {
    let folder = Folder::new();
    let bytes = gguf("a");
    let digest = folder.upload(bytes.clone()).await;
    let request = json!({
        "model": "a",
        "files": {"tiny.gguf": digest.to_string()},
        "template": "{{ .Prompt }}",
        "system": "Be brief.",
        "parameters": {"temperature": 0.5, "stop": ["<end>"]},
        "messages": [{"role": "user", "content": "Hi"}],
        "license": "MIT",
    });
    let lines = folder.create(request).await.unwrap();
    let layer = |text: &str| format!("creating new layer {}", Digest::of(text.as_bytes()));
    let statuses: Vec<&str> = lines.iter().map(|line| line.status.as_str()).collect();
    assert_eq!(
        statuses,
        [
            "parsing GGUF",
            "validating GGUF model",
            &format!("using existing layer {digest}"),
            &layer("{{ .Prompt }}"),
            &layer("Be brief."),
            &layer("MIT"),
            &layer("{\"stop\":[\"<end>\"],\"temperature\":0.5}\n"),
            &layer("[{\"role\":\"user\",\"content\":\"Hi\"}]\n"),
            "writing manifest",
            "success",
        ]
    );
    let validating = &lines[1];
    assert_eq!(validating.digest, "0000000000000000000");
    assert_eq!((validating.total, validating.completed), (bytes.len() as u64, bytes.len() as u64));

    let model = folder.get("a").await.unwrap();
    assert_eq!(model.weights, Some(digest));
    assert_eq!(model.template.as_deref(), Some("{{ .Prompt }}"));
    assert_eq!(model.system.as_deref(), Some("Be brief."));
    assert_eq!(Value::Object(model.parameters.clone()), json!({"stop": ["<end>"], "temperature": 0.5}));
    assert_eq!(model.messages.len(), 1);
    assert_eq!(model.licenses, ["MIT"]);
    assert_eq!(model.details.parent_model, "tiny.gguf");
}

#[tokio::test]
async fn the_config_is_what_ollama_would_write() {
    let folder = Folder::new();
    let model = folder.model("a", json!({})).await;
    let expected = json!({
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "128",
        "file_type": "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
    });
    assert_eq!(config_of(&folder, &model), expected);
    assert_eq!(model.manifest.schema_version, 2);
}

#[tokio::test]
async fn no_stop_parameters_and_no_template_are_invented() {
    let folder = Folder::new();
    let model = folder.model("a", json!({})).await;
    assert!(model.parameters.is_empty());
    assert_eq!(model.template, None);
    assert_eq!(model.manifest.layers.len(), 1);
}

#[tokio::test]
async fn a_jinja_template_of_a_known_shape_gives_a_go_template_and_its_stop_strings() {
    let folder = Folder::new();
    let mut weights = writer("llama", "shaped");
    let jinja = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";
    weights.metadata("tokenizer.chat_template", jinja).unwrap();
    let digest = folder.upload(weights.to_bytes().unwrap()).await.to_string();
    let request = |name: &str| json!({"model": name, "files": {"model.gguf": digest}});
    let lines = folder.create(request("a")).await.unwrap();
    assert!(lines.iter().any(|line| line.status == "using autodetected template chatml"), "{lines:?}");
    let model = folder.get("a").await.unwrap();
    assert!(model.template.as_deref().unwrap().contains("<|im_start|>{{ .Role }}"));
    assert_eq!(model.parameters["stop"], json!(["<|im_start|>", "<|im_end|>"]));
    assert_eq!(model.template_kind(), template::Kind::Go);
    // What the request says wins.
    let mut given = request("b");
    given["template"] = json!("{{ .Prompt }}");
    folder.create(given).await.unwrap();
    assert!(folder.get("b").await.unwrap().parameters.is_empty());
    let mut given = request("c");
    given["parameters"] = json!({"stop": ["x"]});
    folder.create(given).await.unwrap();
    assert_eq!(folder.get("c").await.unwrap().parameters["stop"], json!(["x"]));
}

#[tokio::test]
async fn from_inherits_everything_that_is_not_given() {
    let folder = Folder::new();
    let base = folder
        .model(
            "base",
            json!({
                "template": "T {{ .Prompt }}", "system": "S", "license": ["L1"],
                "parameters": {"top_k": 3, "temperature": 0.1}, "messages": [{"role": "user", "content": "m"}],
            }),
        )
        .await;
    folder.create(json!({"model": "same", "from": "base"})).await.unwrap();
    let same = folder.get("same").await.unwrap();
    assert_eq!(same.weights, base.weights);
    assert_eq!(
        (&same.template, &same.system, &same.licenses),
        (&base.template, &base.system, &base.licenses)
    );
    assert_eq!((&same.parameters, &same.messages), (&base.parameters, &base.messages));
    assert_eq!(same.config, base.config);
    assert_eq!(same.details.parent_model, "base:latest");
}

#[tokio::test]
async fn from_merges_what_is_given() {
    let folder = Folder::new();
    let base = json!({
        "template": "T {{ .Prompt }}", "system": "S", "license": "L1",
        "parameters": {"top_k": 3, "temperature": 0.1, "stop": ["a"]}, "messages": [{"role": "user", "content": "m"}],
    });
    folder.model("base", base).await;
    let request = json!({
        "model": "child", "from": "BASE", "system": "S2", "license": ["L2", "L1", ""], "template": "",
        "parameters": {"temperature": 0.9, "stop": ["b"]},
        "messages": [{"role": "user", "content": "n"}, {"role": "assistant", "content": "o"}],
    });
    folder.create(request).await.unwrap();
    let child = folder.get("child").await.unwrap();
    assert_eq!(child.template.as_deref(), Some("T {{ .Prompt }}"), "an empty text means not given");
    assert_eq!(child.system.as_deref(), Some("S2"));
    assert_eq!(child.licenses, ["L1", "L2"]);
    let expected = json!({"stop": ["b"], "temperature": 0.9, "top_k": 3});
    assert_eq!(Value::Object(child.parameters.clone()), expected);
    assert_eq!(child.messages.len(), 2);
    assert_eq!(child.messages[1].content, "o");
}

#[tokio::test]
async fn a_model_may_be_made_from_itself() {
    let folder = Folder::new();
    folder.model("a", json!({"system": "one"})).await;
    folder.create(json!({"model": "a", "from": "a", "system": "two"})).await.unwrap();
    assert_eq!(folder.get("a").await.unwrap().system.as_deref(), Some("two"));
    assert!(!folder.store.has_blob(&Digest::of(b"one")).await, "the old system prompt was kept");
}

#[tokio::test]
async fn unknown_fields_of_a_config_are_inherited_and_the_old_layer_list_is_not() {
    let folder = Folder::new();
    let model = folder.model("a", json!({})).await;
    let mut config = config_of(&folder, &model);
    config["rootfs"] = json!({"type": "layers", "diff_ids": []});
    config["renderer"] = json!("qwen3-coder");
    config["novel"] = json!(1);
    let bytes = serde_json::to_vec(&config).unwrap();
    let digest = folder.upload(bytes.clone()).await;
    let mut manifest = model.manifest.clone();
    manifest.config.digest = digest;
    manifest.config.size = bytes.len() as u64;
    folder.write("manifests/registry.ollama.ai/library/a/latest", serde_json::to_vec(&manifest).unwrap());
    folder.create(json!({"model": "b", "from": "a"})).await.unwrap();
    let config = config_of(&folder, &folder.get("b").await.unwrap());
    assert_eq!((&config["renderer"], &config["novel"]), (&json!("qwen3-coder"), &json!(1)));
    assert_eq!(config.get("rootfs"), None);
}

#[tokio::test]
async fn creating_again_removes_what_only_the_old_model_used() {
    let folder = Folder::new();
    folder.model("a", json!({"system": "gone soon"})).await;
    let digest = Digest::of(&gguf("a"));
    let files = json!({"model.gguf": digest.to_string()});
    folder.create(json!({"model": "a", "files": files})).await.unwrap();
    let model = folder.get("a").await.unwrap();
    assert_eq!(model.system, None, "a system prompt survived a create without one");
    let expected = model.manifest.blobs().map(|layer| layer.digest.file_name()).collect();
    assert_eq!(folder.blobs(), expected);
}

#[tokio::test]
async fn without_pruning_old_blobs_stay() {
    let folder = Folder::without_pruning();
    folder.model("a", json!({"system": "stays"})).await;
    folder.create(json!({"model": "a", "from": "a", "system": "new"})).await.unwrap();
    assert!(folder.store.has_blob(&Digest::of(b"stays")).await);
}

#[tokio::test]
async fn a_layer_that_is_there_is_used() {
    let folder = Folder::new();
    folder.model("a", json!({"system": "same"})).await;
    let lines = folder.create(json!({"model": "b", "from": "a", "system": "same"})).await.unwrap();
    let status = format!("using existing layer {}", Digest::of(b"same"));
    assert!(lines.iter().any(|line| line.status == status), "{lines:?}");
}

#[tokio::test]
async fn the_same_request_makes_the_same_manifest() {
    let folder = Folder::new();
    let a = folder.model("a", json!({"parameters": {"top_k": 1, "seed": 2}})).await;
    folder.delete("a").await.unwrap();
    let b = folder.model("a", json!({"parameters": {"seed": 2, "top_k": 1}})).await;
    assert_eq!(a.digest, b.digest);
}

#[tokio::test]
async fn a_projector_among_the_files_gives_sight() {
    let folder = Folder::new();
    let mut projector = writer("clip", "p");
    projector.metadata("general.type", "mmproj").unwrap();
    projector.metadata("clip.has_audio_encoder", true).unwrap();
    let model = folder.upload(gguf("a")).await;
    let projector = folder.upload(projector.to_bytes().unwrap()).await;
    let files = json!({"mmproj.gguf": projector.to_string(), "model.gguf": model.to_string()});
    folder.create(json!({"model": "a", "files": files})).await.unwrap();
    let model = folder.get("a").await.unwrap();
    assert_eq!(model.projector, Some(projector));
    assert_eq!(model.details.family, "llama");
    assert_eq!(model.capabilities, ["completion", "vision", "audio"]);
}

#[tokio::test]
async fn templates_tell_what_the_model_can_do() {
    let folder = Folder::new();
    let tools = "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
    let mut jinja = writer("llama", "jinja");
    jinja.metadata("tokenizer.chat_template", tools).unwrap();
    let jinja = folder.upload(jinja.to_bytes().unwrap()).await.to_string();
    let plain = folder.upload(gguf("plain")).await.to_string();
    let go_tools = "{{ .Tools }}{{ range .Messages }}{{ .Content }}{{ end }}";
    for (weights, template, kind, capabilities) in [
        (&plain, "", Kind::Plain, vec!["completion"]),
        (&plain, "{{ .Prompt }}", Kind::Go, vec!["completion"]),
        (&plain, "{{ .Prompt }}{{ .Suffix }}", Kind::Go, vec!["completion", "insert"]),
        (&plain, go_tools, Kind::Go, vec!["completion", "tools"]),
        (&jinja, "", Kind::Jinja, vec!["completion", "tools"]),
        (&jinja, "{{ .Prompt }}", Kind::Jinja, vec!["completion", "tools"]),
        (&jinja, go_tools, Kind::Go, vec!["completion", "tools"]),
    ] {
        let request = json!({"model": "a", "files": {"a.gguf": weights}, "template": template});
        folder.create(request).await.unwrap();
        let model = folder.get("a").await.unwrap();
        assert_eq!(
            (model.template_kind(), &model.capabilities),
            (kind, &capabilities.iter().map(|c| c.to_string()).collect())
        );
        let shown = match kind {
            Kind::Jinja => tools,
            Kind::Go => template,
            Kind::Plain => "{{ .Prompt }}",
        };
        assert_eq!(folder.show("a", json!({})).await.template, shown);
        // The next round must not find the blobs of this one gone.
        folder.create(json!({"model": format!("keep-{}", &weights[7..12]), "from": "a"})).await.unwrap();
    }
}

#[tokio::test]
async fn a_stored_template_that_we_cannot_parse_does_not_hide_the_model() {
    let folder = Folder::new();
    let mut broken = writer("llama", "broken");
    broken.metadata("tokenizer.chat_template", "{% for %}").unwrap();
    let broken = folder.upload(broken.to_bytes().unwrap()).await.to_string();
    folder.create(json!({"model": "a", "files": {"a.gguf": broken}})).await.unwrap();
    let model = folder.get("a").await.unwrap();
    assert_eq!(
        (model.template_kind(), model.capabilities.as_slice()),
        (Kind::Plain, ["completion".to_owned()].as_slice())
    );
}

#[tokio::test]
async fn an_embedder_cannot_complete() {
    let folder = Folder::new();
    let mut embedder = writer("llama", "e");
    embedder.metadata("llama.pooling_type", 1u32).unwrap();
    let digest = folder.upload(embedder.to_bytes().unwrap()).await;
    folder.create(json!({"model": "e", "files": {"e.gguf": digest.to_string()}})).await.unwrap();
    let model = folder.get("e").await.unwrap();
    assert_eq!(model.capabilities, ["embedding"]);
    assert!(model.can("embedding") && !model.can("completion"));
}

#[tokio::test]
async fn a_reranker_can_embed_too() {
    let folder = Folder::new();
    let mut by_key = writer("llama", "k");
    by_key.metadata("llama.pooling_type", 4u32).unwrap();
    // What a converter writes for most of them.
    let mut by_tensor = writer("llama", "t");
    by_tensor.tensor("cls.output.weight", &[32, 1], TensorType::F32, vec![0; 128]).unwrap();
    for (name, writer) in [("k", by_key), ("t", by_tensor)] {
        let digest = folder.upload(writer.to_bytes().unwrap()).await;
        folder.create(json!({"model": name, "files": {"r.gguf": digest.to_string()}})).await.unwrap();
        assert_eq!(folder.get(name).await.unwrap().capabilities, ["embedding", "rerank"]);
    }
    let mut classifier = writer("llama", "c");
    classifier.tensor("cls.output.weight", &[32, 3], TensorType::F32, vec![0; 384]).unwrap();
    let digest = folder.upload(classifier.to_bytes().unwrap()).await;
    folder.create(json!({"model": "c", "files": {"c.gguf": digest.to_string()}})).await.unwrap();
    assert!(!folder.get("c").await.unwrap().can("rerank"));
}

#[tokio::test]
async fn a_gguf_is_known_by_its_first_bytes_too() {
    let folder = Folder::new();
    let digest = folder.upload(gguf("a")).await;
    folder.create(json!({"name": "a", "files": {"weights": digest.to_string()}})).await.unwrap();
    assert_eq!(folder.listed().await, ["a:latest"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_create_and_delete_models_of_one_blob_at_once() {
    let folder = Folder::new();
    let base = folder.model("base", json!({})).await;
    let request = |model: &str, system: &str| -> CreateRequest {
        serde_json::from_value(json!({"model": model, "from": "base", "system": system})).unwrap()
    };
    let tasks = (0..8).map(|index| {
        let store = folder.store.clone();
        // Two tasks write each name, and all share the system prompts.
        let spec = CreateSpec::new(request(&format!("m{}", index / 2), &format!("s{}", index % 3)), |_| true)
            .unwrap();
        tokio::spawn(async move {
            for _ in 0..10 {
                store.create(spec.clone(), |_| {}).await.unwrap();
                // The other writer of this name may have been faster.
                let _ = store.delete(&spec.name).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(folder.listed().await, ["base:latest"]);
    let expected = base.manifest.blobs().map(|layer| layer.digest.file_name()).collect();
    assert_eq!(folder.blobs(), expected);
}

/// Starts a create of `a` and returns when it has said a line that starts with `status`. It goes on when told.
async fn paused(
    folder: &Folder,
    request: Value,
    status: &'static str,
) -> (JoinHandle<Result<()>>, mpsc::Sender<()>) {
    let spec = CreateSpec::new(serde_json::from_value(request).unwrap(), |_| true).unwrap();
    let (reached, mut has_reached) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let store = folder.store.clone();
    let task = tokio::spawn(async move {
        let progress = move |line: Progress| {
            if line.status.starts_with(status) {
                reached.send(()).unwrap();
                may_go_on.recv().unwrap();
            }
        };
        store.create(spec, progress).await
    });
    has_reached.recv().await.unwrap();
    (task, go_on)
}

#[tokio::test]
async fn a_create_keeps_its_blobs_when_their_only_other_user_is_deleted() {
    let folder = Folder::new();
    folder.model("base", json!({"system": "s"})).await;
    let (task, go_on) = paused(&folder, json!({"model": "a", "from": "base"}), "writing manifest").await;
    folder.delete("base").await.unwrap();
    go_on.send(()).unwrap();
    task.await.unwrap().unwrap();
    let model = folder.get("a").await.unwrap();
    assert_eq!(model.system.as_deref(), Some("s"));
    assert!(folder.store.has_blob(model.weights.as_ref().unwrap()).await);
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_create_and_nothing_stays() {
    let folder = Folder::new();
    folder.model("base", json!({})).await;
    let before = folder.files();
    let request = json!({"model": "a", "from": "base", "system": "s"});
    let (task, go_on) = paused(&folder, request, "creating new layer").await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    // Waits for the lock of the name, so for the end of the create.
    assert!(folder.store.delete(&name("a")).await.is_err());
    assert_eq!(folder.files(), before);
}

//! Names against what is stored: any case finds it, the stored spelling wins.

use serde_json::json;

use crate::fixture::{Folder, message};

#[tokio::test]
async fn a_model_is_found_in_any_case() {
    let folder = Folder::new();
    folder.model("Me/Story:V1", json!({})).await;
    for text in ["Me/Story:V1", "me/story:v1", "ME/STORY:V1", "Registry.Ollama.AI/me/story:v1"] {
        assert_eq!(folder.get(text).await.unwrap().name.shortest(), "Me/Story:V1");
    }
    assert_eq!(message(folder.get("me/story:v2").await), (404, "model 'me/story:v2' not found".to_owned()));
}

#[tokio::test]
async fn no_two_names_differ_by_case_only() {
    let folder = Folder::new();
    folder.model("Story", json!({"system": "one"})).await;
    folder.create(json!({"model": "sTORY:Latest", "from": "story", "system": "two"})).await.unwrap();
    folder.copy("STORY", "sTory:b").await.unwrap();
    let mut listed = folder.listed().await;
    listed.sort();
    assert_eq!(listed, ["Story:b", "Story:latest"]);
    assert_eq!(folder.get("story").await.unwrap().system.as_deref(), Some("two"));
    folder.delete("STORY:B").await.unwrap();
    assert_eq!(folder.listed().await, ["Story:latest"]);
}

#[tokio::test]
async fn of_two_spellings_that_somebody_else_made_the_exact_one_is_found() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    let manifest = std::fs::read(folder.path("manifests/registry.ollama.ai/library/a/latest")).unwrap();
    folder.write("manifests/registry.ollama.ai/library/X/one", &manifest);
    folder.write("manifests/registry.ollama.ai/library/x/two", &manifest);
    for (asked, found) in [("x:two", "x:two"), ("X:two", "x:two"), ("x:ONE", "X:one"), ("X:one", "X:one")] {
        assert_eq!(folder.get(asked).await.unwrap().name.shortest(), found);
    }
    folder.copy("a", "x:three").await.unwrap();
    folder.copy("a", "X:four").await.unwrap();
    assert_eq!(folder.get("x:three").await.unwrap().name.shortest(), "x:three");
    assert_eq!(folder.get("x:four").await.unwrap().name.shortest(), "X:four");
}

#[tokio::test]
async fn a_host_with_a_port_has_its_own_folder() {
    let folder = Folder::new();
    folder.model("localhost:5000/me/m:t", json!({})).await;
    assert!(folder.path("manifests/localhost:5000/me/m/t").is_file());
    assert_eq!(folder.listed().await, ["localhost:5000/me/m:t"]);
}

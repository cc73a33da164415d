//! List, copy, delete.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::ollama::Details;
use serde_json::{Value, json};
use store::{Digest, Manifest};

use crate::fixture::{Folder, JINJA, gguf, message, name, writer};

const LATEST: &str = "manifests/registry.ollama.ai/library/a/latest";

#[tokio::test]
async fn a_listing_tells_what_clients_want_to_know() {
    let folder = Folder::new();
    let model = folder.model("a", json!({"system": "Be kind."})).await;
    let listed = model.listed();
    let bytes = std::fs::read(folder.path(LATEST)).unwrap();
    let manifest = Manifest::parse(&bytes).unwrap();
    assert_eq!((listed.name.as_str(), listed.model.as_str()), ("a:latest", "a:latest"));
    assert_eq!(listed.digest, Digest::of(&bytes).hex());
    let on_disk: u64 = manifest
        .blobs()
        .map(|layer| std::fs::metadata(folder.store.blob_path(&layer.digest)).unwrap().len())
        .sum();
    assert_eq!(listed.size, on_disk);
    assert_eq!(
        listed.details,
        Details {
            parent_model: String::new(),
            format: "gguf".to_owned(),
            family: "llama".to_owned(),
            families: Some(vec!["llama".to_owned()]),
            parameter_size: "128".to_owned(),
            quantization_level: "Q4_K_M".to_owned(),
            context_length: Some(2048),
            embedding_length: Some(32),
        }
    );
    assert_eq!(listed.capabilities, ["completion"]);
    assert!(listed.modified_at.starts_with("20"), "{}", listed.modified_at);
}

#[tokio::test]
async fn an_empty_folder_lists_nothing() {
    assert!(Folder::new().listed().await.is_empty());
}

#[tokio::test]
async fn newest_comes_first() {
    let folder = Folder::new();
    for (seconds, text) in [(300, "old"), (100, "new"), (200, "middle")] {
        folder.model(text, json!({})).await;
        let file =
            std::fs::File::open(folder.path(&format!("manifests/registry.ollama.ai/library/{text}/latest")));
        file.unwrap().set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }
    assert_eq!(folder.listed().await, ["new:latest", "middle:latest", "old:latest"]);
}

#[tokio::test]
async fn what_is_no_model_is_passed_over() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    folder.write("manifests/registry.ollama.ai/library/broken/latest", b"{");
    folder.write("manifests/registry.ollama.ai/library/no-config/latest", b"{}");
    folder.write("manifests/registry.ollama.ai/library/a/.tmp-x1y2", b"half a mani");
    folder.write("manifests/registry.ollama.ai/library/.DS_Store", b"");
    folder.write("manifests/lost+found/x/y/z", b"");
    folder.write("manifests/registry.ollama.ai/library/deep/tag/file", b"");
    assert_eq!(folder.listed().await, ["a:latest"]);
    assert_eq!(message(folder.get("broken").await).0, 500);
    assert_eq!(message(folder.get("deep:tag").await).0, 404);
}

#[tokio::test]
async fn a_model_with_a_missing_blob_says_so() {
    let folder = Folder::new();
    let model = folder.model("a", json!({"system": "s"})).await;
    std::fs::remove_file(folder.store.blob_path(&Digest::of(b"s"))).unwrap();
    let store = folder.reopened();
    let expected = (404, r#"model "a:latest" not found, try pulling it first"#.to_owned());
    assert_eq!(message(store.get(&model.name).await), expected);
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_model_without_its_weights_is_listed_and_seen_again_when_they_are_back() {
    let folder = Folder::new();
    let model = folder.model("a", json!({})).await;
    let path = folder.store.blob_path(model.weights.as_ref().unwrap());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let store = folder.reopened();
    assert!(store.list().await.unwrap()[0].capabilities.is_empty());
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(store.list().await.unwrap()[0].capabilities, ["completion"]);
}

#[tokio::test]
async fn manifests_that_did_not_change_are_not_read_again() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    folder.model("b", json!({})).await;
    let before = folder.store.list().await.unwrap();
    folder.create(json!({"model": "b", "from": "b", "system": "changed"})).await.unwrap();
    let after = folder.store.list().await.unwrap();
    let of = |models: &[Arc<store::Model>], text: &str| {
        models.iter().find(|m| m.name == name(text)).cloned().unwrap()
    };
    assert!(Arc::ptr_eq(&of(&before, "a"), &of(&after, "a")));
    assert_eq!(of(&after, "b").system.as_deref(), Some("changed"));
}

#[tokio::test]
async fn a_change_by_another_process_is_seen() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    folder.listed().await;
    let other = folder.reopened();
    other.copy(&name("a"), &name("b")).await.unwrap();
    other.delete(&name("a")).await.unwrap();
    assert_eq!(folder.listed().await, ["b:latest"]);
    assert_eq!(message(folder.get("a").await).0, 404);
}

#[tokio::test]
async fn a_copy_shares_every_blob() {
    let folder = Folder::new();
    let model = folder.model("a", json!({"system": "s"})).await;
    let blobs = folder.blobs();
    folder.copy("a", "you/b:t").await.unwrap();
    assert_eq!(folder.blobs(), blobs);
    let copy = folder.get("you/b:t").await.unwrap();
    assert_eq!((&copy.digest, &copy.system), (&model.digest, &model.system));
    assert_eq!(copy.replica_key(), model.replica_key());
}

#[tokio::test]
async fn a_pulled_manifest_is_copied_byte_for_byte() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    let odd = format!("{}\n  \n", String::from_utf8(std::fs::read(folder.path(LATEST)).unwrap()).unwrap());
    folder.write(LATEST, &odd);
    folder.copy("a", "b").await.unwrap();
    let copied =
        std::fs::read_to_string(folder.path("manifests/registry.ollama.ai/library/b/latest")).unwrap();
    assert_eq!(copied, odd);
    assert_eq!(folder.get("b").await.unwrap().digest, Digest::of(odd.as_bytes()).hex());
}

#[tokio::test]
async fn copying_a_model_onto_itself_does_nothing() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    let before = std::fs::metadata(folder.path(LATEST)).unwrap().modified().unwrap();
    folder.copy("a", "A:LATEST").await.unwrap();
    assert_eq!(std::fs::metadata(folder.path(LATEST)).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn copying_over_a_model_removes_what_only_it_used() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    let blobs = folder.blobs();
    folder.model("b", json!({"system": "only b"})).await;
    folder.copy("a", "b").await.unwrap();
    assert_eq!(folder.blobs(), blobs);
}

#[tokio::test]
async fn copying_what_is_not_there_has_its_own_text() {
    let folder = Folder::new();
    assert_eq!(message(folder.copy("a", "b").await), (404, r#"model "a:latest" not found"#.to_owned()));
    assert!(folder.files().is_empty());
}

#[tokio::test]
async fn deleting_keeps_shared_blobs_and_removes_the_rest() {
    let folder = Folder::new();
    let a = folder.model("a", json!({"system": "shared"})).await;
    folder.create(json!({"model": "b", "from": "a", "template": "{{ .Prompt }}"})).await.unwrap();
    folder.delete("a").await.unwrap();
    assert!(folder.store.has_blob(a.weights.as_ref().unwrap()).await);
    assert_eq!(folder.get("b").await.unwrap().system.as_deref(), Some("shared"));
    folder.delete("b").await.unwrap();
    assert!(folder.files().is_empty(), "{:?}", folder.files());
    assert!(!folder.path("manifests/registry.ollama.ai").exists(), "empty folders were kept");
    assert!(folder.path("manifests").is_dir());
}

#[tokio::test]
async fn deleting_keeps_what_a_damaged_manifest_seems_to_name() {
    let folder = Folder::new();
    let a = folder.model("a", json!({})).await;
    let weights = a.weights.clone().unwrap();
    let torn = format!(r#"{{"layers":[{{"digest":"{weights}","#);
    folder.write("manifests/registry.ollama.ai/library/torn/latest", torn);
    folder.delete("a").await.unwrap();
    assert!(folder.store.has_blob(&weights).await);
}

#[tokio::test]
async fn deleting_a_damaged_manifest_works() {
    let folder = Folder::new();
    folder.write("manifests/registry.ollama.ai/library/torn/latest", b"{");
    folder.delete("torn").await.unwrap();
    assert!(folder.files().is_empty());
    assert_eq!(message(folder.delete("torn").await), (404, "model 'torn:latest' not found".to_owned()));
}

#[tokio::test]
async fn the_replica_key_depends_on_weights_adapters_and_projector_only() {
    let folder = Folder::new();
    let a = folder.model("a", json!({})).await;
    folder
        .create(json!({"model": "b", "from": "a", "system": "s", "parameters": {"top_k": 1}}))
        .await
        .unwrap();
    let b = folder.get("b").await.unwrap();
    assert_eq!(a.replica_key(), b.replica_key());
    assert_eq!(a.replica_key(), a.weights.as_ref().unwrap().hex());
    let mut adapter = writer("llama", "lora");
    adapter.metadata("general.type", "adapter").unwrap();
    let adapter = folder.upload(adapter.to_bytes().unwrap()).await;
    folder
        .create(json!({"model": "c", "from": "a", "adapters": {"l.gguf": adapter.to_string()}}))
        .await
        .unwrap();
    let c = folder.get("c").await.unwrap();
    assert_eq!(c.adapters, [adapter]);
    assert_ne!(c.replica_key(), a.replica_key());
    assert!(c.replica_key().bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[tokio::test]
async fn old_blob_names_are_renamed_when_the_folder_is_opened() {
    let folder = Folder::new();
    let digest = folder.upload(gguf("a")).await;
    std::fs::rename(folder.store.blob_path(&digest), folder.path(&format!("blobs/{digest}"))).unwrap();
    assert!(folder.reopened().has_blob(&digest).await);
}

#[tokio::test]
async fn the_chat_template_of_the_weights_is_known() {
    let folder = Folder::new();
    let mut writer = writer("llama", "a");
    writer.metadata("tokenizer.chat_template", JINJA).unwrap();
    let digest = folder.upload(writer.to_bytes().unwrap()).await;
    folder.create(json!({"model": "a", "files": {"a.gguf": digest.to_string()}})).await.unwrap();
    assert_eq!(folder.get("a").await.unwrap().chat_template.as_deref(), Some(JINJA));
}

#[tokio::test]
async fn a_thousand_models_are_listed() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    let manifest = std::fs::read(folder.path(LATEST)).unwrap();
    for index in 0..999 {
        folder.write(&format!("manifests/registry.ollama.ai/library/m{index}/latest"), &manifest);
    }
    let first = folder.store.list().await.unwrap();
    let second = folder.store.list().await.unwrap();
    assert_eq!((first.len(), second.len()), (1000, 1000));
    // Nothing was read again. What is left is to look at the folders: `make bench-tags` tells how long that takes.
    assert!(first.iter().zip(&second).all(|(before, after)| Arc::ptr_eq(before, after)));
    // Of a thousand manifests the one that changed is read, and no other.
    folder.write("manifests/registry.ollama.ai/library/m7/latest", [manifest.as_slice(), b" "].concat());
    let third = folder.store.list().await.unwrap();
    let again = |model: &&Arc<store::Model>| !first.iter().any(|before| Arc::ptr_eq(before, model));
    let read: Vec<String> = third.iter().filter(again).map(|model| model.name.shortest()).collect();
    assert_eq!(read, ["m7:latest"]);
}

#[tokio::test]
async fn texts_of_a_model_have_a_bound_together() {
    let folder = Folder::new();
    let model = folder.model("a", json!({"license": "x".repeat(1 << 20)})).await;
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(folder.path(LATEST)).unwrap()).unwrap();
    let layers = manifest["layers"].as_array_mut().unwrap();
    let license = layers.iter().find(|layer| layer["size"] == 1 << 20).unwrap().clone();
    // One blob, named over and over.
    layers.extend(std::iter::repeat_n(license, 32));
    folder.write(LATEST, manifest.to_string());
    let (status, text) = message(folder.get("a").await);
    assert_eq!(status, 400);
    assert!(text.contains("at most 33554432 bytes together"), "{text}");
    assert!(folder.store.list().await.unwrap().is_empty(), "it hurts nobody else");
    assert_eq!(model.licenses.len(), 1);
}

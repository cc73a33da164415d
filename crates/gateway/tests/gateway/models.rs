//! Creating, listing, showing, copying and deleting models, blobs, and what is loaded.

use std::collections::BTreeSet;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::Method;
use serde_json::{Value, json};

use crate::rig::{Rig, small_gguf};

const ZEROS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn names(listing: &Value) -> BTreeSet<String> {
    let models = listing["models"].as_array().unwrap();
    models.iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_model_is_listed_with_all_that_clients_read() {
    let rig = Rig::start().await;
    let reply = rig.get("/api/tags").await;
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    let model = reply.json()["models"][0].clone();
    assert_eq!((&model["name"], &model["model"]), (&json!("m:latest"), &json!("m:latest")));
    assert_eq!(model["details"]["family"], "llama");
    assert_eq!(model["digest"].as_str().unwrap().len(), 64);
    assert!(model["size"].as_u64() > Some(0) && model["modified_at"].is_string());
    assert_eq!(rig.call(Method::HEAD, "/api/tags", "").await.status, 200);
}

#[tokio::test]
async fn a_listing_of_nothing_is_an_empty_list() {
    let rig = Rig::start().await;
    rig.call(Method::DELETE, "/api/delete", r#"{"model":"m"}"#).await;
    assert_eq!(rig.get("/api/tags").await.json(), json!({ "models": [] }));
    assert_eq!(rig.get("/api/ps").await.json(), json!({ "models": [] }));
    assert_eq!(rig.get("/v1/models").await.json(), json!({ "object": "list", "data": null }));
}

#[tokio::test]
async fn a_create_tells_its_progress_and_ends_with_success() {
    let rig = Rig::start().await;
    let digest = rig.upload(small_gguf("new")).await;
    let before = rig.registry.view().catalog;
    let reply = rig.post("/api/create", json!({ "model": "new", "files": { "m.gguf": digest } })).await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let lines = reply.lines();
    let statuses: Vec<&str> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!((statuses[0], *statuses.last().unwrap()), ("parsing GGUF", "success"));
    assert!(statuses.contains(&"writing manifest"));
    assert_eq!(statuses.iter().filter(|status| **status == "success").count(), 1);
    assert!(names(&rig.get("/api/tags").await.json()).contains("new:latest"));
    rig.until(|rig| rig.registry.view().catalog > before).await;
}

#[tokio::test]
async fn a_create_that_fails_leaves_nothing_and_says_why() {
    let rig = Rig::start().await;
    let broken = rig.upload(b"GGUF but not really".to_vec()).await;
    let before: Vec<String> = rig.files().into_iter().filter(|file| file.contains("manifests")).collect();
    for (request, status, text) in [
        (json!({ "model": "x", "files": { "m.gguf": ZEROS } }), 400, "not found"),
        (json!({ "model": "x", "files": { "m.gguf": broken } }), 400, "m.gguf"),
        (json!({ "model": "x" }), 400, "neither 'from' or 'files' was specified"),
        (json!({ "model": "", "from": "m" }), 400, "invalid model name"),
        (json!({ "model": "x", "from": "m", "template": "{{ if }}" }), 400, "template error: "),
        (json!({ "model": "x", "files": { "../m.gguf": ZEROS } }), 400, "file path must be relative"),
    ] {
        let reply = rig.post("/api/create", with(&request, "stream", json!(false))).await;
        assert_eq!(reply.status.as_u16(), status, "{request} {reply:?}");
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(text), "{request}: {error}");
    }
    let after: Vec<String> = rig.files().into_iter().filter(|file| file.contains("manifests")).collect();
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_create_that_fails_after_its_first_line_ends_with_an_error_line() {
    let rig = Rig::start().await;
    let broken = rig.upload(b"GGUF but not really".to_vec()).await;
    let reply = rig.post("/api/create", json!({ "model": "x", "files": { "m.gguf": broken } })).await;
    assert_eq!(reply.status, 200);
    let lines = reply.lines();
    assert!(lines.last().unwrap()["error"].is_string(), "{lines:?}");
    assert!(lines.iter().all(|line| line["status"] != "success"));
}

#[tokio::test]
async fn a_model_can_be_made_from_another() {
    let rig = Rig::start().await;
    let request = json!({ "model": "child", "from": "m", "system": "be kind", "stream": false });
    assert_eq!(rig.post("/api/create", request).await.json(), json!({ "status": "success" }));
    let shown = rig.post("/api/show", json!({ "name": "child" })).await.json();
    assert_eq!((&shown["system"], &shown["details"]["family"]), (&json!("be kind"), &json!("llama")));
    assert_eq!(rig.replica_key("m").await, rig.replica_key("child").await);
}

#[tokio::test]
async fn what_is_shown_is_found_by_either_spelling_of_the_field() {
    let rig = Rig::start().await;
    for key in ["model", "name"] {
        let shown = rig.post("/api/show", json!({ key: "M" })).await.json();
        assert_eq!(shown["model_info"]["general.architecture"], "llama");
        assert!(shown["modelfile"].as_str().unwrap().contains("FROM"));
    }
    assert_eq!(rig.post("/api/show", json!({})).await.refused(400), "model is required");
    assert_eq!(
        rig.post("/api/show", json!({ "model": "x" })).await.refused(404),
        "model 'x:latest' not found"
    );
    let cloud = rig.post("/api/show", json!({ "model": "x:cloud" })).await;
    assert_eq!(cloud.refused(403), "ollama cloud is disabled: remote model details are unavailable");
}

#[tokio::test]
async fn a_copy_is_a_second_name() {
    let rig = Rig::start().await;
    let reply = rig.post("/api/copy", json!({ "source": "m", "destination": "me/n:1" })).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, ""));
    assert!(names(&rig.get("/api/tags").await.json()).contains("me/n:1"));
    for (source, destination, status, text) in [
        ("", "n", 400, "source \"\" is invalid"),
        ("m", "/", 400, "destination \"/\" is invalid"),
        ("x", "n", 404, "model \"x\" not found"),
    ] {
        let reply = rig.post("/api/copy", json!({ "source": source, "destination": destination })).await;
        assert_eq!(reply.refused(status), text);
    }
}

#[tokio::test]
async fn a_deleted_model_is_gone_and_its_copy_is_not() {
    let rig = Rig::start().await;
    rig.post("/api/copy", json!({ "source": "m", "destination": "n" })).await;
    let reply = rig.call(Method::DELETE, "/api/delete", r#"{"name":"M"}"#).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, ""));
    assert_eq!(rig.post("/api/show", json!({ "model": "n" })).await.status, 200);
    let again = rig.call(Method::DELETE, "/api/delete", r#"{"model":"m"}"#).await;
    assert_eq!(again.refused(404), "model 'm' not found");
    let bad = rig.call(Method::DELETE, "/api/delete", r#"{"model":"/"}"#).await;
    assert_eq!(bad.refused(400), "name \"/\" is invalid");
}

#[tokio::test]
async fn a_blob_is_created_once_and_found_by_either_spelling() {
    let rig = Rig::start().await;
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let path = format!("/api/blobs/{digest}");
    assert_eq!(rig.call(Method::HEAD, &path, "").await.status, 404);
    let created = rig.call(Method::POST, &path, "hello").await;
    assert_eq!((created.status.as_u16(), created.text()), (201, ""));
    assert_eq!(rig.call(Method::POST, &path, "hello").await.status, 200);
    assert_eq!(rig.call(Method::HEAD, &path, "").await.status, 200);
    assert_eq!(rig.call(Method::HEAD, &path.replace("sha256:", "sha256-"), "").await.status, 200);
}

#[tokio::test]
async fn a_bad_blob_leaves_nothing_behind() {
    let rig = Rig::start().await;
    let before = rig.files();
    let mismatch = rig.call(Method::POST, &format!("/api/blobs/{ZEROS}"), "hello").await;
    let text = mismatch.refused(400);
    assert!(text.starts_with(&format!("digest mismatch, expected \"{ZEROS}\", got \"sha256:2cf2")), "{text}");
    for digest in ["sha256:short", "md5:00", "x"] {
        let reply = rig.call(Method::POST, &format!("/api/blobs/{digest}"), "hello").await;
        assert_eq!(reply.refused(400), "invalid digest format");
        assert_eq!(rig.call(Method::HEAD, &format!("/api/blobs/{digest}"), "").await.status, 400);
    }
    let broken =
        stream::iter([Ok(Bytes::from_static(b"hel")), Err(std::io::Error::other("the client left"))]);
    let reply = rig.call(Method::POST, &format!("/api/blobs/{ZEROS}"), Body::from_stream(broken)).await;
    assert_eq!(reply.status.as_u16(), 499);
    assert_eq!(rig.files(), before);
}

#[tokio::test]
async fn a_blob_may_be_larger_than_any_json() {
    let rig = Rig::start().await;
    // The rig bounds JSON bodies to one MiB.
    let digest = rig.upload(vec![7; 3 << 20]).await;
    assert_eq!(rig.call(Method::HEAD, &format!("/api/blobs/{digest}"), "").await.status, 200);
}

#[tokio::test]
async fn what_is_loaded_is_told_with_its_end() {
    let rig = Rig::start().await;
    rig.create("n", json!({})).await;
    rig.post("/api/generate", json!({ "model": "m", "keep_alive": "5m" })).await;
    rig.post("/api/generate", json!({ "model": "n", "keep_alive": -1, "options": { "num_ctx": 512 } })).await;
    let models = rig.get("/api/ps").await.json()["models"].clone();
    assert_eq!((&models[0]["name"], &models[1]["name"]), (&json!("n:latest"), &json!("m:latest")));
    assert_eq!((&models[0]["context_length"], &models[0]["size"]), (&json!(512), &json!(1000)));
    assert_eq!((&models[0]["size_vram"], &models[0]["details"]["family"]), (&json!(400), &json!("llama")));
    assert_eq!(models[0]["details"]["parent_model"], "");
    assert!(models[0]["expires_at"].as_str().unwrap().starts_with("23"));
    assert_eq!(models[0]["digest"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn two_names_of_one_model_are_one_row() {
    let rig = Rig::start().await;
    rig.post("/api/copy", json!({ "source": "m", "destination": "n" })).await;
    rig.warm().await;
    rig.post("/api/generate", json!({ "model": "n" })).await;
    let models = rig.get("/api/ps").await.json()["models"].clone();
    assert_eq!((models.as_array().unwrap().len(), &models[0]["name"]), (1, &json!("m:latest")));
}

fn with(request: &Value, key: &str, value: Value) -> Value {
    let mut request = request.clone();
    request[key] = value;
    request
}

//! Pulls, pushes, saves and loads as a client sees them. The mirror of the rig is a port where nobody listens: no test
//! leaves this machine. Against real registries they are in `tests/tests/transfer.rs`.

use http::Method;
use serde_json::json;

use crate::rig::Rig;

#[tokio::test]
async fn a_pull_by_name_alone_tells_one_whole_line_at_a_time() {
    let rig = Rig::start().await;
    let mut reading = rig.open("/api/pull", json!({ "name": "absent" })).await;
    assert_eq!(reading.status, 200);
    let first = reading.next().await.unwrap();
    assert_eq!(first, "{\"status\":\"pulling manifest\"}\n");
    let error = reading.line().await["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("pull model manifest: GET http://127.0.0.1:9/v2/library/absent/"), "{error}");
    assert!(reading.next().await.is_none());
}

#[tokio::test]
async fn a_pull_that_fails_is_500_where_no_stream_is_asked_for() {
    let rig = Rig::start().await;
    let before = rig.files();
    let reply = rig.post("/api/pull", json!({ "model": "absent", "stream": false })).await;
    assert!(reply.refused(500).starts_with("pull model manifest: "), "{reply:?}");
    let reply = rig.post("/api/create", json!({ "model": "x", "from": "absent", "stream": false })).await;
    assert!(reply.refused(500).starts_with("pull model manifest: "), "{reply:?}");
    assert_eq!(rig.files(), before);
}

#[tokio::test]
async fn what_is_saved_is_loaded() {
    let rig = Rig::start().await;
    let before = rig.files();
    let saved = rig.post("/api/save", json!({ "models": ["m"] })).await;
    assert_eq!((saved.status.as_u16(), saved.header("content-type")), (200, "application/x-tar"));
    assert_eq!(saved.header("content-length"), saved.body.len().to_string());
    assert!(
        rig.call(Method::DELETE, "/api/delete", json!({ "model": "m" }).to_string())
            .await
            .status
            .is_success()
    );
    let loaded = rig.call(Method::POST, "/api/load", saved.body.clone()).await;
    assert_eq!(loaded.lines().last().unwrap(), &json!({ "status": "success" }));
    assert_eq!(rig.files(), before);
    assert!(rig.get("/api/tags").await.text().contains("\"m:latest\""));
}

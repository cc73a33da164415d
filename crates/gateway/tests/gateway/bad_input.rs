//! Bodies that are not what they should be: a clear text, never a panic, nothing begun.

use http::{Method, Request};
use serde_json::json;

use crate::rig::Rig;

const JSON_ROUTES: [(&str, Method); 8] = [
    ("/api/generate", Method::POST),
    ("/api/chat", Method::POST),
    ("/api/embed", Method::POST),
    ("/api/embeddings", Method::POST),
    ("/api/show", Method::POST),
    ("/api/create", Method::POST),
    ("/api/copy", Method::POST),
    ("/api/delete", Method::DELETE),
];

#[tokio::test]
async fn an_empty_body_is_missing() {
    let rig = Rig::start().await;
    for (path, method) in JSON_ROUTES {
        assert_eq!(rig.call(method, path, "").await.refused(400), "missing request body", "{path}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_told_where_it_breaks() {
    let rig = Rig::start().await;
    for (path, method) in JSON_ROUTES {
        let broken = rig.call(method.clone(), path, "{\"model\":").await;
        assert_eq!(broken.refused(400), "unexpected EOF", "{path}");
        let wrong = rig.call(method, path, "x").await;
        assert_eq!(wrong.refused(400), "invalid character 'x' looking for beginning of value", "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_is_answered_in_the_words_of_its_api() {
    let rig = Rig::start().await;
    let model = rig.get("/v1/models/%ff").await;
    assert_eq!(model.status, 400);
    assert_eq!(model.json()["error"]["message"], "invalid model name");
    assert_eq!(rig.call(Method::POST, "/api/blobs/%ff", "x").await.refused(400), "invalid digest format");
    assert_eq!(rig.call(Method::HEAD, "/api/blobs/%ff", "").await.status, 400);
}

#[tokio::test]
async fn a_wrong_type_is_told_with_the_field() {
    let rig = Rig::start().await;
    for (path, body, text) in [
        (
            "/api/generate",
            json!({ "model": "m", "stream": "x" }),
            "json: cannot unmarshal string into Go struct field GenerateRequest.stream of type bool",
        ),
        (
            "/api/chat",
            json!({ "model": 3 }),
            "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
        ),
    ] {
        assert_eq!(rig.post(path, body).await.refused(400), text);
    }
    let image = json!({ "model": "m", "prompt": "x", "images": ["data:image/png;base64,aGk="] });
    assert_eq!(rig.post("/api/generate", image).await.refused(400), "illegal base64 data at input byte 4");
    let think = rig.post("/api/generate", json!({ "model": "m", "think": "hard" })).await.refused(400);
    assert!(think.starts_with("invalid think value: \"hard\" (must be "), "{think}");
}

#[tokio::test]
async fn field_names_have_no_case_the_last_one_wins_and_the_rest_is_ignored() {
    let rig = Rig::start().await;
    let body =
        r#"{"MODEL":"x","Model":"m","PROMPT":"p","Stream":false,"no_such":[1,{}],"images":null} trailing"#;
    let request =
        Request::post("/api/generate").header("content-type", "text/html").body(body.into()).unwrap();
    let reply = rig.send(request).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["model"]), (200, &json!("m")), "{reply:?}");
}

#[tokio::test]
async fn null_is_an_empty_request() {
    let rig = Rig::start().await;
    assert_eq!(rig.call(Method::POST, "/api/chat", "null").await.refused(400), "model is required");
    assert_eq!(rig.call(Method::POST, "/api/show", "null").await.refused(400), "model is required");
}

#[tokio::test]
async fn a_body_above_its_bound_is_told_the_bound_and_its_size() {
    let rig = Rig::start().await;
    let body = json!({ "model": "m", "prompt": "x".repeat(1 << 20) }).to_string();
    let text = format!("request body must be at most 1048576 bytes, got {}", body.len());
    for (path, method) in JSON_ROUTES {
        let request = Request::builder().method(method).uri(path).header("content-length", body.len());
        let reply = rig.send(request.body(body.clone().into()).unwrap()).await;
        assert_eq!(reply.refused(413), text, "{path}");
    }
    let unsaid = rig.call(Method::POST, "/api/chat", body).await;
    assert_eq!(unsaid.refused(413), "request body must be at most 1048576 bytes, got more");
}

#[tokio::test]
async fn deep_nesting_and_stray_bytes_do_no_harm() {
    let rig = Rig::start().await;
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for body in [deep.into_bytes(), vec![0xff, 0xfe, 0x00], b"{\"model\":\"\xff\"}".to_vec()] {
        let reply = rig.call(Method::POST, "/api/chat", body).await;
        assert_eq!(reply.status.as_u16(), 400);
        assert!(reply.json()["error"].is_string());
    }
    let context = rig.post("/api/generate", json!({ "model": "m", "prompt": "x", "context": [-1] })).await;
    assert!(context.refused(400).contains("`context`"));
}

//! OpenAI's routes.

use api::Error;
use serde_json::{Value, json};

use crate::fake::{self, text};
use crate::rig::{Reply, Rig};

fn request(more: Value) -> Value {
    let mut request = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }], "seed": 1 });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str) -> String {
    assert_eq!(
        (reply.status.as_u16(), reply.header("content-type")),
        (status, "application/json"),
        "{reply:?}"
    );
    let error = reply.json()["error"].clone();
    assert_eq!((&error["type"], &error["param"], &error["code"]), (&json!(kind), &json!(null), &json!(null)));
    error["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_completion_is_one_object() {
    let rig = Rig::start().await;
    let reply = rig.post("/v1/chat/completions", request(json!({}))).await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(reply.text().ends_with('\n'));
    let answer = reply.json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("m")));
    assert_eq!(answer["system_fingerprint"], "fp_ollama");
    assert_eq!(answer["choices"][0]["message"], json!({ "role": "assistant", "content": text(1, 5) }));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let details = json!({ "cached_tokens": 4 });
    let usage = json!({ "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "prompt_tokens_details": details });
    assert_eq!(answer["usage"], usage);
    assert_eq!(reply.header("x-caravan-cached-tokens"), "4");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let sent = rig.worker().seen().generate[0].options.clone().unwrap();
    assert_eq!((sent.temperature, sent.top_p), (1.0, 1.0));
}

#[tokio::test]
async fn a_stream_is_events_that_end_with_done() {
    let rig = Rig::start().await;
    let more = json!({ "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 3 });
    let reply = rig.post("/v1/chat/completions", request(more)).await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    assert_eq!(reply.header("x-caravan-worker"), "w0");
    assert_eq!(reply.header("x-caravan-cached-tokens"), "4");
    let events = reply.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let deltas: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(deltas, text(1, 3));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(
        chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["created"] == chunks[0]["created"])
    );
    let (usage, finish) = (&chunks[chunks.len() - 1], &chunks[chunks.len() - 2]);
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(3)));
    assert_eq!(
        (&finish["choices"][0]["finish_reason"], &finish["choices"][0]["delta"]),
        (&json!("stop"), &json!({}))
    );
}

#[tokio::test]
async fn an_error_in_the_middle_is_a_frame_and_a_clean_end() {
    let rig = Rig::start().await;
    rig.worker().script(|_| vec![Ok(fake::said("a")), Err(Error::internal("broken"))]);
    let events = rig.post("/v1/chat/completions", request(json!({ "stream": true }))).await.events();
    let error: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(
        (&error["error"]["message"], &error["error"]["type"]),
        (&json!("broken"), &json!("api_error"))
    );
    assert_eq!(events.last().unwrap(), "[DONE]");
}

#[tokio::test]
async fn errors_before_the_first_byte_are_in_openais_envelope() {
    let rig = Rig::start().await;
    let chat = "/v1/chat/completions";
    let missing = rig.post(chat, request(json!({ "model": "x" }))).await;
    assert_eq!(refused(&missing, 404, "not_found_error"), "model 'x' not found");
    let nothing = rig.post(chat, request(json!({ "messages": [] }))).await;
    assert_eq!(refused(&nothing, 400, "invalid_request_error"), "[] is too short - 'messages'");
    let empty = rig.call(http::Method::POST, chat, "").await;
    assert_eq!(refused(&empty, 400, "invalid_request_error"), "EOF");
    let broken = rig.call(http::Method::POST, chat, "{").await;
    assert_eq!(refused(&broken, 400, "invalid_request_error"), "unexpected EOF");
    rig.worker().script(|_| vec![Err(Error::internal("no"))]);
    for stream in [true, false] {
        let failed = rig.post(chat, request(json!({ "stream": stream }))).await;
        assert_eq!(refused(&failed, 500, "api_error"), "no");
    }
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let rig = Rig::start().await;
    rig.post("/api/copy", json!({ "source": "m", "destination": "me/n" })).await;
    let listing = rig.get("/v1/models").await.json();
    assert_eq!(listing["object"], "list");
    let owners: std::collections::BTreeMap<String, String> = listing["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["id"].as_str().unwrap().into(), row["owned_by"].as_str().unwrap().into()))
        .collect();
    assert_eq!(
        owners,
        [("m:latest", "library"), ("me/n:latest", "me")].map(|(a, b)| (a.into(), b.into())).into()
    );
    let one = rig.get("/v1/models/m").await.json();
    assert_eq!(
        (&one["id"], &one["object"], &one["owned_by"]),
        (&json!("m"), &json!("model"), &json!("library"))
    );
    assert!(one["created"].as_i64() > Some(0));
    let missing = rig.get("/v1/models/x").await;
    assert_eq!(refused(&missing, 404, "not_found_error"), "model 'x:latest' not found");
}

#[tokio::test]
async fn embeddings_come_as_numbers_or_base64() {
    let rig = Rig::start().await;
    let path = "/v1/embeddings";
    let floats = rig.post(path, json!({ "model": "m", "input": ["ab", "c"] })).await.json();
    assert_eq!(floats["data"][1], json!({ "object": "embedding", "embedding": [1, 1], "index": 1 }));
    assert_eq!(floats["usage"], json!({ "prompt_tokens": 2, "total_tokens": 2 }));
    let packed =
        rig.post(path, json!({ "model": "m", "input": "ab", "encoding_format": "BASE64" })).await.json();
    assert_eq!(packed["data"][0]["embedding"], "AAAAQAAAgD8=");
    for (more, text) in [
        (json!({ "input": null }), "invalid input"),
        (json!({ "input": [] }), "invalid input"),
        (json!({ "input": [1, 2] }), "invalid input type"),
        (
            json!({ "input": "a", "encoding_format": "x" }),
            "Invalid value for 'encoding_format' = x. Supported values: ['float', 'base64'].",
        ),
    ] {
        let mut body = json!({ "model": "m" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(refused(&rig.post(path, body).await, 400, "invalid_request_error"), text);
    }
}

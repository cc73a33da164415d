//! What the routes of other APIs have in common, and those of OpenAI's that are older or do not chat.

use http::{Method, Request};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use crate::fake::text;
use crate::rig::{Reply, Rig};

const AUDIO: &str = "/v1/audio/transcriptions";

fn completion(more: Value) -> Value {
    let mut request = json!({ "model": "m", "prompt": "hi", "seed": 1 });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[track_caller]
fn refused(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status.as_u16(), status, "{reply:?}");
    reply.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_prompt_is_continued() {
    let rig = Rig::start().await;
    let reply = rig.post("/v1/completions", completion(json!({ "max_tokens": 2, "top_p": 0 }))).await;
    let answer = reply.json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("text_completion"), &json!("m")));
    assert_eq!(answer["choices"], json!([{ "text": text(1, 2), "index": 0, "finish_reason": "stop" }]));
    assert_eq!(answer["usage"]["total_tokens"], 9);
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    let options = rig.worker().seen().generate[0].options.clone().unwrap();
    assert_eq!((options.temperature, options.top_p), (1.0, 1.0));
    let loaded = rig.post("/v1/completions", completion(json!({ "prompt": "" }))).await.json();
    assert_eq!(loaded["choices"], json!([{ "text": "", "index": 0, "finish_reason": "load" }]));
}

#[tokio::test]
async fn a_prompt_is_continued_in_a_stream() {
    let rig = Rig::start().await;
    let more = json!({ "stream": true, "max_tokens": 2, "stream_options": { "include_usage": true } });
    let mut events = rig.post("/v1/completions", completion(more)).await.events();
    assert_eq!(events.pop().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(said, text(1, 2));
    let reasons: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons, [&Value::Null, &Value::Null, &json!("stop"), &Value::Null]);
    assert_eq!(
        (&chunks[0]["usage"]["total_tokens"], &chunks[3]["usage"]["total_tokens"]),
        (&json!(0), &json!(9))
    );
}

#[tokio::test]
async fn prompts_that_are_none_are_refused() {
    let rig = Rig::start().await;
    for (more, status, message) in [
        (json!({ "model": "x" }), 404, "model 'x' not found"),
        (json!({ "stop": [1] }), 400, "invalid type for 'stop' field: float64"),
        (json!({ "logprobs": 21 }), 400, "top_logprobs must be between 0 and 20"),
        (json!({ "suffix": "s" }), 400, "registry.ollama.ai/library/m:latest does not support insert"),
    ] {
        assert_eq!(refused(&rig.post("/v1/completions", completion(more)).await, status), message);
    }
}

async fn send_packed(rig: &Rig, path: &str, body: Vec<u8>) -> Reply {
    let request = Request::post(path).header("content-encoding", "zstd");
    rig.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn bodies_may_be_packed() {
    let rig = Rig::start().await;
    let chat = json!({ "model": "m", "max_tokens": 1, "messages": [{ "role": "user", "content": "hi" }] });
    let embed = json!({ "model": "m", "input": "a" });
    for (path, body) in [
        ("/v1/chat/completions", chat.clone()),
        ("/v1/completions", completion(json!({}))),
        ("/v1/embeddings", embed),
        ("/v1/responses", json!({ "model": "m", "input": "hi" })),
        ("/v1/messages", chat),
    ] {
        let packed = compress_to_vec(body.to_string().as_bytes(), CompressionLevel::Fastest);
        assert_eq!(send_packed(&rig, path, packed.clone()).await.status, 200, "{path}");
        let torn = packed[..packed.len() - 5].to_vec();
        for broken in [torn, body.to_string().into_bytes(), Vec::new()] {
            let reply = send_packed(&rig, path, broken).await;
            assert_eq!(refused(&reply, 400), "failed to decompress request body", "{path}");
        }
    }
}

#[tokio::test]
async fn a_packed_body_is_bounded_when_it_is_unpacked() {
    let rig = Rig::start().await;
    let bomb = compress_to_vec(&vec![b' '; 21 << 20][..], CompressionLevel::Fastest);
    let reply = send_packed(&rig, "/v1/messages", bomb).await;
    assert!(refused(&reply, 413).starts_with("decompressed request body must be at most 20971520 bytes"));
}

#[tokio::test]
async fn native_routes_take_bodies_as_they_are() {
    let rig = Rig::start().await;
    let packed = compress_to_vec(&b"{}"[..], CompressionLevel::Fastest);
    assert!(send_packed(&rig, "/api/chat", packed).await.refused(400).contains("invalid character"));
}

/// A form of parts: their disposition, and what they hold.
async fn send_form(rig: &Rig, parts: &[(&str, &str)], end: &str) -> Reply {
    let part = |(kind, value): &(&str, &str)| {
        format!("--edge\r\nContent-Disposition: form-data; {kind}\r\n\r\n{value}\r\n")
    };
    let body: String = parts.iter().map(part).collect();
    let request = Request::post(AUDIO).header("content-type", "multipart/form-data; boundary=edge");
    rig.send(request.body(format!("{body}{end}").into()).unwrap()).await
}

#[tokio::test]
async fn a_recording_is_checked_and_then_refused() {
    let rig = Rig::start().await;
    let (model, file) = (("name=\"model\"", "m"), ("name=\"file\"; filename=\"a.wav\"", "RIFF"));
    for (parts, status, message) in [
        (vec![], 400, "model is required"),
        (vec![file], 400, "model is required"),
        (vec![model], 400, "file is required: http: no such file"),
        (vec![model, ("name=\"file\"", "RIFF")], 400, "file is required: http: no such file"),
        (vec![model, ("name=\"file\"; filename=\"a.wav\"", "")], 400, "audio file is empty"),
        (vec![("name=\"model\"", "x"), file], 404, "model 'x' not found"),
        (
            vec![file, ("name=\"language\"", "en"), model],
            400,
            "registry.ollama.ai/library/m:latest does not support audio",
        ),
    ] {
        assert_eq!(refused(&send_form(&rig, &parts, "--edge--\r\n").await, status), message);
    }
}

#[tokio::test]
async fn a_form_that_is_none_is_refused() {
    let rig = Rig::start().await;
    let failed = |reason: &str| format!("failed to parse multipart form: {reason}");
    let json = rig.call(Method::POST, AUDIO, "{}").await;
    assert_eq!(refused(&json, 400), failed("request Content-Type isn't multipart/form-data"));
    let edgeless = Request::post(AUDIO).header("content-type", "multipart/form-data");
    let edgeless = rig.send(edgeless.body("x".into()).unwrap()).await;
    assert_eq!(refused(&edgeless, 400), failed("no multipart boundary param in Content-Type"));
    let torn = send_form(&rig, &[("name=\"model\"", "m")], "").await;
    assert_eq!(refused(&torn, 400), failed("multipart: NextPart: EOF"));
    let long = "x".repeat(2 << 20);
    let large = send_form(&rig, &[("name=\"file\"; filename=\"a\"", &long)], "--edge--\r\n").await;
    assert_eq!(refused(&large, 413), "request body must be at most 1048576 bytes, got more");
}

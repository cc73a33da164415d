//! OpenAI's elder route, which does not chat.

use serde_json::{Value, json};

use crate::fake::text;
use crate::rig::{Reply, Rig};

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

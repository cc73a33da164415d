//! OpenAI's newer route.

use api::Error;
use protocol::v1::{GenerateChunk, ToolCall};
use serde_json::{Value, json};

use crate::fake::{self, text};
use crate::rig::{Reply, Rig};

const PATH: &str = "/v1/responses";

fn request(more: Value) -> Value {
    let mut request = json!({ "model": "m", "max_output_tokens": 3, "input": "hi" });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str) -> String {
    let found = (reply.status.as_u16(), reply.header("content-type"));
    assert_eq!(found, (status, "application/json"), "{reply:?}");
    assert_eq!(reply.json()["error"]["type"], json!(kind));
    reply.json()["error"]["message"].as_str().unwrap().to_owned()
}

fn events(reply: &Reply) -> Vec<(String, Value)> {
    let event = |frame: &str| {
        let (name, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (name.to_owned(), serde_json::from_str(data).unwrap())
    };
    reply.text().split_terminator("\n\n").map(event).collect()
}

fn called(name: &str) -> GenerateChunk {
    let arguments = r#"{"query":"rust"}"#.into();
    let call = ToolCall { id: "call_1".into(), index: 0, name: name.into(), arguments };
    GenerateChunk { tool_calls: vec![call], ..GenerateChunk::default() }
}

#[tokio::test]
async fn a_response_is_one_object() {
    let rig = Rig::start().await;
    let reply =
        rig.post(PATH, request(json!({ "instructions": "Be kind.", "metadata": { "a": "b" } }))).await;
    assert_eq!(reply.header("content-type"), "application/json");
    let response = reply.json();
    let seen = rig.worker().seen().generate[0].clone();
    let options = seen.options.unwrap();
    assert_eq!(response["output"][0]["content"][0]["text"], text(options.seed, 3));
    assert_eq!((&response["object"], &response["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(
        (&response["instructions"], &response["metadata"]),
        (&json!("Be kind."), &json!({ "a": "b" }))
    );
    assert_eq!(response["usage"]["input_tokens_details"], json!({ "cached_tokens": 4 }));
    assert!(response["id"].as_str().unwrap().starts_with("resp_"));
    assert!(response["completed_at"].as_i64() >= response["created_at"].as_i64());
    assert_eq!((options.num_predict, options.temperature, options.top_p), (3, 1.0, 0.9));
    assert_eq!(reply.header("x-caravan-worker"), "w0");
}

#[tokio::test]
async fn a_stream_is_numbered_events() {
    let rig = Rig::start().await;
    let reply = rig.post(PATH, request(json!({ "stream": true }))).await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    let events = events(&reply);
    for (number, (name, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
    }
    assert_eq!(events[0].0, "response.created");
    let (name, last) = events.last().unwrap();
    assert_eq!((name.as_str(), &last["response"]["status"]), ("response.completed", &json!("completed")));
    assert_eq!(last["response"]["usage"]["total_tokens"], 10);
    assert!(last["response"]["completed_at"].as_i64() > Some(0));
}

#[tokio::test]
async fn an_empty_input_loads_the_model() {
    let rig = Rig::start().await;
    let response = rig.post(PATH, request(json!({ "input": "" }))).await.json();
    assert_eq!(response["output"][0]["content"][0]["text"], "");
    assert!(rig.worker().seen().generate.is_empty());
}

#[tokio::test]
async fn a_search_of_the_web_is_forbidden() {
    let rig = Rig::start().await;
    let template = "{{ .Tools }}{{ range .Messages }}{{ .Content }}{{ range .ToolCalls }}\
                    <tool_call>{{ .Function.Name }}{{ .Function.Arguments }}</tool_call>{{ end }}{{ end }}";
    rig.create("capable", json!({ "template": template })).await;
    rig.worker().script(|_| vec![Ok(called("web_search")), Ok(fake::ended())]);
    let body = |stream: bool| {
        request(json!({ "model": "capable", "stream": stream, "tools": [{ "type": "web_search" }] }))
    };
    let text = "ollama cloud is disabled: web search is unavailable";
    assert_eq!(refused(&rig.post(PATH, body(false)).await, 403, "api_error"), text);
    let events = events(&rig.post(PATH, body(true)).await);
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["response"]["error"]["message"]), ("response.failed", &json!(text)));
}

#[tokio::test]
async fn errors_are_in_openais_envelope() {
    let rig = Rig::start().await;
    let missing = rig.post(PATH, request(json!({ "model": "x" }))).await;
    assert_eq!(refused(&missing, 404, "not_found_error"), "model 'x' not found");
    let nameless = rig.post(PATH, request(json!({ "model": "" }))).await;
    assert_eq!(refused(&nameless, 400, "invalid_request_error"), "model is required");
    let item = rig.post(PATH, request(json!({ "input": [{ "type": "x" }] }))).await;
    assert_eq!(refused(&item, 400, "invalid_request_error"), "input[0]: unknown input item type: \"x\"");
    let empty = rig.call(http::Method::POST, PATH, "").await;
    assert_eq!(refused(&empty, 400, "invalid_request_error"), "EOF");
    rig.worker().script(|_| vec![Err(Error::internal("no"))]);
    for stream in [true, false] {
        let failed = rig.post(PATH, request(json!({ "stream": stream }))).await;
        assert_eq!(refused(&failed, 500, "api_error"), "no");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_is_a_failure() {
    let rig = Rig::start().await;
    rig.worker().script(|_| vec![Ok(fake::said("a")), Err(Error::internal("broken"))]);
    let events = events(&rig.post(PATH, request(json!({ "stream": true }))).await);
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["response"]["status"]), ("response.failed", &json!("failed")));
    assert_eq!(data["response"]["error"]["message"], "broken");
}

//! Anthropic's route.

use api::Error;
use protocol::v1::{Done, GenerateChunk, ToolCall};
use serde_json::{Value, json};

use crate::fake::{self, text};
use crate::rig::{Reply, Rig};

const PATH: &str = "/v1/messages";

fn request(more: Value) -> Value {
    let mut request =
        json!({ "model": "m", "max_tokens": 3, "messages": [{ "role": "user", "content": "hi" }] });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str) -> String {
    let found = (reply.status.as_u16(), reply.header("content-type"));
    assert_eq!(found, (status, "application/json"), "{reply:?}");
    let body = reply.json();
    assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
    assert!(body["request_id"].as_str().unwrap().starts_with("req_"));
    body["error"]["message"].as_str().unwrap().to_owned()
}

/// Names and payloads of the events.
fn events(reply: &Reply) -> Vec<(String, Value)> {
    let event = |frame: &str| {
        let (name, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (name.to_owned(), serde_json::from_str(data).unwrap())
    };
    reply.text().split_terminator("\n\n").map(event).collect()
}

fn called(name: &str, arguments: &str) -> GenerateChunk {
    let call = ToolCall { id: "call_1".into(), index: 0, name: name.into(), arguments: arguments.into() };
    GenerateChunk { tool_calls: vec![call], ..GenerateChunk::default() }
}

/// A model that is offered tools and thinks.
async fn capable(rig: &Rig) {
    let template = "{{ if .Tools }}{{ .Tools }}{{ end }}{{ range .Messages }}{{ .Content }}{{ range .ToolCalls }}\
                    <tool_call>{{ .Function.Name }}{{ .Function.Arguments }}</tool_call>{{ end }}\
                    {{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}";
    rig.create("capable", json!({ "template": template })).await;
}

#[tokio::test]
async fn a_message_is_one_object() {
    let rig = Rig::start().await;
    let reply = rig.post(PATH, request(json!({ "system": "s", "top_k": 7 }))).await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(reply.text().ends_with('\n'));
    let message = reply.json();
    let seen = rig.worker().seen().generate[0].clone();
    let options = seen.options.unwrap();
    assert_eq!(message["content"], json!([{ "type": "text", "text": text(options.seed, 3) }]));
    assert_eq!(
        (&message["type"], &message["role"], &message["model"]),
        (&json!("message"), &json!("assistant"), &json!("m"))
    );
    assert_eq!(message["usage"], json!({ "input_tokens": 7, "output_tokens": 3 }));
    assert_eq!(message["stop_reason"], "end_turn");
    let id = message["id"].as_str().unwrap().strip_prefix("msg_").unwrap();
    assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!((options.num_predict, options.top_k), (3, 7));
    // Unlike on OpenAI's routes, what is not said is the model's to say.
    assert_eq!((options.temperature, options.top_p), (0.8, 0.9));
    assert_eq!(reply.header("x-caravan-worker"), "w0");
}

#[tokio::test]
async fn ids_follow_from_the_call() {
    let rig = Rig::start().await;
    let send = |id: &'static str, body: Value| {
        let request = http::Request::post(PATH).header("x-request-id", id);
        rig.send(request.body(body.to_string().into()).unwrap())
    };
    let first = send("one", request(json!({}))).await.json();
    assert_eq!(send("one", request(json!({}))).await.json()["id"], first["id"]);
    assert_ne!(send("two", request(json!({}))).await.json()["id"], first["id"]);
    let refused = send("one", json!({})).await.json();
    assert_eq!(refused["request_id"].as_str().unwrap()[4..], first["id"].as_str().unwrap()[4..]);
}

#[tokio::test]
async fn a_stream_is_named_events() {
    let rig = Rig::start().await;
    let reply = rig.post(PATH, request(json!({ "stream": true }))).await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    let events = events(&reply);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let delta = "content_block_delta";
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            delta,
            delta,
            delta,
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    assert!(events.iter().all(|(name, data)| data["type"] == json!(name)));
    assert_eq!(events[6].1["usage"], json!({ "input_tokens": 7, "output_tokens": 3 }));
}

#[tokio::test]
async fn thoughts_and_calls_are_blocks() {
    let rig = Rig::start().await;
    capable(&rig).await;
    rig.worker().script(|_| {
        let thought = GenerateChunk { thinking: "hm".into(), ..GenerateChunk::default() };
        vec![
            Ok(thought),
            Ok(fake::said("Let me see.")),
            Ok(called("weather", r#"{"city":"Oslo"}"#)),
            Ok(fake::ended()),
        ]
    });
    let tools = json!([{ "name": "weather", "input_schema": { "type": "object" } }]);
    let body = |stream: bool| {
        request(
            json!({ "model": "capable", "stream": stream, "tools": tools, "thinking": { "type": "enabled" } }),
        )
    };
    let message = rig.post(PATH, body(false)).await.json();
    let expected = json!([
        { "type": "thinking", "thinking": "hm" },
        { "type": "text", "text": "Let me see." },
        { "type": "tool_use", "id": "call_1", "name": "weather", "input": { "city": "Oslo" } }
    ]);
    assert_eq!((&message["content"], &message["stop_reason"]), (&expected, &json!("tool_use")));
    let events = events(&rig.post(PATH, body(true)).await);
    let starts = events.iter().filter(|(name, _)| name == "content_block_start");
    let kinds: Vec<&Value> = starts.map(|(_, data)| &data["content_block"]["type"]).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    assert!(rig.worker().seen().generate[0].think.as_ref().unwrap().on);
}

#[tokio::test]
async fn a_model_that_does_not_think_is_not_asked_to() {
    let rig = Rig::start().await;
    let reply = rig.post(PATH, request(json!({ "thinking": { "type": "enabled" } }))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(rig.worker().seen().generate[0].think, None);
}

#[tokio::test]
async fn a_search_of_the_web_is_unavailable() {
    let rig = Rig::start().await;
    capable(&rig).await;
    rig.worker().script(|_| vec![Ok(called("web_search", r#"{"query":"rust"}"#)), Ok(fake::ended())]);
    let tools = json!([{ "type": "web_search_20250305", "name": "web_search", "max_uses": 5 }]);
    for stream in [false, true] {
        let reply =
            rig.post(PATH, request(json!({ "model": "capable", "stream": stream, "tools": tools }))).await;
        assert!(reply.text().contains(r#""error_code":"unavailable""#), "{reply:?}");
        assert!(reply.text().contains(r#""stop_reason":"end_turn""#), "{reply:?}");
    }
    let cloud = rig.post(PATH, request(json!({ "model": "glm:cloud", "tools": tools }))).await;
    assert_eq!(
        refused(&cloud, 403, "permission_error"),
        "ollama cloud is disabled: web search is unavailable"
    );
    let cloud = rig.post(PATH, request(json!({ "model": "glm:cloud" }))).await;
    assert_eq!(
        refused(&cloud, 403, "permission_error"),
        "ollama cloud is disabled: remote model is unavailable"
    );
}

#[tokio::test]
async fn errors_are_in_anthropics_envelope() {
    let rig = Rig::start().await;
    let missing = rig.post(PATH, request(json!({ "model": "x" }))).await;
    assert_eq!(refused(&missing, 404, "not_found_error"), "model 'x' not found");
    let tools = rig.post(PATH, request(json!({ "tools": [{ "name": "f" }] }))).await;
    assert_eq!(
        refused(&tools, 400, "invalid_request_error"),
        "registry.ollama.ai/library/m:latest does not support tools"
    );
    for (body, text) in [("", "EOF"), ("{", "unexpected EOF"), ("null", "model is required")] {
        let reply = rig.call(http::Method::POST, PATH, body).await;
        assert_eq!(refused(&reply, 400, "invalid_request_error"), text);
    }
    rig.worker().script(|_| vec![Err(Error::internal("no"))]);
    for stream in [true, false] {
        let failed = rig.post(PATH, request(json!({ "stream": stream }))).await;
        assert_eq!(refused(&failed, 500, "api_error"), "no");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_is_an_event() {
    let rig = Rig::start().await;
    rig.worker().script(|_| vec![Ok(fake::said("a")), Err(Error::internal("broken"))]);
    let events = events(&rig.post(PATH, request(json!({ "stream": true }))).await);
    let (name, data) = events.last().unwrap();
    assert_eq!(
        (name.as_str(), &data["error"]),
        ("error", &json!({ "type": "api_error", "message": "broken" }))
    );
}

#[tokio::test]
async fn a_full_queue_is_an_overload() {
    let rig = Rig::with_queue(1, 0).await;
    let key = rig.warm().await;
    rig.worker().occupy(&key, 1);
    let reply = rig.post(PATH, request(json!({}))).await;
    assert_eq!(reply.header("retry-after"), "1");
    let text = refused(&reply, 503, "overloaded_error");
    assert_eq!(text, "server busy, please try again.  maximum pending requests exceeded");
}

#[tokio::test]
async fn an_answer_that_ran_out_of_room_says_so() {
    let rig = Rig::start().await;
    rig.worker().script(|_| {
        let done = Done { reason: protocol::v1::done::Reason::Length as i32, ..Done::default() };
        vec![Ok(fake::said("a")), Ok(GenerateChunk { done: Some(done), ..GenerateChunk::default() })]
    });
    assert_eq!(rig.post(PATH, request(json!({}))).await.json()["stop_reason"], "max_tokens");
}

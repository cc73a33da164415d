//! `POST /api/chat`.

use api::{Code, Error};
use protocol::v1::generate_request::Input;
use protocol::v1::{GenerateChunk, Message, ToolCall};
use serde_json::{Value, json};

use crate::fake::{self, text};
use crate::rig::{Rig, hello, said};

fn turns(rig: &Rig, index: usize) -> Vec<Message> {
    match &rig.worker().seen().generate[index].input {
        Some(Input::Conversation(conversation)) => conversation.messages.clone(),
        other => panic!("{other:?}"),
    }
}

fn words(messages: &[Message]) -> Vec<(String, String)> {
    messages.iter().map(|one| (one.role.clone(), one.content.clone())).collect()
}

fn pair(role: &str, content: &str) -> (String, String) {
    (role.into(), content.into())
}

fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn a_chat_streams_messages_of_the_assistant() {
    let rig = Rig::start().await;
    let reply = rig.post("/api/chat", hello("m")).await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let lines = reply.lines();
    assert_eq!((lines.len(), said(&lines)), (6, text(1, 5)));
    for line in &lines {
        assert_eq!((&line["model"], &line["message"]["role"]), (&json!("m"), &json!("assistant")));
    }
    assert_eq!(lines[5]["message"], json!({ "role": "assistant", "content": "" }));
    assert_eq!((&lines[5]["done_reason"], &lines[5]["eval_count"]), (&json!("stop"), &json!(5)));
    assert!(lines[5].get("context").is_none());
}

#[tokio::test]
async fn without_streaming_a_chat_is_one_message() {
    let rig = Rig::start().await;
    let answer = rig.post("/api/chat", with(hello("m"), json!({ "stream": false }))).await.json();
    assert_eq!(answer["message"], json!({ "role": "assistant", "content": text(1, 5) }));
    assert_eq!(answer["done"], true);
}

#[tokio::test]
async fn every_token_leaves_as_soon_as_it_is_known() {
    let rig = Rig::start().await;
    rig.warm().await;
    rig.worker().hold_tokens();
    rig.worker().allow_tokens(1);
    let mut reading = rig.open("/api/chat", hello("m")).await;
    assert_eq!(reading.line().await["message"]["content"], text(1, 1));
    rig.worker().allow_tokens(1);
    assert_eq!(reading.line().await["done"], false);
    rig.worker().allow_tokens(99);
    assert_eq!(reading.read().await.lines().len(), 4);
}

#[tokio::test]
async fn the_modelfiles_messages_come_first_and_its_system_prompt_yields() {
    let rig = Rig::start().await;
    let history = json!([{ "role": "user", "content": "q" }, { "role": "assistant", "content": "a" }]);
    rig.create("primed", json!({ "system": "mine", "messages": history })).await;
    rig.post("/api/chat", hello("primed")).await;
    let messages = json!([{ "role": "SYSTEM", "content": "yours" }, { "role": "user", "content": "x" }]);
    rig.post("/api/chat", json!({ "model": "primed", "messages": messages })).await;
    let history = [pair("user", "q"), pair("assistant", "a")];
    let first = [&[pair("system", "mine")], &history[..], &[pair("user", "hello")]].concat();
    let second = [&history[..], &[pair("system", "yours"), pair("user", "x")]].concat();
    assert_eq!(words(&turns(&rig, 0)), first);
    assert_eq!(words(&turns(&rig, 1)), second);
}

#[tokio::test]
async fn an_empty_conversation_loads_or_unloads() {
    let rig = Rig::start().await;
    for (more, reason) in [
        (json!({}), "load"),
        (json!({ "messages": [] }), "load"),
        (json!({ "messages": [], "keep_alive": 0 }), "unload"),
    ] {
        let answer = rig.post("/api/chat", with(json!({ "model": "m" }), more)).await.json();
        assert_eq!((&answer["done_reason"], &answer["done"]), (&json!(reason), &json!(true)));
        assert_eq!(answer["message"], json!({ "role": "assistant", "content": "" }));
    }
    assert!(rig.worker().loaded().is_empty());
}

#[tokio::test]
async fn what_a_model_cannot_do_is_said_before_it_is_loaded() {
    let rig = Rig::start().await;
    let tool = json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]);
    let image = json!([{ "role": "user", "content": "", "images": ["aGk="] }]);
    for (more, text) in [
        (json!({ "tools": tool }), "registry.ollama.ai/library/m:latest does not support tools"),
        (json!({ "messages": image }), "registry.ollama.ai/library/m:latest does not support vision"),
        (json!({ "think": "high" }), "\"m\" does not support thinking"),
        (json!({ "top_logprobs": 99 }), "top_logprobs must be between 0 and 20"),
    ] {
        assert_eq!(rig.post("/api/chat", with(hello("m"), more)).await.refused(400), text);
    }
    assert!(rig.worker().loaded().is_empty());
}

#[tokio::test]
async fn the_missing_the_invalid_and_the_unknown_model_are_told_apart() {
    let rig = Rig::start().await;
    for (name, status, text) in [
        ("", 400, "model is required"),
        ("  ", 400, "model is required"),
        ("m:", 400, "invalid model name"),
        ("x:1b", 404, "model 'x:1b' not found"),
    ] {
        assert_eq!(rig.post("/api/chat", hello(name)).await.refused(status), text);
    }
}

#[tokio::test]
async fn tools_travel_and_calls_come_back_as_objects() {
    let rig = Rig::start().await;
    rig.create("handy", json!({ "template": "{{ .Tools }}{{ range .Messages }}{{ .Content }}{{ end }}" }))
        .await;
    rig.worker().script(|_| {
        let call = ToolCall {
            id: "call_1".into(),
            index: 0,
            name: "f".into(),
            arguments: r#"{"b":1,"a":"x"}"#.into(),
        };
        let chunk = GenerateChunk { tool_calls: vec![call], ..GenerateChunk::default() };
        vec![Ok(chunk), Ok(fake::ended())]
    });
    let tools =
        json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]);
    let earlier = json!([
        { "role": "assistant", "content": "", "tool_calls": [{ "id": "c", "function": { "name": "f", "arguments": { "q": 2 } } }] },
        { "role": "tool", "content": "4", "tool_name": "f", "tool_call_id": "c" },
    ]);
    let request = json!({ "model": "handy", "messages": earlier, "tools": tools });
    let lines = rig.post("/api/chat", request).await.lines();
    let call =
        json!({ "id": "call_1", "function": { "index": 0, "name": "f", "arguments": { "b": 1, "a": "x" } } });
    assert_eq!(lines[0]["message"]["tool_calls"], json!([call]));
    assert_eq!(lines[1]["done_reason"], "stop");
    let sent = turns(&rig, 0);
    assert_eq!(sent[0].tool_calls[0].arguments, r#"{"q":2}"#);
    assert_eq!((sent[1].tool_name.as_str(), sent[1].tool_call_id.as_str()), ("f", "c"));
}

#[tokio::test]
async fn thoughts_of_earlier_turns_are_not_shown_again_to_models_that_ask_for_that() {
    let rig = Rig::start().await;
    rig.create("deepseek-r1", json!({})).await;
    let messages = json!([
        { "role": "user", "content": "a" },
        { "role": "assistant", "content": "<think>hm</think>\n\nb" },
        { "role": "user", "content": "c" },
    ]);
    for model in ["deepseek-r1", "m"] {
        rig.post("/api/chat", json!({ "model": model, "messages": messages })).await;
    }
    assert_eq!(turns(&rig, 0)[1].content, "b");
    assert_eq!(turns(&rig, 1)[1].content, "<think>hm</think>\n\nb");
}

#[tokio::test]
async fn an_error_before_the_first_token_has_its_own_status() {
    let rig = Rig::start().await;
    for (code, status) in [(Code::Invalid, 400), (Code::Internal, 500), (Code::OutOfMemory, 500)] {
        rig.worker().script(move |_| vec![Err(Error::new(code, "no"))]);
        for stream in [true, false] {
            let reply = rig.post("/api/chat", with(hello("m"), json!({ "stream": stream }))).await;
            assert_eq!(reply.refused(status), "no");
        }
    }
    rig.until_idle().await;
}

#[tokio::test]
async fn an_error_after_it_is_the_last_line() {
    let rig = Rig::start().await;
    rig.worker().script(|_| vec![Ok(fake::said("a")), Err(Error::internal("broken"))]);
    let reply = rig.post("/api/chat", hello("m")).await;
    assert_eq!(reply.status, 200);
    let lines = reply.lines();
    assert_eq!((lines.len(), &lines[1]), (2, &json!({ "error": "broken" })));
    let whole = rig.post("/api/chat", with(hello("m"), json!({ "stream": false }))).await;
    assert_eq!(whole.refused(500), "broken");
}

#[tokio::test]
async fn formats_are_json_a_schema_or_nothing() {
    let rig = Rig::start().await;
    let schema = json!({ "type": "object" });
    for format in [json!("json"), schema, json!(""), json!(null)] {
        assert_eq!(rig.post("/api/chat", with(hello("m"), json!({ "format": format }))).await.status, 200);
    }
    let sent: Vec<String> = rig.worker().seen().generate.into_iter().map(|one| one.format).collect();
    assert_eq!(sent, [r#""json""#, r#"{"type":"object"}"#, "", ""]);
    for format in [json!("xml"), json!([1]), json!(3)] {
        let reply = rig.post("/api/chat", with(hello("m"), json!({ "format": format }))).await;
        let text = format!("invalid format: {format}; expected \"json\" or a valid JSON Schema object");
        assert_eq!(reply.refused(400), text);
    }
}

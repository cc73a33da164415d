//! What tests of translations share: frames read back as a client does, streams and requests of every kind.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::{Events, Translation};
use crate::error::{Code, Error, Result};
use crate::ollama::{self, ChatRequest, ChatResponse, DoneReason, Logprob, Message, Metrics};
use crate::{Options, gojson};

/// All frames of a stream: the name (empty without one) and the payload; `[DONE]` is a text.
pub fn frames<T: Translation>(mut translation: T, parts: Vec<Result<T::Part>>) -> Vec<(String, Value)> {
    let mut events = Events::default();
    for part in parts {
        match part {
            Ok(part) => translation.push(part, &mut events),
            Err(error) => translation.fail(&error, &mut events),
        }
    }
    translation.end(&mut events);
    let text = String::from_utf8(events.into_bytes()).unwrap();
    assert!(text.ends_with("\n\n"), "the last frame is whole: {text:?}");
    text.split_terminator("\n\n").map(frame).collect()
}

fn frame(frame: &str) -> (String, Value) {
    let (name, data) = match frame.strip_prefix("event: ") {
        Some(rest) => rest.split_once('\n').unwrap(),
        None => ("", frame),
    };
    let json = data.strip_prefix("data: ").unwrap();
    assert!(!json.contains('\n'), "a frame has one line of data: {json:?}");
    let value = match json {
        "[DONE]" => json.into(),
        json => serde_json::from_str(json).unwrap(),
    };
    (name.to_owned(), value)
}

/// The names of the frames.
pub fn names(frames: &[(String, Value)]) -> Vec<&str> {
    frames.iter().map(|(name, _)| name.as_str()).collect()
}

/// A part that says something.
pub fn said(content: &str) -> ChatResponse {
    let message = Message { role: "assistant".into(), content: content.into(), ..Message::default() };
    ChatResponse { model: "m".into(), message, ..ChatResponse::default() }
}

/// A part that thinks, and perhaps says something.
pub fn thought(thinking: &str, content: &str) -> ChatResponse {
    let mut response = said(content);
    response.message.thinking = Some(thinking.to_owned());
    response
}

/// A part that calls a tool.
pub fn called(name: &str, arguments: Value) -> ChatResponse {
    let mut response = said("");
    let arguments = arguments.as_object().unwrap().clone();
    let function = ollama::ToolCallFunction { index: 0, name: name.into(), arguments };
    response.message.tool_calls = vec![ollama::ToolCall { id: Some("call_1".into()), function }];
    response
}

/// The last part.
pub fn done(response: ChatResponse, reason: DoneReason) -> ChatResponse {
    let metrics = Metrics { prompt_eval_count: 3, eval_count: 4, ..Metrics::default() };
    ChatResponse { done: true, done_reason: Some(reason), metrics, ..response }
}

/// Parts in any order and number: errors in the middle, parts after the last, streams without one.
pub fn any_stream() -> impl Strategy<Value = Vec<Result<ChatResponse>>> {
    prop::collection::vec(any_part(), 0..12)
}

fn any_part() -> impl Strategy<Value = Result<ChatResponse>> {
    let text =
        || prop_oneof![Just(String::new()), "\\PC{0,8}", Just("<a href=\"x\">\n\n&\u{2028}".to_owned())];
    let reason = select(vec![
        None,
        Some(DoneReason::Stop),
        Some(DoneReason::Length),
        Some(DoneReason::Load),
        Some(DoneReason::Unload),
    ]);
    let calls = prop::collection::vec((text(), any_json()), 0..3);
    let answer = (text(), prop::option::of(text()), calls, reason, any::<bool>(), any::<bool>());
    let answer = answer.prop_map(|(content, thinking, calls, done_reason, done, logprobs)| {
        let mut response = said(&content);
        response.message.thinking = thinking;
        response.message.tool_calls = calls.into_iter().map(|(name, json)| call(name, json)).collect();
        let logprob =
            Logprob { token: content, logprob: f64::NAN, bytes: vec![255], top_logprobs: Vec::new() };
        response.logprobs = logprobs.then(|| vec![logprob]);
        let metrics = Metrics { prompt_eval_count: 3, cached_tokens: 9, ..Metrics::default() };
        ChatResponse { done, done_reason, metrics, ..response }
    });
    let error = text().prop_map(|text| Error::new(Code::Unavailable, text));
    prop_oneof![9 => answer.prop_map(Ok), 1 => error.prop_map(Err)]
}

fn call(name: String, json: Value) -> ollama::ToolCall {
    let arguments = Map::from_iter([("x".to_owned(), json)]);
    let id = Some(name.clone()).filter(|name| !name.is_empty());
    ollama::ToolCall { id, function: ollama::ToolCallFunction { index: 0, name, arguments } }
}

/// Any JSON, a few levels deep.
pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A value of one of `kinds`, or any JSON: what a field holds when a client means well, or does not.
pub fn any_of(kinds: Value) -> BoxedStrategy<Value> {
    let kinds = kinds.as_array().unwrap().clone();
    prop_oneof![6 => select(kinds), 1 => any_json()].boxed()
}

/// Requests that have some of these fields, each with one of its values or with any JSON.
pub fn any_request(fields: Value) -> impl Strategy<Value = Value> {
    let fields = fields.as_object().unwrap().clone().into_iter();
    let fields: Vec<_> =
        fields.map(|(key, kinds)| (Just(key), prop::option::weighted(0.85, any_of(kinds)))).collect();
    fields.prop_map(|fields| {
        Value::Object(fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    })
}

/// What a translated request must be: one that Ollama's own route reads, with options that it knows.
pub fn assert_valid(chat: &ChatRequest) {
    let json = serde_json::to_vec(chat).unwrap();
    let read: ChatRequest = gojson::from_slice(&json).unwrap();
    assert_eq!((&read.model, read.messages.len()), (&chat.model, chat.messages.len()));
    if let Some(options) = &chat.options {
        assert_eq!(Options::default().merge(options), Ok(Vec::new()), "{options:?}");
    }
    for tool in &chat.tools {
        assert!(tool["function"]["name"].is_string(), "{}", json!(tool));
    }
}

//! Requests in, messages and events out, as Anthropic's clients see them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::{Code, Error, Result};
use crate::events::testing::{
    any_request, any_stream, assert_valid, called, done, frames, names, said, thought,
};
use crate::gojson;
use crate::ollama::{ChatRequest, ChatResponse, DoneReason, Think};

fn request(body: Value) -> Result<MessagesRequest> {
    gojson::from_slice(body.to_string().as_bytes())
}

fn translated(extra: Value) -> Result<ChatRequest> {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    request(body)?.into_chat()
}

fn messages(role: &str, content: Value) -> Result<Value> {
    let chat = translated(json!({"messages": [{"role": role, "content": content}]}))?;
    Ok(serde_json::to_value(chat.messages).unwrap())
}

#[track_caller]
fn refused(extra: Value, message: &str) {
    assert_eq!(translated(extra).map(drop), Err(Error::invalid(message)));
}

#[test]
fn what_is_missing_is_told_in_ollamas_order() {
    let refusal = |body: Value| request(body).and_then(MessagesRequest::into_chat).unwrap_err().message;
    assert_eq!(refusal(json!({})), "model is required");
    assert_eq!(refusal(json!({"model": "m"})), "max_tokens is required and must be positive");
    assert_eq!(
        refusal(json!({"model": "m", "max_tokens": -1})),
        "max_tokens is required and must be positive"
    );
    assert_eq!(refusal(json!({"model": "m", "max_tokens": 1})), "messages is required");
    assert_eq!(refusal(json!({"model": "m", "max_tokens": 1, "messages": []})), "messages is required");
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let field = |kind: &str, path: &str, wanted: &str| {
        format!("json: cannot unmarshal {kind} into Go struct field MessagesRequest.{path} of type {wanted}")
    };
    refused(json!({"model": 1}), &field("number", "model", "string"));
    refused(json!({"max_tokens": "9"}), &field("string", "max_tokens", "int"));
    refused(json!({"stream": "yes"}), &field("string", "stream", "bool"));
    refused(json!({"stop_sequences": "x"}), &field("string", "stop_sequences", "[]string"));
    refused(json!({"temperature": "hot"}), &field("string", "temperature", "float64"));
    refused(json!({"top_k": 1.5}), &field("number 1.5", "top_k", "int"));
    refused(json!({"messages": "hi"}), &field("string", "messages", "[]anthropic.MessageParam"));
    refused(json!({"thinking": true}), &field("bool", "thinking", "anthropic.ThinkingConfig"));
    let content = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    refused(content(json!(5)), &field("number", "messages", "[]anthropic.ContentBlock"));
    refused(content(json!(["x"])), &field("string", "messages", "anthropic.ContentBlock"));
    refused(content(json!([{"type": "text", "text": 5}])), &field("number", "messages.text", "string"));
    let call = json!([{"type": "tool_use", "id": "a", "name": "f", "input": "x"}]);
    refused(content(call), gojson::NO_MAP);
    assert!(translated(content(json!([null]))).unwrap().messages.is_empty());
}

#[test]
fn only_what_the_request_says_becomes_an_option() {
    let options = |extra: Value| Value::Object(translated(extra).unwrap().options.unwrap());
    assert_eq!(options(json!({})), json!({"num_predict": 9}));
    let all = json!({"temperature": 0, "top_p": 0.5, "top_k": 3, "stop_sequences": ["a", "b"], "num_ctx": 64,
        "metadata": {"user_id": "u"}, "tool_choice": {"type": "auto"}});
    let expected = json!({"num_predict": 9, "num_ctx": 64, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "stop": ["a", "b"]});
    assert_eq!(options(all), expected);
    let chat = translated(json!({"stream": true, "keep_alive": "1m"})).unwrap();
    assert_eq!((chat.stream, chat.keep_alive.is_some()), (Some(true), true));
    assert_eq!(translated(json!({})).unwrap().stream, Some(false));
}

#[test]
fn the_system_prompt_is_a_text_or_blocks_of_text() {
    let first = |system: Value| {
        let chat = translated(json!({"system": system})).unwrap();
        (chat.messages.len(), chat.messages[0].content.clone())
    };
    assert_eq!(first(json!("Be kind.")), (2, "Be kind.".to_owned()));
    let blocks = json!([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "image"}, 5,
        {"type": "text", "text": "b"}]);
    assert_eq!(first(blocks), (2, "ab".to_owned()));
    for nothing in [json!(""), json!([]), json!(7), Value::Null] {
        assert_eq!(first(nothing), (1, "hi".to_owned()));
    }
}

#[test]
fn blocks_of_a_turn_become_one_message() {
    let content = json!([
        {"type": "thinking", "thinking": "first"}, {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "who_knows"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAEC"}},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": 1, "a": 2}},
        {"type": "server_tool_use", "id": "", "name": "web_search", "input": {"query": "q"}}
    ]);
    let expected = json!([{"role": "assistant", "content": "ab", "thinking": "hm", "images": ["AAEC"], "tool_calls": [
        {"id": "t1", "function": {"index": 0, "name": "f", "arguments": {"z": 1, "a": 2}}},
        {"id": "", "function": {"index": 0, "name": "web_search", "arguments": {"query": "q"}}}
    ]}]);
    assert_eq!(messages("Assistant", content).unwrap(), expected);
    for nothing in [json!([]), json!(""), Value::Null, json!([{"type": "thinking"}])] {
        assert_eq!(messages("user", nothing).unwrap(), json!([]));
    }
}

#[test]
fn results_come_before_what_the_user_says_and_know_their_tool() {
    let turns = json!([
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}]},
        {"role": "user", "content": [
            {"type": "text", "text": "so?"},
            {"type": "tool_result", "tool_use_id": "t1", "content": [
                {"type": "text", "text": "ra"}, {"type": "text", "text": "in"}, 1,
                {"type": "image", "source": {"type": "base64", "data": "AAEC"}}]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "x", "is_error": true},
            {"type": "tool_result", "tool_use_id": "t1"}]}
    ]);
    let chat = translated(json!({"messages": turns})).unwrap();
    let told = serde_json::to_value(&chat.messages[1..]).unwrap();
    let expected = json!([
        {"role": "tool", "content": "rain", "images": ["AAEC"], "tool_name": "weather", "tool_call_id": "t1"},
        {"role": "tool", "content": "x", "tool_call_id": "t2"},
        {"role": "tool", "content": "", "tool_name": "weather", "tool_call_id": "t1"},
        {"role": "user", "content": "so?"}
    ]);
    assert_eq!(told, expected);
    // An assistant's results are those of the server's own tools.
    let found = json!([{"type": "web_search_result", "title": "T", "url": "http://x"}, {"type": "other"}]);
    let own = json!([{"type": "web_search_tool_result", "tool_use_id": "s1", "content": found}, {"type": "text", "text": "ok"}]);
    let expected = json!([
        {"role": "assistant", "content": "ok"},
        {"role": "tool", "content": "- T: http://x\n", "tool_call_id": "s1"}
    ]);
    assert_eq!(messages("assistant", own).unwrap(), expected);
}

#[test]
fn a_search_of_an_earlier_turn_is_described() {
    let failed = json!({"type": "web_search_tool_result_error", "error_code": "unavailable"});
    for (content, text) in [
        (json!("as it is"), "as it is"),
        (failed.clone(), "web_search_tool_result_error: unavailable"),
        (json!([failed]), "web_search_tool_result_error: unavailable"),
        (json!({"type": "web_search_tool_result_error"}), "web_search_tool_result_error"),
        (json!({"a": 1}), "{\"a\":1}"),
        (Value::Null, "null"),
    ] {
        let block = json!([{"type": "web_search_tool_result", "tool_use_id": "s", "content": content}]);
        assert_eq!(messages("user", block).unwrap()[0]["content"], text);
    }
}

#[test]
fn blocks_that_lack_something_are_refused_in_ollamas_words() {
    let url = json!({"type": "url", "url": "https://example.com/a.png"});
    let only = "invalid image source type: url. Only base64 images are supported.";
    let broken = "invalid base64 image data: illegal base64 data at input byte 0";
    for (block, message) in [
        (json!({"type": "tool_use", "name": "f"}), "tool_use block missing required 'id' field"),
        (json!({"type": "tool_use", "id": "t"}), "tool_use block missing required 'name' field"),
        (json!({"type": "image"}), "invalid image source"),
        (json!({"type": "image", "source": url}), only),
        (json!({"type": "image", "source": {"type": "base64", "data": "!"}}), broken),
        (
            json!({"type": "tool_result", "content": [{"type": "image", "source": "x"}]}),
            "invalid tool_result image source",
        ),
        (json!({"type": "tool_result", "content": [{"type": "image", "source": url}]}), only),
    ] {
        assert_eq!(messages("user", json!([block])).unwrap_err(), Error::invalid(message));
    }
}

#[test]
fn tools_get_the_shape_of_ollama() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let tools = json!([{"name": "weather", "description": "tells", "input_schema": schema}, {"type": "custom", "name": "now"}]);
    let chat = translated(json!({"tools": tools})).unwrap();
    let expected = [
        json!({"type": "function", "function": {"name": "weather", "description": "tells", "parameters": schema}}),
        json!({"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}),
    ];
    assert_eq!(chat.tools, expected);
    refused(
        json!({"tools": [{"name": "f\n", "input_schema": [1]}]}),
        "invalid input_schema for tool \"f\\n\": json: cannot unmarshal array into Go value of type api.ToolFunctionParameters",
    );
}

#[test]
fn the_built_in_search_takes_the_name_of_the_clients() {
    let tools =
        json!([{"name": "web_search"}, {"type": "web_search_20250305", "name": "web_search"}, {"name": "f"}]);
    let chat = translated(json!({"tools": tools})).unwrap();
    let names: Vec<&str> = chat.tools.iter().filter_map(|tool| tool["function"]["name"].as_str()).collect();
    assert_eq!(names, ["web_search", "f"]);
    assert_eq!(chat.tools[0]["function"]["parameters"]["required"], json!(["query"]));
    let own = translated(json!({"tools": [{"name": "web_search"}]})).unwrap();
    assert_eq!(own.tools.len(), 1);
}

#[test]
fn thinking_is_what_the_request_says_or_its_effort() {
    let level = |level: &str| Some(Think::Level(level.to_owned()));
    for (extra, think) in [
        (json!({}), None),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 5}}), Some(Think::Bool(true))),
        (
            json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}),
            Some(Think::Bool(false)),
        ),
        (json!({"thinking": {"type": "adaptive"}}), None),
        (json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": " MAX "}}), level("max")),
        (json!({"output_config": {"effort": "xhigh"}}), level("high")),
        (json!({"output_config": {"effort": "huge"}}), None),
    ] {
        assert_eq!(translated(extra).unwrap().think, think);
    }
}

#[test]
fn tokens_are_guessed_from_the_length() {
    let guess = |extra: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(36)}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        request(body).unwrap().estimated_tokens()
    };
    assert_eq!(guess(json!({})), 10);
    assert_eq!(
        guess(json!({"system": "y".repeat(8), "tools": [{"name": "n".repeat(4), "input_schema": {}}]})),
        13
    );
    assert_eq!(guess(json!({"messages": []})), 1);
    assert_eq!(
        guess(json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x".repeat(16)}]}]})),
        5
    );
}

fn answer(response: ChatResponse, searches: bool) -> Value {
    serde_json::to_value(MessagesResponse::new("msg_1".into(), response, searches)).unwrap()
}

#[test]
fn one_message_holds_everything() {
    let mut response = done(called("weather", json!({"city": "Oslo"})), DoneReason::Length);
    response.message.thinking = Some("hm".into());
    response.message.content = "Let me see.".into();
    let expected = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}
        ],
        "stop_reason": "tool_use", "usage": {"input_tokens": 3, "output_tokens": 4}
    });
    assert_eq!(answer(response, false), expected);
}

#[test]
fn messages_end_for_a_reason() {
    for (reason, told) in [
        (DoneReason::Stop, "end_turn"),
        (DoneReason::Length, "max_tokens"),
        (DoneReason::Load, "stop_sequence"),
    ] {
        let message = answer(done(said(""), reason), false);
        assert_eq!((&message["stop_reason"], &message["content"]), (&json!(told), &Value::Null));
    }
    assert_eq!(answer(said("x"), false).get("stop_reason"), None);
}

#[test]
fn a_search_is_answered_as_unavailable() {
    for (query, code) in [("rust", "unavailable"), ("", "invalid_request")] {
        let message = answer(done(called("web_search", json!({"query": query})), DoneReason::Stop), true);
        let expected = json!([
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": query}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1",
                "content": {"type": "web_search_tool_result_error", "error_code": code}}
        ]);
        assert_eq!((&message["content"], &message["stop_reason"]), (&expected, &json!("end_turn")));
    }
    let own = answer(done(called("web_search", json!({})), DoneReason::Stop), false);
    assert_eq!(own["content"][0]["type"], "tool_use");
}

fn stream(searches: bool) -> Stream {
    let tools =
        if searches { json!([{"type": "web_search_20250305", "name": "web_search"}]) } else { json!([]) };
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(16)}], "tools": tools});
    Stream::new("msg_1".into(), "req_1".into(), &request(body).unwrap())
}

fn told(searches: bool, parts: Vec<ChatResponse>) -> Vec<Value> {
    let frames = frames(stream(searches), parts.into_iter().map(Ok).collect());
    for (name, data) in &frames {
        assert_eq!(data["type"], json!(name));
    }
    frames.into_iter().map(|(_, data)| data).collect()
}

#[test]
fn a_stream_is_blocks_between_a_start_and_a_stop() {
    let parts = vec![
        thought("h", ""),
        thought("m", "Hel"),
        said("lo"),
        called("weather", json!({"city": "Oslo"})),
        done(said(""), DoneReason::Stop),
    ];
    let expected = [
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
            "content": [], "usage": {"input_tokens": 5, "output_tokens": 0}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hel"}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "lo"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2,
            "content_block": {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": "{\"city\":\"Oslo\"}"}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"input_tokens": 3, "output_tokens": 4}}),
        json!({"type": "message_stop"}),
    ];
    assert_eq!(told(false, parts), expected);
}

#[test]
fn a_stream_that_asks_for_a_search_says_nothing_more() {
    let parts = vec![
        said("One moment."),
        called("web_search", json!({"query": "q"})),
        said("I found"),
        done(said(""), DoneReason::Stop),
    ];
    let told = told(true, parts);
    let kinds: Vec<&Value> = told
        .iter()
        .filter(|data| data["type"] == "content_block_start")
        .map(|data| &data["content_block"]["type"])
        .collect();
    assert_eq!(kinds, ["text", "server_tool_use", "web_search_tool_result"]);
    assert!(told.iter().all(|data| data["delta"]["text"] != "I found"));
    assert_eq!(told[told.len() - 2]["delta"]["stop_reason"], "end_turn");
}

#[test]
fn a_broken_stream_ends_with_an_error_event() {
    let broken = Error::new(Code::Unavailable, "the worker is gone");
    let frames = frames(stream(false), vec![Ok(said("a")), Err(broken)]);
    assert_eq!(
        frames.last().unwrap(),
        &(
            "error".to_owned(),
            json!({
        "type": "error", "error": {"type": "overloaded_error", "message": "the worker is gone"}, "request_id": "req_1"})
        )
    );
    assert!(!names(&frames).contains(&"message_stop"));
}

#[test]
fn errors_come_in_their_envelope() {
    for (code, kind) in [
        (Code::Invalid, "invalid_request_error"),
        (Code::Unauthorized, "authentication_error"),
        (Code::Forbidden, "permission_error"),
        (Code::NotFound, "not_found_error"),
        (Code::QueueFull, "overloaded_error"),
        (Code::Internal, "api_error"),
    ] {
        let body = serde_json::to_value(ErrorBody::new(&Error::new(code, "no"), "req_1".into())).unwrap();
        assert_eq!(
            body,
            json!({"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "req_1"})
        );
    }
}

/// Every field with values that make sense and some that nearly do.
fn fields() -> Value {
    let tool_use = json!({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}});
    let result =
        json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]});
    json!({
        "model": ["m", ""],
        "max_tokens": [1, 9, 0],
        "messages": [
            [{"role": "user", "content": "hi"}],
            [{"role": "assistant", "content": [tool_use]}, {"role": "user", "content": [result, {"type": "text"}]}],
            [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "AAEC"}}]}],
            [{"role": "user", "content": [{"type": "thinking", "thinking": 1}]}],
            []
        ],
        "system": ["s", [{"type": "text", "text": "s"}]],
        "stream": [true, false],
        "temperature": [0, 1.5],
        "top_p": [0.5],
        "top_k": [7],
        "stop_sequences": [["a"], []],
        "tools": [[{"name": "f", "input_schema": {"type": "object"}}], [{"type": "web_search_1", "name": "web_search"}]],
        "thinking": [{"type": "enabled"}, {"type": "disabled"}],
        "output_config": [{"effort": "low"}, {"effort": ""}],
        "keep_alive": ["5m", 0, -1],
        "num_ctx": [64]
    })
}

proptest! {
    #[test]
    fn what_is_accepted_is_a_valid_chat(body in any_request(fields())) {
        if let Ok(request) = request(body) {
            request.estimated_tokens();
            if let Ok(chat) = request.into_chat() {
                assert_valid(&chat);
            }
        }
    }

    #[test]
    fn every_stream_ends_as_clients_expect(parts in any_stream(), searches: bool) {
        let is_broken = parts.iter().take_while(|part| !part.as_ref().is_ok_and(|part| part.done)).any(Result::is_err);
        let frames = frames(stream(searches), parts);
        let names = names(&frames);
        let last = if is_broken { "error" } else { "message_stop" };
        prop_assert_eq!(names.last(), Some(&last));
        let count = |name| names.iter().filter(|other| **other == name).count();
        prop_assert_eq!(count(last), 1);
        prop_assert!(count("message_start") <= 1 && (is_broken || names[0] == "message_start"));
        if !is_broken {
            prop_assert_eq!(count("content_block_start"), count("content_block_stop"));
        }
        let starts = frames.iter().filter(|(name, _)| name == "content_block_start");
        for (position, (_, data)) in starts.enumerate() {
            prop_assert_eq!(&data["index"], &json!(position));
        }
    }

    #[test]
    fn every_answer_is_a_message(parts in any_stream(), searches: bool) {
        for part in parts.into_iter().flatten() {
            let message = answer(part, searches);
            prop_assert_eq!(&message["type"], &json!("message"));
        }
    }
}

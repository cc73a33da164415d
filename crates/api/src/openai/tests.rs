//! Requests in, answers and chunks out, as the official clients see them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::KeepAlive;
use crate::error::{Code, Error, Result};
use crate::events::testing::{any_request, any_stream, assert_valid, called, done, frames, said, thought};
use crate::gojson::from_slice;
use crate::ollama::{ChatRequest, ChatResponse, DoneReason, EmbedResponse, Logprob, Think};

fn translated(body: Value) -> Result<ChatRequest> {
    from_slice::<ChatCompletionRequest>(body.to_string().as_bytes())?.into_chat()
}

fn with(extra: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn messages(messages: Value) -> Result<Value> {
    let chat = translated(json!({"model": "m", "messages": messages}))?;
    Ok(serde_json::to_value(chat.messages).unwrap())
}

fn options(extra: Value) -> Value {
    translated(with(extra)).unwrap().options.unwrap().into()
}

#[test]
fn a_request_without_messages_is_refused() {
    assert_eq!(
        translated(json!({"model": "m"})).unwrap_err(),
        Error::invalid("[] is too short - 'messages'")
    );
}

#[test]
fn temperature_and_top_p_are_one_unless_given() {
    assert_eq!(options(json!({})), json!({"temperature": 1.0, "top_p": 1.0}));
    assert_eq!(options(json!({"temperature": 0, "top_p": 0.5})), json!({"temperature": 0.0, "top_p": 0.5}));
}

#[test]
fn options_get_the_names_of_ollama() {
    let given = json!({
        "max_tokens": 5, "seed": 7, "stop": ["a", 1, "b"], "frequency_penalty": 0.5, "presence_penalty": -0.5,
        "num_ctx": 2048, "n": 3, "user": "u", "tool_choice": "auto"
    });
    let expected = json!({
        "stop": ["a", "b"], "num_predict": 5, "num_ctx": 2048, "seed": 7, "frequency_penalty": 0.5,
        "presence_penalty": -0.5, "temperature": 1.0, "top_p": 1.0
    });
    assert_eq!(options(given), expected);
    assert_eq!(options(json!({"stop": "end"}))["stop"], json!(["end"]));
    assert_eq!(options(json!({"max_completion_tokens": 9, "max_tokens": 5}))["num_predict"], json!(9));
}

#[test]
fn streaming_is_off_unless_asked_for() {
    assert_eq!(translated(with(json!({}))).unwrap().stream, Some(false));
    let body = with(json!({"stream": true, "stream_options": {"include_usage": true}, "keep_alive": -1}));
    let request: ChatCompletionRequest = from_slice(body.to_string().as_bytes()).unwrap();
    assert!(request.stream_options.unwrap().include_usage);
    let chat = request.into_chat().unwrap();
    assert_eq!((chat.stream, chat.keep_alive), (Some(true), Some(KeepAlive::FOREVER)));
}

#[test]
fn each_part_of_a_content_becomes_a_message() {
    let content = json!([
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC"}},
        {"type": "image_url", "image_url": "data:;base64,AAEC"},
        {"type": "input_audio", "input_audio": {"data": "AAEC", "format": "wav"}}
    ]);
    let expected = json!([
        {"role": "user", "content": "look"},
        {"role": "user", "content": "", "images": ["AAEC"]},
        {"role": "user", "content": "", "images": ["AAEC"]},
        {"role": "user", "content": "", "images": ["AAEC"]}
    ]);
    assert_eq!(messages(json!([{"role": "User", "content": content}])).unwrap(), expected);
}

#[test]
fn tool_calls_and_their_answers_are_matched_by_id() {
    let turns = json!([
        {"role": "assistant", "content": null, "reasoning": "hm", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "name": "clock", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}]}
    ]);
    let call =
        json!({"id": "c1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Oslo"}}});
    let expected = json!([
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "tool", "content": "noon", "tool_name": "clock", "tool_call_id": "c2"}
    ]);
    assert_eq!(messages(turns).unwrap(), expected);
}

#[test]
fn a_content_that_is_no_content_is_refused_in_words_of_ollama() {
    let http = json!([{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]);
    for (content, message) in [
        (Value::Null, "invalid message content type: <nil>"),
        (json!(1), "invalid message content type: float64"),
        (json!({}), "invalid message content type: map[string]interface {}"),
        (json!(["text"]), "invalid message format"),
        (json!([{"type": "video"}]), "invalid message format"),
        (json!([{"type": "text"}]), "invalid message format"),
        (json!([{"type": "image_url", "image_url": {}}]), "invalid message format"),
        (json!([{"type": "image_url", "image_url": "data:image/gif;base64,AAEC"}]), "invalid image input"),
        (json!([{"type": "image_url", "image_url": "data:image/png;base64,A"}]), "invalid image input"),
        (json!([{"type": "input_audio"}]), "invalid input_audio format"),
        (json!([{"type": "input_audio", "input_audio": {}}]), "invalid input_audio format: missing data"),
        (
            json!([{"type": "input_audio", "input_audio": {"data": "!"}}]),
            "invalid input_audio base64 data: illegal base64 data at input byte 0",
        ),
        (http, "image URLs are not currently supported, please use base64 encoded data instead"),
    ] {
        let error = messages(json!([{"role": "user", "content": content}])).unwrap_err();
        assert_eq!(error, Error::invalid(message));
    }
    let called = |arguments: &str| {
        let call = json!({"id": "c", "function": {"name": "f", "arguments": arguments}});
        messages(json!([{"role": "assistant", "content": "", "tool_calls": [call]}]))
    };
    for arguments in ["[1]", "", "{", "7"] {
        assert_eq!(called(arguments), Err(Error::invalid("invalid tool call arguments")));
    }
    assert_eq!(called("null").unwrap()[0]["tool_calls"][0]["function"]["arguments"], json!({}));
}

#[test]
fn response_formats_become_formats() {
    let format =
        |response_format| translated(with(json!({"response_format": response_format}))).unwrap().format;
    assert_eq!(format(json!({"type": "json_object"})), Some(json!("json")));
    assert_eq!(
        format(json!({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}})),
        Some(json!({"type": "object"}))
    );
    assert_eq!(format(json!({"type": "text"})), None);
    assert_eq!(format(Value::Null), None);
}

#[test]
fn efforts_become_levels_of_thinking() {
    let level = |level: &str| Some(Think::Level(level.to_owned()));
    for (effort, think) in [
        ("", None),
        ("none", Some(Think::Bool(false))),
        ("minimal", level("low")),
        ("medium", level("medium")),
        ("ultra", level("max")),
    ] {
        assert_eq!(translated(with(json!({"reasoning_effort": effort}))).unwrap().think, think);
        assert_eq!(translated(with(json!({"reasoning": {"effort": effort}}))).unwrap().think, think);
    }
    let error = translated(with(json!({"reasoning_effort": "huge"}))).unwrap_err();
    assert!(error.message.starts_with("invalid reasoning value: \"huge\" (must be \"minimal\", "), "{error}");
}

fn header(include_usage: bool) -> Header {
    Header { id: "chatcmpl-1".into(), created: 7, model: "m".into(), include_usage }
}

fn stream(include_usage: bool) -> Stream {
    Stream::new(header(include_usage))
}

/// The chunks of a whole stream without what all of them share, and that it ends with `[DONE]`.
fn streamed(include_usage: bool, responses: Vec<ChatResponse>) -> Vec<Value> {
    let mut chunks = frames(stream(include_usage), responses.into_iter().map(Ok).collect());
    assert_eq!(chunks.pop(), Some((String::new(), json!("[DONE]"))));
    let strip = |(_, mut chunk): (String, Value)| {
        let shared = [
            ("id", json!("chatcmpl-1")),
            ("object", json!("chat.completion.chunk")),
            ("created", json!(7)),
            ("model", json!("m")),
            ("system_fingerprint", json!("fp_ollama")),
        ];
        for (key, value) in shared {
            assert_eq!(chunk.as_object_mut().unwrap().shift_remove(key), Some(value));
        }
        chunk
    };
    chunks.into_iter().map(strip).collect()
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

#[test]
fn a_stream_tells_its_role_once_and_ends_with_a_chunk_of_its_own() {
    let chunks = streamed(false, vec![said("Hel"), said("lo"), done(said(""), DoneReason::Stop)]);
    let expected = [
        delta(json!({"role": "assistant", "content": "Hel"})),
        delta(json!({"content": "lo"})),
        finish("stop"),
    ];
    assert_eq!(chunks, expected);
}

#[test]
fn usage_is_the_last_chunk_and_only_if_asked_for() {
    let chunks = streamed(true, vec![done(said("x"), DoneReason::Length)]);
    let expected = [
        delta(json!({"role": "assistant", "content": "x"})),
        finish("length"),
        json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}),
    ];
    assert_eq!(chunks, expected);
}

#[test]
fn thinking_and_content_are_told_in_chunks_of_their_own() {
    let chunks =
        streamed(false, vec![thought("hm", ""), thought("m", "yes"), done(said(""), DoneReason::Stop)]);
    let expected = [
        delta(json!({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_content": "hm"})),
        delta(json!({"reasoning": "m", "reasoning_content": "m"})),
        delta(json!({"content": "yes"})),
        finish("stop"),
    ];
    assert_eq!(chunks, expected);
}

#[test]
fn tool_calls_change_how_a_stream_ends() {
    let call = json!({"id": "call_1", "index": 0, "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}});
    let chunks =
        streamed(false, vec![called("weather", json!({"city": "Oslo"})), done(said(""), DoneReason::Stop)]);
    let expected =
        [delta(json!({"role": "assistant", "content": "", "tool_calls": [call]})), finish("tool_calls")];
    assert_eq!(chunks, expected);
    let cut = streamed(false, vec![done(called("weather", json!({"city": "Oslo"})), DoneReason::Length)]);
    assert_eq!(cut.last(), Some(&finish("length")));
}

#[test]
fn an_answer_of_nothing_begins_with_a_role_and_ends_with_a_reason() {
    let begun = delta(json!({"role": "assistant", "content": ""}));
    assert_eq!(streamed(false, vec![done(said(""), DoneReason::Load)]), [begun, finish("load")]);
    assert_eq!(streamed(false, vec![]), [finish("stop")]);
}

#[test]
fn thoughts_come_back_under_either_name() {
    let turn = |key: &str| json!([{"role": "assistant", "content": "x", key: "hm"}]);
    for key in ["reasoning", "reasoning_content"] {
        assert_eq!(messages(turn(key)).unwrap()[0]["thinking"], "hm");
    }
}

#[test]
fn calls_without_content_are_a_turn() {
    let call = json!({"id": "c", "function": {"name": "f", "arguments": "{}"}});
    for content in [Value::Null, json!([]), json!("")] {
        let told =
            messages(json!([{"role": "assistant", "content": content, "tool_calls": [call]}])).unwrap();
        assert_eq!(told[0]["tool_calls"][0]["function"]["name"], "f");
    }
}

#[test]
fn developers_are_the_system() {
    let told = messages(json!([{"role": "Developer", "content": "x"}])).unwrap();
    assert_eq!(told, json!([{"role": "system", "content": "x"}]));
}

#[test]
fn probabilities_travel_with_the_content() {
    let logprob = Logprob { token: "x".into(), logprob: -0.5, bytes: vec![120], top_logprobs: Vec::new() };
    let response = ChatResponse { logprobs: Some(vec![logprob]), ..said("x") };
    let chunks = streamed(false, vec![response]);
    let expected = json!({"content": [{"token": "x", "logprob": -0.5, "bytes": [120]}]});
    assert_eq!(chunks[0]["choices"][0]["logprobs"], expected);
}

#[test]
fn one_answer_holds_everything() {
    let mut response = done(called("weather", json!({"city": "Oslo"})), DoneReason::Stop);
    response.message.thinking = Some("hm".into());
    let completion = ChatCompletion::new(&header(false), response);
    let expected = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "m", "system_fingerprint": "fp_ollama",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "", "reasoning": "hm", "reasoning_content": "hm",
            "tool_calls": [{"id": "call_1", "index": 0, "type": "function",
                "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}}]}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    });
    assert_eq!(serde_json::to_value(completion).unwrap(), expected);
}

#[test]
fn embeddings_are_asked_for_as_text() {
    let embed = |body: Value| from_slice::<EmbeddingRequest>(body.to_string().as_bytes())?.into_embed();
    let (request, format) = embed(json!({"model": "m", "input": "", "dimensions": 8})).unwrap();
    assert_eq!(
        (request.input.0, request.dimensions, format),
        (vec![String::new()], Some(8), EncodingFormat::Float)
    );
    let (request, _) = embed(json!({"input": "a", "keep_alive": 0, "num_ctx": 64})).unwrap();
    assert_eq!(request.keep_alive, Some(KeepAlive::ZERO));
    assert_eq!(Value::from(request.options.unwrap()), json!({"num_ctx": 64}));
    let (request, format) = embed(json!({"input": ["a", "b"], "encoding_format": "BASE64"})).unwrap();
    assert_eq!((request.input.0.len(), request.dimensions, format), (2, None, EncodingFormat::Base64));
    for (body, message) in [
        (json!({}), "invalid input"),
        (json!({"input": []}), "invalid input"),
        (json!({"input": [1, 2]}), "invalid input type"),
        (
            json!({"input": "a", "encoding_format": "int8"}),
            "Invalid value for 'encoding_format' = int8. Supported values: ['float', 'base64'].",
        ),
    ] {
        assert_eq!(embed(body).unwrap_err(), Error::invalid(message));
    }
}

#[test]
fn embeddings_are_answered_as_numbers_or_as_bytes() {
    let response = EmbedResponse {
        model: "m".into(),
        embeddings: vec![vec![1.0, -0.5]],
        prompt_eval_count: 5,
        ..EmbedResponse::default()
    };
    let list = |format| serde_json::to_value(EmbeddingList::new(response.clone(), format)).unwrap();
    let expected = json!({
        "object": "list", "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5},
        "data": [{"object": "embedding", "embedding": [1.0, -0.5], "index": 0}]
    });
    assert_eq!(list(EncodingFormat::Float), expected);
    assert_eq!(list(EncodingFormat::Base64)["data"][0]["embedding"], json!("AACAPwAAAL8="));
}

#[test]
fn no_models_are_null() {
    let list = |models: Vec<Model>| serde_json::to_value(ModelList::from(models)).unwrap();
    assert_eq!(list(Vec::new()), json!({"object": "list", "data": null}));
    let model = Model::new("m:latest".into(), 7, "library".into());
    let expected = json!([{"id": "m:latest", "object": "model", "created": 7, "owned_by": "library"}]);
    assert_eq!(list(vec![model])["data"], expected);
}

#[test]
fn errors_come_in_their_envelope() {
    for (code, kind) in [
        (Code::Invalid, "invalid_request_error"),
        (Code::NotFound, "not_found_error"),
        (Code::QueueFull, "api_error"),
    ] {
        let body = serde_json::to_value(ErrorBody::from(&Error::new(code, "no"))).unwrap();
        assert_eq!(body, json!({"error": {"message": "no", "type": kind, "param": null, "code": null}}));
    }
}

/// Every field with values that make sense and some that nearly do.
fn fields() -> Value {
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC"}});
    let call = json!({"id": "c", "function": {"name": "f", "arguments": "{\"a\":1}"}});
    json!({
        "model": ["m"],
        "messages": [
            [{"role": "user", "content": "hi"}],
            [{"role": "user", "content": [{"type": "text", "text": "x"}, image]}],
            [{"role": "assistant", "content": null, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"}],
            [{"role": "assistant", "content": [], "tool_calls": [{"function": {"arguments": "["}}]}],
            []
        ],
        "stream": [true],
        "stream_options": [{"include_usage": true}],
        "max_tokens": [5],
        "max_completion_tokens": [5],
        "seed": [7],
        "stop": ["a", ["b", 1], 5],
        "temperature": [0.5],
        "frequency_penalty": [1],
        "presence_penalty": [1],
        "top_p": [0.5],
        "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {}}}],
        "tools": [[{"type": "function", "function": {"name": "f"}}]],
        "reasoning": [{"effort": "low"}],
        "reasoning_effort": ["high", "huge"],
        "logprobs": [true],
        "top_logprobs": [5],
        "keep_alive": ["5m"],
        "num_ctx": [64]
    })
}

proptest! {
    #[test]
    fn what_is_accepted_is_a_valid_chat(body in any_request(fields())) {
        let accepted = from_slice::<ChatCompletionRequest>(body.to_string().as_bytes());
        if let Ok(mut chat) = accepted.and_then(ChatCompletionRequest::into_chat) {
            // What a tool is, the client says.
            chat.tools.clear();
            assert_valid(&chat);
        }
    }

    #[test]
    fn what_is_embedded_is_text(body in any_request(json!({
        "model": ["m"], "input": ["a", ["a", "b"], [], [1]], "dimensions": [8, -1], "encoding_format": ["base64", "x"]
    }))) {
        if let Ok((embed, _)) = from_slice::<EmbeddingRequest>(body.to_string().as_bytes()).and_then(EmbeddingRequest::into_embed) {
            prop_assert!(!embed.input.0.is_empty());
        }
    }

    #[test]
    fn every_stream_ends_as_clients_expect(parts in any_stream(), include_usage: bool) {
        let is_broken = parts.iter().take_while(|part| !part.as_ref().is_ok_and(|part| part.done)).any(Result::is_err);
        let mut frames = frames(stream(include_usage), parts);
        prop_assert_eq!(frames.pop().map(|(_, data)| data), Some(json!("[DONE]")));
        let is_finish = |(_, data): &&(String, Value)| data["choices"][0]["finish_reason"].is_string();
        prop_assert_eq!(frames.iter().filter(is_finish).count(), usize::from(!is_broken));
        let last = &frames.last().unwrap().1;
        prop_assert_eq!(last["error"].is_object(), is_broken);
        prop_assert_eq!(last["usage"].is_object(), include_usage && !is_broken);
        let roles = frames.iter().filter(|(_, data)| data["choices"][0]["delta"]["role"] == "assistant");
        prop_assert!(roles.count() <= 1);
    }
}

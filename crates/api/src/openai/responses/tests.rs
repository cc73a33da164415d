//! Requests in, responses and events out, as OpenAI's newer clients see them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::{Code, Error, Result};
use crate::events::testing::{
    any_request, any_stream, assert_valid, called, done, frames, names, said, thought,
};
use crate::gojson;
use crate::ollama::{ChatRequest, ChatResponse, DoneReason, Metrics, Think};

fn request(body: Value) -> Result<ResponsesRequest> {
    gojson::from_slice(body.to_string().as_bytes())
}

fn translated(extra: Value) -> Result<ChatRequest> {
    let mut body = json!({"model": "m", "input": "hi"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    request(body)?.to_chat()
}

fn messages(items: Value) -> Result<Value> {
    Ok(serde_json::to_value(translated(json!({"input": items}))?.messages).unwrap())
}

#[track_caller]
fn refused(extra: Value, message: &str) {
    assert_eq!(translated(extra).map(drop), Err(Error::invalid(message)));
}

#[test]
fn an_input_is_a_text_or_items() {
    let user = json!([{"role": "user", "content": "hi"}]);
    assert_eq!(messages(json!("hi")).unwrap(), user);
    assert_eq!(messages(json!([{"role": "user", "content": "hi"}])).unwrap(), user);
    let parts = json!([{"type": "input_text", "text": "h"}, {"type": "output_text", "text": "i"}]);
    assert_eq!(messages(json!([{"type": "message", "role": "User", "content": parts}])).unwrap(), user);
    for nothing in [json!(""), json!([]), Value::Null] {
        assert_eq!(messages(nothing).unwrap(), json!([]));
    }
    refused(
        json!({"input": 5}),
        "input must be a string or array: json: cannot unmarshal number into Go value of type []json.RawMessage",
    );
}

#[test]
fn instructions_come_first_and_developers_are_the_system() {
    let chat =
        translated(json!({"instructions": "Be kind.", "input": [{"role": "developer", "content": "x"}]}));
    let told = serde_json::to_value(chat.unwrap().messages).unwrap();
    assert_eq!(told, json!([{"role": "system", "content": "Be kind."}, {"role": "system", "content": "x"}]));
}

#[test]
fn images_are_data_urls() {
    let image = |url: &str| json!([{"role": "user", "content": [{"type": "input_image", "detail": "auto", "image_url": url}]}]);
    let expected = json!([{"role": "user", "content": "", "images": ["AAEC"]}]);
    assert_eq!(messages(image("data:image/png;base64,AAEC")).unwrap(), expected);
    assert_eq!(messages(image("")).unwrap(), json!([{"role": "user", "content": ""}]));
    let refused = messages(image("https://example.com/a.png")).unwrap_err().message;
    assert!(refused.contains("image URLs are not currently supported"), "{refused}");
}

#[test]
fn calls_and_their_results_are_turns() {
    let items = json!([
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "hm"},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{\"city\":\"Oslo\"}"},
        {"type": "function_call", "call_id": "c2", "name": "now", "arguments": ""},
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call_output", "call_id": "c2", "output": "noon"},
        {"type": "function_call_output", "call_id": "c1", "output": [
            {"type": "input_text", "text": "rain"}, {"type": "input_image", "image_url": "data:;base64,AAEC"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
        {"type": "reasoning", "encrypted_content": "so"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]},
        {"type": "reasoning", "encrypted_content": "left"}
    ]);
    let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "function": {"index": 0, "name": name, "arguments": arguments}});
    let calls = [call("c1", "weather", json!({"city": "Oslo"})), call("c2", "now", json!({}))];
    let expected = json!([
        {"role": "assistant", "content": "Let me see.", "thinking": "hm", "tool_calls": calls},
        {"role": "tool", "content": "noon", "tool_name": "now", "tool_call_id": "c2"},
        {"role": "tool", "content": "rain", "images": ["AAEC"], "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It rains.", "thinking": "so"},
        {"role": "assistant", "content": "", "thinking": "left"}
    ]);
    assert_eq!(messages(items).unwrap(), expected);
}

#[test]
fn items_that_are_none_are_named_with_their_place() {
    let content = |part: Value| json!([{"role": "user", "content": [{"type": "input_text"}, part]}]);
    for (items, message) in [
        (json!([{"role": "user"}, {"type": "video"}]), "input[1]: unknown input item type: \"video\""),
        (json!([null]), "input[0]: input item missing required 'type' field"),
        (json!([{}]), "input[0]: input item missing required 'type' field"),
        (
            json!(["x"]),
            "input[0]: json: cannot unmarshal string into Go value of type openai.ResponsesInputItem",
        ),
        (
            json!([{"type": 5}]),
            "input[0]: json: cannot unmarshal number into Go struct field .type of type string",
        ),
        (
            json!([{"role": "user", "content": 5}]),
            "input[0]: content must be a string or array: json: cannot unmarshal number into Go value of type []json.RawMessage",
        ),
        (content(json!({"type": "refusal"})), "input[0]: content[1]: unknown content type: refusal"),
        (content(json!({})), "input[0]: content[1]: unknown content type: "),
        (
            content(json!({"type": "input_file", "file_data": "x"})),
            "input[0]: content[1]: file inputs are not currently supported",
        ),
        (
            content(json!({"type": "input_text", "text": 5})),
            "input[0]: content[1]: json: cannot unmarshal number into Go struct field ResponsesContent.text of type string",
        ),
        (
            json!([{"type": "function_call", "arguments": "x"}]),
            "input[0]: failed to parse function call arguments: invalid character 'x' looking for beginning of value",
        ),
        (
            json!([{"type": "function_call_output", "output": [{"type": "x"}]}]),
            "input[0]: output[0]: unknown content type: x",
        ),
    ] {
        refused(json!({ "input": items }), message);
    }
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    for (extra, path) in [
        (json!({"model": 1}), "number into Go struct field ResponsesRequest.model of type string"),
        (
            json!({"max_output_tokens": "9"}),
            "string into Go struct field ResponsesRequest.max_output_tokens of type int",
        ),
        (json!({"stream": 1}), "number into Go struct field ResponsesRequest.stream of type bool"),
        (
            json!({"reasoning": {"effort": 1}}),
            "number into Go struct field ResponsesReasoning.reasoning.effort of type string",
        ),
        (
            json!({"tools": {}}),
            "object into Go struct field ResponsesRequest.tools of type []openai.ResponsesTool",
        ),
    ] {
        let message = translated(extra).unwrap_err().message;
        assert_eq!(message, format!("json: cannot unmarshal {path}"));
    }
}

#[test]
fn temperature_is_one_unless_given_and_top_p_the_models() {
    let options = |extra: Value| Value::Object(translated(extra).unwrap().options.unwrap());
    assert_eq!(options(json!({})), json!({"temperature": 1.0}));
    let all = json!({"temperature": 0, "top_p": 0.5, "max_output_tokens": 5, "num_ctx": 64, "store": true, "include": []});
    assert_eq!(options(all), json!({"temperature": 0.0, "top_p": 0.5, "num_predict": 5, "num_ctx": 64}));
    assert_eq!(translated(json!({})).unwrap().stream, Some(false));
    assert!(translated(json!({"keep_alive": 5})).unwrap().keep_alive.is_some());
}

#[test]
fn formats_and_efforts_are_those_of_chats() {
    let format = |format: Value| translated(json!({"text": {"format": format}})).unwrap().format;
    let schema = json!({"type": "object"});
    assert_eq!(format(json!({"type": "json_schema", "name": "n", "schema": schema})), Some(schema));
    assert_eq!(format(json!({"type": "json_object"})), Some(json!("json")));
    assert_eq!((format(json!({"type": "text"})), format(Value::Null)), (None, None));
    let think = |effort: &str| translated(json!({"reasoning": {"effort": effort}})).map(|chat| chat.think);
    assert_eq!(think("minimal"), Ok(Some(Think::Level("low".into()))));
    assert_eq!(think(""), Ok(None));
    assert!(think("huge").unwrap_err().message.starts_with("invalid reasoning value: \"huge\""));
}

#[test]
fn namespaces_become_tools_with_long_names() {
    let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let tools = json!([
        {"type": "function", "name": "f", "description": "d", "strict": true, "parameters": parameters},
        {"type": "namespace", "name": "crm", "tools": [
            {"type": "function", "name": "find"}, {"type": "function", "name": "crm.add"},
            {"type": "namespace", "name": "inner", "tools": [{"type": "function", "name": "g"}]}]},
        {"type": "code_interpreter", "container": {"type": "auto"}}
    ]);
    let chat = translated(json!({"tools": tools})).unwrap();
    let expected =
        json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}});
    assert_eq!(chat.tools[0], expected);
    let names: Vec<&str> = chat.tools.iter().filter_map(|tool| tool["function"]["name"].as_str()).collect();
    assert_eq!(names, ["f", "crm.find", "crm.add", "crm.inner.g"]);
}

#[test]
fn the_built_in_search_takes_the_name_of_the_clients() {
    let tools =
        json!([{"type": "function", "name": "web_search", "description": "mine"}, {"type": "web_search"}]);
    let request = request(json!({"model": "m", "tools": tools})).unwrap();
    assert!(request.wants_web_search());
    let chat = request.to_chat().unwrap();
    assert_eq!(chat.tools.len(), 1);
    assert_eq!(chat.tools[0]["function"]["parameters"]["required"], json!(["query"]));
}

fn begun(extra: Value) -> Response {
    let mut body = json!({"model": "m", "input": "hi"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Response::begun("resp_7".into(), 5, &request(body).unwrap())
}

fn answered(response: ChatResponse, searches: bool) -> Result<Value> {
    let response = begun(json!({})).answered(response, searches, 9)?;
    Ok(serde_json::to_value(response).unwrap())
}

#[test]
fn a_response_tells_the_request_back() {
    let tool = json!({"type": "function", "name": "f", "description": null, "strict": true, "parameters": {"type": "object"}});
    let extra = json!({
        "instructions": "Be kind.", "temperature": 0.5, "max_output_tokens": 9, "truncation": "auto", "tools": [tool],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        "reasoning": {"effort": "low"}, "background": true, "metadata": {"a": "b"}
    });
    let told = serde_json::to_value(begun(extra.clone())).unwrap();
    for key in [
        "instructions",
        "temperature",
        "max_output_tokens",
        "truncation",
        "tools",
        "text",
        "reasoning",
        "background",
        "metadata",
    ] {
        assert_eq!(told[key], extra[key], "{key}");
    }
    let plain = serde_json::to_value(begun(json!({}))).unwrap();
    let expected = json!({
        "id": "resp_7", "object": "response", "created_at": 5, "completed_at": null, "status": "in_progress",
        "incomplete_details": null, "model": "m", "previous_response_id": null, "instructions": null, "output": [],
        "error": null, "tools": [], "tool_choice": "auto", "truncation": "disabled", "parallel_tool_calls": true,
        "text": {"format": {"type": "text"}}, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "top_logprobs": 0, "temperature": 1.0, "reasoning": null, "usage": null, "max_output_tokens": null,
        "max_tool_calls": null, "store": false, "background": false, "service_tier": "default", "metadata": {},
        "safety_identifier": null, "prompt_cache_key": null
    });
    assert_eq!(plain, expected);
}

fn message(id: &str, text: &str) -> Value {
    let content = json!([{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]);
    json!({"type": "message", "id": id, "status": "completed", "role": "assistant", "content": content})
}

fn reasoning(id: &str, text: &str) -> Value {
    let summary = json!([{"type": "summary_text", "text": text}]);
    json!({"type": "reasoning", "id": id, "summary": summary, "encrypted_content": text})
}

fn function_call(id: &str, status: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": id, "status": status, "call_id": "call_1", "name": "weather", "arguments": arguments})
}

#[test]
fn an_answer_is_a_list_of_items() {
    let mut response = done(thought("hm", "yes"), DoneReason::Length);
    response.metrics = Metrics { cached_tokens: 2, ..response.metrics };
    let told = answered(response, false).unwrap();
    assert_eq!(told["output"], json!([reasoning("rs_7_0", "hm"), message("msg_7_1", "yes")]));
    assert_eq!((&told["status"], &told["completed_at"]), (&json!("completed"), &json!(9)));
    let usage = json!({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2}, "output_tokens_details": {"reasoning_tokens": 0}});
    assert_eq!(told["usage"], usage);
    assert_eq!(answered(said(""), false).unwrap()["output"], json!([message("msg_7_0", "")]));
}

#[test]
fn an_answer_with_calls_has_no_message() {
    let mut response = done(called("weather", json!({"city": "Oslo"})), DoneReason::Stop);
    response.message.content = "Let me see.".into();
    let told = answered(response, false).unwrap();
    assert_eq!(told["output"], json!([function_call("fc_7_0", "completed", "{\"city\":\"Oslo\"}")]));
}

#[test]
fn a_search_of_the_web_is_forbidden() {
    let error = answered(called("web_search", json!({"query": "q"})), true).unwrap_err();
    assert_eq!(error, Error::new(Code::Forbidden, "ollama cloud is disabled: web search is unavailable"));
    assert!(answered(called("web_search", json!({})), false).is_ok());
}

fn stream(searches: bool) -> ResponseStream {
    let tools = if searches { json!([{"type": "web_search"}]) } else { json!([]) };
    let request = request(json!({"model": "m", "input": "hi", "tools": tools})).unwrap();
    ResponseStream::new(Response::begun("resp_7".into(), 5, &request), searches)
}

/// The payloads without their numbers and names, which are checked here.
fn told(searches: bool, parts: Vec<Result<ChatResponse>>) -> Vec<(String, Value)> {
    let mut frames = frames(stream(searches), parts);
    for (number, (name, data)) in frames.iter_mut().enumerate() {
        let map = data.as_object_mut().unwrap();
        assert_eq!(map.shift_remove("type"), Some(json!(name)));
        assert_eq!(map.shift_remove("sequence_number"), Some(json!(number)));
    }
    frames
}

/// Of a thought, a text and a call, one after the other.
fn events_of_items() -> Vec<(&'static str, Value)> {
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let begun_message = json!({"type": "message", "id": "msg_7_1", "status": "in_progress", "role": "assistant", "content": []});
    vec![
        (
            "output_item.added",
            json!({"output_index": 0, "item": {"type": "reasoning", "id": "rs_7_0", "summary": []}}),
        ),
        (
            "reasoning_summary_text.delta",
            json!({"item_id": "rs_7_0", "output_index": 0, "summary_index": 0, "delta": "h"}),
        ),
        (
            "reasoning_summary_text.delta",
            json!({"item_id": "rs_7_0", "output_index": 0, "summary_index": 0, "delta": "m"}),
        ),
        (
            "reasoning_summary_text.done",
            json!({"item_id": "rs_7_0", "output_index": 0, "summary_index": 0, "text": "hm"}),
        ),
        ("output_item.done", json!({"output_index": 0, "item": reasoning("rs_7_0", "hm")})),
        ("output_item.added", json!({"output_index": 1, "item": begun_message})),
        (
            "content_part.added",
            json!({"item_id": "msg_7_1", "output_index": 1, "content_index": 0, "part": part("")}),
        ),
        (
            "output_text.delta",
            json!({"item_id": "msg_7_1", "output_index": 1, "content_index": 0, "delta": "Hel", "logprobs": []}),
        ),
        (
            "output_text.delta",
            json!({"item_id": "msg_7_1", "output_index": 1, "content_index": 0, "delta": "lo", "logprobs": []}),
        ),
        (
            "output_text.done",
            json!({"item_id": "msg_7_1", "output_index": 1, "content_index": 0, "text": "Hello", "logprobs": []}),
        ),
        (
            "content_part.done",
            json!({"item_id": "msg_7_1", "output_index": 1, "content_index": 0, "part": part("Hello")}),
        ),
        ("output_item.done", json!({"output_index": 1, "item": message("msg_7_1", "Hello")})),
        ("output_item.added", json!({"output_index": 2, "item": function_call("fc_7_2", "in_progress", "")})),
        (
            "function_call_arguments.delta",
            json!({"item_id": "fc_7_2", "output_index": 2, "delta": "{\"city\":\"Oslo\"}"}),
        ),
        (
            "function_call_arguments.done",
            json!({"item_id": "fc_7_2", "output_index": 2, "name": "weather", "arguments": "{\"city\":\"Oslo\"}"}),
        ),
        (
            "output_item.done",
            json!({"output_index": 2, "item": function_call("fc_7_2", "completed", "{\"city\":\"Oslo\"}")}),
        ),
    ]
}

#[test]
fn a_stream_is_numbered_events_between_created_and_completed() {
    let parts = vec![
        thought("h", ""),
        thought("m", "Hel"),
        said("lo"),
        called("weather", json!({"city": "Oslo"})),
        said("ignored"),
        ChatResponse { created_at: "1970-01-01T00:00:09.5Z".into(), ..done(said(""), DoneReason::Stop) },
    ];
    let told = told(false, parts.into_iter().map(Ok).collect());
    let found: Vec<(&str, Value)> = told[2..told.len() - 1]
        .iter()
        .map(|(name, data)| (name.strip_prefix("response.").unwrap(), data.clone()))
        .collect();
    assert_eq!(found, events_of_items());
    for (at, name, status) in
        [(0, "created", "in_progress"), (1, "in_progress", "in_progress"), (18, "completed", "completed")]
    {
        assert_eq!(
            (&told[at].0, &told[at].1["response"]["status"]),
            (&format!("response.{name}"), &json!(status))
        );
    }
    let last = &told.last().unwrap().1["response"];
    let call = function_call("fc_7_2", "completed", "{\"city\":\"Oslo\"}");
    assert_eq!(last["output"], json!([reasoning("rs_7_0", "hm"), message("msg_7_1", "Hello"), call]));
    assert_eq!((&last["completed_at"], &last["usage"]["total_tokens"]), (&json!(9), &json!(7)));
}

#[test]
fn a_broken_stream_ends_as_failed() {
    let told = told(false, vec![Ok(said("a")), Err(Error::new(Code::Internal, "broken")), Ok(said("b"))]);
    let (name, data) = told.last().unwrap();
    assert_eq!(name, "response.failed");
    assert_eq!(data["response"]["error"], json!({"code": "api_error", "message": "broken"}));
    assert_eq!(data["response"]["output"], json!([message("msg_7_0", "a")]));
}

#[test]
fn a_stream_that_wants_a_search_fails() {
    let told = told(
        true,
        vec![Ok(called("web_search", json!({"query": "q"}))), Ok(done(said(""), DoneReason::Stop))],
    );
    let failure = &told.last().unwrap().1["response"]["error"]["message"];
    assert_eq!((told.len(), failure), (3, &json!("ollama cloud is disabled: web search is unavailable")));
}

/// Every field with values that make sense and some that nearly do.
fn fields() -> Value {
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let result = json!({"type": "function_call_output", "call_id": "c", "output": "x"});
    json!({
        "model": ["m"],
        "input": [
            "hi",
            [{"role": "user", "content": "hi"}],
            [call, {"role": "assistant", "content": "a"}, result],
            [{"type": "reasoning", "encrypted_content": "t"}],
            [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image"}]}],
            [{"type": "function_call", "arguments": "["}]
        ],
        "instructions": ["s"],
        "max_output_tokens": [5],
        "reasoning": [{"effort": "low", "summary": "auto"}, {}],
        "temperature": [0],
        "top_p": [0.5],
        "text": [{"format": {"type": "json_object"}}, {"format": {"type": "json_schema", "schema": {}}}],
        "truncation": ["auto"],
        "tools": [[{"type": "function", "name": "f"}], [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]}], [{"type": "web_search"}]],
        "stream": [true],
        "metadata": [{"a": "b"}],
        "keep_alive": ["5m"],
        "num_ctx": [64]
    })
}

proptest! {
    #[test]
    fn what_is_accepted_is_a_valid_chat(body in any_request(fields())) {
        if let Ok(request) = request(body) {
            let told = serde_json::to_value(Response::begun("resp_7".into(), 5, &request)).unwrap();
            prop_assert_eq!(&told["model"], &json!(request.model));
            if let Ok(chat) = request.to_chat() {
                assert_valid(&chat);
            }
        }
    }

    #[test]
    fn every_stream_ends_as_clients_expect(parts in any_stream(), searches: bool) {
        let told = told(searches, parts);
        let names = names(&told);
        let count = |name: &str| names.iter().filter(|other| **other == name).count();
        prop_assert_eq!(&names[..2], &["response.created", "response.in_progress"]);
        prop_assert_eq!(count("response.completed") + count("response.failed"), 1);
        prop_assert!(["response.completed", "response.failed"].contains(names.last().unwrap()));
        prop_assert_eq!(count("response.output_item.added"), count("response.output_item.done"));
        let items = told.iter().filter(|(name, _)| name == "response.output_item.done");
        let items: Vec<&Value> = items.map(|(_, data)| &data["item"]).collect();
        let output = told.last().unwrap().1["response"]["output"].as_array().unwrap().clone();
        prop_assert_eq!(output.iter().collect::<Vec<_>>(), items);
    }

    #[test]
    fn every_answer_is_a_response(parts in any_stream(), searches: bool) {
        for part in parts.into_iter().flatten() {
            let told = answered(part, searches);
            prop_assert!(told.is_err() && searches || told.is_ok_and(|told| told["status"] == "completed"));
        }
    }
}

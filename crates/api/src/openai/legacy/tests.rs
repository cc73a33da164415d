//! Prompts in, continuations out.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::events::testing::{any_request, any_stream, frames};
use crate::{Options, gojson};

fn translated(extra: Value) -> Result<GenerateRequest> {
    let mut body = json!({"model": "m", "prompt": "p"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    request(body)?.into_generate()
}

fn request(body: Value) -> Result<CompletionRequest> {
    gojson::from_slice(body.to_string().as_bytes())
}

#[test]
fn options_get_the_names_of_ollama() {
    let options = |extra: Value| Value::Object(translated(extra).unwrap().options.unwrap());
    let defaults =
        json!({"frequency_penalty": 0.0, "presence_penalty": 0.0, "temperature": 1.0, "top_p": 1.0});
    assert_eq!(options(json!({})), defaults);
    assert_eq!(options(json!({"stop": 5, "top_p": 0, "n": 3, "echo": true, "best_of": 2})), defaults);
    let given = json!({"max_tokens": 5, "seed": 7, "stop": ["a", "b"], "temperature": 0, "top_p": 0.5, "num_ctx": 64,
        "frequency_penalty": 0.25, "presence_penalty": -0.5});
    let expected = json!({"stop": ["a", "b"], "num_predict": 5, "num_ctx": 64, "seed": 7, "frequency_penalty": 0.25,
        "presence_penalty": -0.5, "temperature": 0.0, "top_p": 0.5});
    assert_eq!(options(given), expected);
    assert_eq!(options(json!({"stop": "end"}))["stop"], json!(["end"]));
}

#[test]
fn what_is_no_option_keeps_its_place() {
    let generate =
        translated(json!({"suffix": "s", "stream": true, "keep_alive": 0, "logprobs": 3})).unwrap();
    assert_eq!((generate.prompt.as_str(), generate.suffix.as_str(), generate.stream), ("p", "s", Some(true)));
    assert_eq!((generate.logprobs, generate.top_logprobs), (true, 3));
    assert!(generate.keep_alive.is_some() && !generate.raw && !generate.debug_render_only);
    for none in [json!({"logprobs": 0}), json!({"logprobs": null}), json!({"logprobs": -1})] {
        let generate = translated(none).unwrap();
        assert_eq!((generate.logprobs, generate.top_logprobs), (false, 0));
    }
}

#[test]
fn what_is_wrong_is_told_in_ollamas_words() {
    let field = |found: &str, field: &str, wanted: &str| {
        format!(
            "json: cannot unmarshal {found} into Go struct field CompletionRequest.{field} of type {wanted}"
        )
    };
    for (extra, message) in [
        (json!({"stop": ["a", 1]}), "invalid type for 'stop' field: float64".to_owned()),
        (json!({"stop": [null]}), "invalid type for 'stop' field: <nil>".to_owned()),
        (json!({"prompt": ["a"]}), field("array", "prompt", "string")),
        (json!({"temperature": "hot"}), field("string", "temperature", "float32")),
        (json!({"max_tokens": 1.5}), field("number 1.5", "max_tokens", "int")),
        (json!({"logprobs": true}), field("bool", "logprobs", "int")),
    ] {
        assert_eq!(translated(extra).map(drop), Err(Error::invalid(message)));
    }
}

fn header(include_usage: bool) -> Header {
    Header { id: "cmpl-1".into(), created: 7, model: "m".into(), include_usage }
}

fn said(text: &str) -> GenerateResponse {
    GenerateResponse { response: text.into(), ..GenerateResponse::default() }
}

fn done(reason: DoneReason) -> GenerateResponse {
    let metrics = Metrics { prompt_eval_count: 3, eval_count: 4, ..Metrics::default() };
    GenerateResponse { done: true, done_reason: Some(reason), metrics, ..said("") }
}

#[test]
fn one_answer_is_a_text() {
    let whole = GenerateResponse { response: "x".into(), ..done(DoneReason::Length) };
    let expected = json!({
        "id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "system_fingerprint": "fp_ollama",
        "choices": [{"text": "x", "index": 0, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    });
    assert_eq!(serde_json::to_value(Completion::new(&header(false), whole)).unwrap(), expected);
    let loaded = serde_json::to_value(Completion::new(&header(false), done(DoneReason::Load))).unwrap();
    assert_eq!(loaded["choices"][0]["finish_reason"], "load");
}

fn streamed(include_usage: bool, parts: Vec<Result<GenerateResponse>>) -> Vec<Value> {
    let mut frames = frames(CompletionStream::new(header(include_usage)), parts);
    assert_eq!(frames.pop(), Some((String::new(), json!("[DONE]"))));
    frames.into_iter().map(|(_, data)| data).collect()
}

#[test]
fn a_stream_ends_with_a_reason() {
    let chunks = streamed(false, vec![Ok(said("a")), Ok(done(DoneReason::Stop)), Ok(said("late"))]);
    let choice = |text: &str, reason: Value| json!([{"text": text, "index": 0, "finish_reason": reason}]);
    assert_eq!(chunks[0]["choices"], choice("a", Value::Null));
    assert_eq!(chunks[1]["choices"], choice("", json!("stop")));
    assert!(chunks.len() == 2 && chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn a_wanted_usage_is_zero_until_the_end() {
    let chunks = streamed(true, vec![Ok(said("a")), Ok(done(DoneReason::Stop))]);
    let usage = |prompt: u64, completion: u64| json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion});
    let told: Vec<&Value> = chunks.iter().map(|chunk| &chunk["usage"]).collect();
    assert_eq!(told, [&usage(0, 0), &usage(0, 0), &usage(3, 4)]);
    assert_eq!(chunks[2]["choices"], json!([]));
}

proptest! {
    #[test]
    fn what_is_accepted_is_a_valid_request(body in any_request(json!({
        "model": ["m"], "prompt": ["p", ""], "stop": ["a", ["b"], [1]], "max_tokens": [1], "temperature": [0.5],
        "top_p": [0, 1], "logprobs": [1, -1], "seed": [7], "suffix": ["s"], "stream": [true], "keep_alive": [-1],
        "frequency_penalty": [0.5], "presence_penalty": [1], "num_ctx": [64], "stream_options": [{"include_usage": true}]
    }))) {
        if let Ok(generate) = request(body).and_then(CompletionRequest::into_generate) {
            let read: GenerateRequest = gojson::from_slice(&serde_json::to_vec(&generate).unwrap()).unwrap();
            prop_assert_eq!(read.prompt, generate.prompt);
            prop_assert_eq!(Options::default().merge(&generate.options.unwrap()), Ok(Vec::new()));
        }
    }

    #[test]
    fn every_stream_ends_as_clients_expect(parts in any_stream(), include_usage: bool) {
        let is_broken = parts.iter().take_while(|part| !part.as_ref().is_ok_and(|part| part.done)).any(Result::is_err);
        let generated = |chat: crate::ollama::ChatResponse| GenerateResponse {
            done: chat.done,
            done_reason: chat.done_reason,
            ..said(&chat.message.content)
        };
        let chunks = streamed(include_usage, parts.into_iter().map(|part| part.map(generated)).collect());
        let finished = chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"].is_string()).count();
        prop_assert_eq!(finished, usize::from(!is_broken));
        prop_assert_eq!(chunks.last().unwrap()["error"].is_object(), is_broken);
    }
}

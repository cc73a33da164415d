//! What Go's decoder forgives, and the words it has for what it does not.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::from_slice;
use super::parse::{MAX_DEPTH, MAX_VALUES};
use crate::error::{Code, Error};
use crate::ollama::{ChatRequest, EmbedRequest, GenerateRequest, Think};
use crate::openai::ChatCompletionRequest;
use crate::{KeepAlive, Result};

fn value(text: &str) -> Result<Value> {
    from_slice(text.as_bytes())
}

fn refusal<'a, T: Deserialize<'a>>(text: &'a str) -> String {
    match from_slice::<T>(text.as_bytes()) {
        Ok(_) => panic!("accepted {text}"),
        Err(error) => {
            assert_eq!(error.code, Code::Invalid);
            error.message
        }
    }
}

#[test]
fn names_match_in_any_case_and_the_unknown_is_skipped() {
    let body = br#"{"MODEL":"a","Keep_Alive":"1m","nonsense":{"model":1},"Options":{"Num_Ctx":1}}"#;
    let request: GenerateRequest = from_slice(body).unwrap();
    assert_eq!(request.model, "a");
    assert_eq!(request.keep_alive, Some(KeepAlive::from_seconds(60.0)));
    assert_eq!(Value::Object(request.options.unwrap()), json!({"Num_Ctx": 1}));
}

#[test]
fn the_last_of_several_wins_unless_it_is_null() {
    let request: GenerateRequest =
        from_slice(br#"{"model":"a","Model":"b","model":"c","model":null,"stream":false,"stream":null}"#)
            .unwrap();
    assert_eq!((request.model.as_str(), request.stream), ("c", Some(false)));
}

#[test]
fn null_is_not_given_wherever_it_stands() {
    let request: GenerateRequest = from_slice(
        br#"{"model":null,"raw":null,"context":null,"images":null,"think":null,"keep_alive":null}"#,
    )
    .unwrap();
    assert!(request.model.is_empty() && request.context.is_empty() && request.think.is_none());
    let request: GenerateRequest = from_slice(b" null ").unwrap();
    assert!(request.model.is_empty());
    let request: ChatRequest = from_slice(br#"{"messages":[null,{"role":"USER","content":null}]}"#).unwrap();
    assert_eq!((request.messages.len(), request.messages[1].role.as_str()), (2, "user"));
}

#[test]
fn only_the_first_value_is_read() {
    for tail in ["", "\n", " {", "}", "x", "\0", "{\"model\":\"b\"}"] {
        let body = format!("{{\"model\":\"a\"}}{tail}");
        assert_eq!(from_slice::<GenerateRequest>(body.as_bytes()).unwrap().model, "a", "{tail:?}");
    }
}

#[test]
fn an_empty_body_is_missing() {
    for body in ["", " ", "\r\n\t "] {
        assert_eq!(refusal::<GenerateRequest>(body), "missing request body");
    }
}

#[test]
fn malformed_json_is_told_in_words_of_go() {
    for (text, message) in [
        ("x", "invalid character 'x' looking for beginning of value"),
        ("}", "invalid character '}' looking for beginning of value"),
        ("\u{e9}", "invalid character 'Ã' looking for beginning of value"),
        ("'a'", r"invalid character '\'' looking for beginning of value"),
        ("\0", r"invalid character '\x00' looking for beginning of value"),
        ("{", "unexpected EOF"),
        ("{\"a", "unexpected EOF"),
        ("{\"a\"", "unexpected EOF"),
        ("{\"a\":", "unexpected EOF"),
        ("{\"a\":1", "unexpected EOF"),
        ("[1,", "unexpected EOF"),
        ("\"\\u12", "unexpected EOF"),
        ("-", "unexpected EOF"),
        ("1.", "unexpected EOF"),
        ("1e", "unexpected EOF"),
        ("tru", "unexpected EOF"),
        ("{]", "invalid character ']' looking for beginning of object key string"),
        ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
        ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair"),
        ("{\"a\":01}", "invalid character '1' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("\"a\nb\"", r"invalid character '\n' in string literal"),
        (r#""\x""#, "invalid character 'x' in string escape code"),
        (r#""\u12g4""#, r"invalid character 'g' in \u hexadecimal character escape"),
        ("-a", "invalid character 'a' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1e+x", "invalid character 'x' in exponent of numeric literal"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("nil", "invalid character 'i' in literal null (expecting 'u')"),
    ] {
        assert_eq!(refusal::<Value>(text), message, "{text:?}");
    }
}

#[test]
fn a_wrong_type_is_told_with_the_path_to_it() {
    for (text, message) in [
        (r#"{"stream":"yes"}"#, "string into Go struct field GenerateRequest.stream of type bool"),
        (r#"{"Model":5}"#, "number into Go struct field GenerateRequest.model of type string"),
        (
            r#"{"top_logprobs":1.5}"#,
            "number 1.5 into Go struct field GenerateRequest.top_logprobs of type int",
        ),
        (r#"{"context":[1,"a"]}"#, "string into Go struct field GenerateRequest.context of type int"),
        (r#"{"context":1}"#, "number into Go struct field GenerateRequest.context of type []int"),
        (
            r#"{"images":"AA=="}"#,
            "string into Go struct field GenerateRequest.images of type []api.ImageData",
        ),
        (
            r#"{"options":[]}"#,
            "array into Go struct field GenerateRequest.options of type map[string]interface {}",
        ),
        ("[]", "array into Go value of type api.GenerateRequest"),
        ("7", "number into Go value of type api.GenerateRequest"),
    ] {
        assert_eq!(refusal::<GenerateRequest>(text), format!("json: cannot unmarshal {message}"), "{text}");
    }
}

#[test]
fn a_type_that_go_decodes_by_hand_is_told_by_the_struct_around_it() {
    for (text, message) in [
        (r#"{"messages":"hi"}"#, "string into Go struct field ChatRequest.messages of type []api.Message"),
        (r#"{"messages":["hi"]}"#, "string into Go struct field ChatRequest.messages of type api.Alias"),
        (
            r#"{"messages":[{"content":[]}]}"#,
            "array into Go struct field ChatRequest.messages.content of type string",
        ),
        (
            r#"{"messages":[{"tool_calls":[{"function":{"name":1}}]}]}"#,
            "number into Go struct field ChatRequest.messages.tool_calls.function.name of type string",
        ),
        (
            r#"{"messages":[{"images":[1]}]}"#,
            "number into Go struct field ChatRequest.messages.images of type api.ImageData",
        ),
    ] {
        assert_eq!(refusal::<ChatRequest>(text), format!("json: cannot unmarshal {message}"), "{text}");
    }
}

#[test]
fn a_plain_nested_type_is_told_by_its_own_name() {
    for (text, message) in [
        (r#"{"messages":[{"role":1}]}"#, "number into Go struct field Message.messages.role of type string"),
        (
            r#"{"messages":[{"tool_calls":[{"function":{"name":1}}]}]}"#,
            "number into Go struct field .messages.tool_calls.function.name of type string",
        ),
        (
            r#"{"stream_options":{"include_usage":1}}"#,
            "number into Go struct field StreamOptions.stream_options.include_usage of type bool",
        ),
        (
            r#"{"stream_options":1}"#,
            "number into Go struct field ChatCompletionRequest.stream_options of type openai.StreamOptions",
        ),
        (
            r#"{"temperature":1e999}"#,
            "number 1e999 into Go struct field ChatCompletionRequest.temperature of type float64",
        ),
    ] {
        assert_eq!(
            refusal::<ChatCompletionRequest>(text),
            format!("json: cannot unmarshal {message}"),
            "{text}"
        );
    }
}

#[test]
fn types_of_our_own_speak_for_themselves() {
    for (text, message) in [
        (r#"{"keep_alive":"60"}"#, "time: missing unit in duration \"60\""),
        (r#"{"keep_alive":[]}"#, "Unsupported type: '[]interface {}'"),
        (
            r#"{"think":"very"}"#,
            r#"invalid think value: "very" (must be "high", "medium", "low", "max", true, or false)"#,
        ),
        (
            r#"{"think":1}"#,
            r#"think must be a boolean or string ("high", "medium", "low", "max", true, or false)"#,
        ),
        (
            r#"{"images":[1]}"#,
            "json: cannot unmarshal number into Go struct field GenerateRequest.images of type api.ImageData",
        ),
        (r#"{"images":["data:x"]}"#, "illegal base64 data at input byte 4"),
    ] {
        assert_eq!(refusal::<GenerateRequest>(text), message);
    }
    assert_eq!(refusal::<EmbedRequest>(r#"{"input":["a",1]}"#), "invalid input type");
    assert_eq!(refusal::<EmbedRequest>(r#"{"input":{}}"#), "invalid input type");
}

#[test]
fn types_of_our_own_take_what_ollama_takes() {
    let request: GenerateRequest =
        from_slice(br#"{"think":"high","keep_alive":-1,"images":["AAE="],"format":"","context":[1,2]}"#)
            .unwrap();
    assert_eq!(request.think, Some(Think::Level("high".into())));
    assert_eq!(request.keep_alive, Some(KeepAlive::FOREVER));
    assert_eq!((request.images[0].0.as_slice(), request.context), (&[0, 1][..], vec![1, 2]));
    let input = |body: &'static str| from_slice::<EmbedRequest>(body.as_bytes()).unwrap().input.0;
    assert_eq!(input(r#"{"input":"a"}"#), ["a"]);
    assert_eq!(input(r#"{"input":["a",""]}"#), ["a", ""]);
    for nothing in [r#"{"input":""}"#, r#"{"input":[]}"#, r#"{"input":null}"#, "{}"] {
        assert!(input(nothing).is_empty());
    }
}

#[test]
fn broken_text_becomes_the_replacement_character() {
    assert_eq!(value(r#""\ud83d\ude00 \/\b\f\n\r\t\"\\""#).unwrap(), json!("😀 /\u{8}\u{c}\n\r\t\"\\"));
    assert_eq!(
        value(r#""\ud83d|\ude00|\ud83dA|\ud83d""#).unwrap(),
        json!("\u{fffd}|\u{fffd}|\u{fffd}A|\u{fffd}")
    );
    assert_eq!(value(r#""\ud83d\ud83d\ude00""#).unwrap(), json!("\u{fffd}😀"));
    assert_eq!(from_slice::<Value>(b"\"a\xffb\xc3\"").unwrap(), json!("a\u{fffd}b\u{fffd}"));
}

#[test]
fn numbers_keep_their_kind() {
    let numbers = value("[0,-0,18446744073709551615,-9223372036854775808,1.0,1e2,-2.5E-1]").unwrap();
    assert_eq!(numbers, json!([0, -0.0, u64::MAX, i64::MIN, 1.0, 100.0, -0.25]));
    assert_eq!(
        refusal::<Value>("1e999"),
        "json: cannot unmarshal number 1e999 into Go value of type float64"
    );
}

#[test]
fn nesting_ends_at_its_bound() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(value(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(refusal::<Value>(&nested(MAX_DEPTH + 1)), "invalid character '[' exceeded max depth");
    assert_eq!(refusal::<Value>(&"{\"a\":".repeat(1_000_000)), "invalid character '{' exceeded max depth");
}

#[test]
fn the_number_of_values_ends_at_its_bound() {
    // One array and what it holds.
    let list = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
    let within: Vec<u8> = from_slice(list(MAX_VALUES).as_bytes()).unwrap();
    assert_eq!(within.len(), MAX_VALUES - 1);
    let error = from_slice::<Vec<u8>>(list(MAX_VALUES + 1).as_bytes()).unwrap_err();
    assert_eq!(error, Error::new(Code::TooLarge, "a request holds at most 4194304 JSON values"));
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
        let _ = from_slice::<Value>(&bytes);
        let _ = from_slice::<ChatRequest>(&bytes);
    }

    #[test]
    fn nothing_that_looks_like_a_request_makes_a_reader_panic(
        text in r#"([{}\[\],:"\\ ]|[0-9.eE+-]|true|null|"model"|"messages"|"content"|"images"|"think"|\\u[dD][89a-f]00){0,40}"#
    ) {
        let _ = from_slice::<ChatRequest>(text.as_bytes());
        let _ = from_slice::<ChatCompletionRequest>(text.as_bytes());
        let _ = from_slice::<EmbedRequest>(text.as_bytes());
    }

    #[test]
    fn what_serde_json_reads_is_read_alike(text in r#"([\[\]{},:]|"[a-z\\/n"]{0,3}"|[0-9.-]{1,4}|true|null| ){0,12}"#) {
        if let Ok(expected) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(value(&text), Ok(expected));
        }
    }

    #[test]
    fn what_is_written_reads_back(text: String, number: f64, integer: i64) {
        let written = super::to_vec(&json!({"text": text, "number": number, "list": [integer]})).unwrap();
        let read: Value = from_slice(&written).unwrap();
        prop_assert_eq!(&read["text"], &json!(text));
        prop_assert_eq!(read["list"][0].as_i64(), Some(integer));
        prop_assert_eq!(read["number"].as_f64(), Some(number).filter(|number| number.is_finite()));
    }
}

//! Grammars over the vocabulary of bytes: which texts they let through, and what they say to bad schemas.

use proptest::prelude::*;

use super::*;

mod schemas;

const END: u32 = 257;

fn grammars() -> Grammars {
    Grammars::new(Arc::new(Tokenizer::bytes()))
}

/// How many bytes of `text` may come, and whether the answer may end after them.
fn walk(grammar: &Grammar, text: &str) -> (usize, bool) {
    let mut constraint = grammar.begin().unwrap();
    for (at, byte) in text.bytes().enumerate() {
        if !constraint.allowed().unwrap().allows(byte.into()) {
            return (at, false);
        }
        constraint.accept(byte.into()).unwrap();
    }
    (text.len(), constraint.allowed().unwrap().allows(END))
}

fn lets_through(grammar: &Grammar, text: &str) -> bool {
    walk(grammar, text) == (text.len(), true)
}

#[test]
fn json_is_an_object_and_ends_when_that_is_closed() {
    let json = grammars().json().unwrap();
    for text in ["{}", r#"{"a":1}"#, r#"{"a": [true, null, -1.5e3], "b": {"c": "d\"é"}}"#, "{\n  \"a\": 1\n}"]
    {
        assert!(lets_through(&json, text), "{text}: {:?}", walk(&json, text));
    }
    for (text, len) in [("[]", 0), (" {", 0), ("{a", 1), (r#"{"a":01"#, 6), (r#"{"a":1}}"#, 7), ("{   ", 2)] {
        assert_eq!(walk(&json, text), (len, false), "{text}");
    }
    assert_eq!(walk(&json, r#"{"a":1"#), (6, false), "it does not end before");
}

#[test]
fn an_answer_has_what_its_schema_asks_for() {
    let schema = r##"{
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "kind": {"enum": ["a", "b"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2}
        },
        "required": ["name", "kind"],
        "additionalProperties": false,
        "$defs": {"tag": {"oneOf": [{"type": "boolean"}, {"type": "null"}]}}
    }"##;
    let grammar = grammars().schema(schema).unwrap();
    for text in
        [r#"{"name":"ab","kind":"a"}"#, r#"{"name": "", "kind": "b", "age": 120, "tags": [true, null]}"#]
    {
        assert!(lets_through(&grammar, text), "{text}: {:?}", walk(&grammar, text));
    }
    for text in [
        "{}",
        r#"{"name":"abcdef","kind":"a"}"#,
        r#"{"name":"ab","kind":"c"}"#,
        r#"{"name":"ab","kind":"a","age":121}"#,
        r#"{"name":"ab","kind":"a","tags":[true,true,true]}"#,
        r#"{"name":"ab","kind":"a","more":1}"#,
    ] {
        assert!(!lets_through(&grammar, text), "{text}");
    }
}

#[test]
fn no_grammar_lets_a_token_through_that_is_not_text() {
    let grammars = grammars();
    let json = grammars.json().unwrap();
    let mut constraint = json.begin().unwrap();
    assert_eq!(constraint.allowed().unwrap().tokens().collect::<Vec<_>>(), [u32::from(b'{')]);
    for token in r#"{"a"#.bytes() {
        constraint.accept(token.into()).unwrap();
    }
    let inside = constraint.allowed().unwrap();
    assert!(!inside.allows(256) && !inside.allows(END) && inside.allows(b'x'.into()));
}

#[test]
fn an_answer_that_ignores_its_end_is_told_nothing_but_ends() {
    let json = grammars().json().unwrap();
    let mut constraint = json.begin().unwrap();
    for token in [u32::from(b'{'), u32::from(b'}'), END, END, END] {
        constraint.accept(token).unwrap();
    }
    assert_eq!(constraint.allowed().unwrap().tokens().collect::<Vec<_>>(), [END]);
    constraint.rewind(4).unwrap();
    assert!(constraint.allowed().unwrap().allows(b'}'.into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_picked_becomes_json(picks in prop::collection::vec(any::<u32>(), 400)) {
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer","minimum":-9,"maximum":5000},"s":{"type":"string","maxLength":20},
            "l":{"type":"array","items":{"type":"boolean"},"maxItems":4}},"required":["n","s","l"],
            "additionalProperties":false}"#;
        let mut constraint = grammars().schema(schema).unwrap().begin().unwrap();
        let mut text = Vec::new();
        for pick in picks {
            let mask = constraint.allowed().unwrap();
            prop_assert!(!mask.is_empty());
            if mask.allows(END) {
                break;
            }
            // Those that close something come more often, so that an end is reached.
            let closing = mask.tokens().find(|token| pick % 4 == 0 && [b'"', b',', b']', b'}'].contains(&(*token as u8)));
            let tokens: Vec<u32> = mask.tokens().collect();
            let token = closing.unwrap_or(tokens[pick as usize % tokens.len()]);
            constraint.accept(token).unwrap();
            text.push(token as u8);
        }
        if constraint.allowed().unwrap().allows(END) {
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            // Not as an integer: `-0` is one in JSON and none in Rust.
            let n = value["n"].as_f64();
            prop_assert!(n.is_some_and(|n| n.fract() == 0.0 && (-9.0..=5000.0).contains(&n)) && value["s"].is_string() && value["l"].is_array());
        }
    }
}

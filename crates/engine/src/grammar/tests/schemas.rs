//! Schemas as clients send them: which answers they let through, and what is said of bad ones.

use super::*;

fn schema(text: &str) -> Grammar {
    grammars().schema(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn let_through(text: &str, answers: &[&str]) {
    let grammar = schema(text);
    for answer in answers {
        assert!(lets_through(&grammar, answer), "{text}: {answer}: {:?}", walk(&grammar, answer));
    }
}

fn keep_out(text: &str, answers: &[&str]) {
    let grammar = schema(text);
    for answer in answers {
        assert!(!lets_through(&grammar, answer), "{text}: {answer}");
    }
}

/// The greedy answer of a model that likes `liked` best, and else what comes first in the vocabulary of bytes; no longer
/// than `most` bytes.
fn greedy(grammar: &Grammar, liked: &[u8], most: usize) -> String {
    let mut constraint = grammar.begin().unwrap();
    let mut text = String::new();
    while text.len() < most {
        let mask = constraint.allowed().unwrap();
        let like = liked.iter().map(|byte| u32::from(*byte)).find(|token| mask.allows(*token));
        let Some(token) = like.or_else(|| mask.tokens().find(|token| *token != END && *token > 31)) else {
            break;
        };
        constraint.accept(token).unwrap();
        text.push(char::from(token as u8));
    }
    text
}

#[test]
fn an_object_has_only_the_keys_that_its_schema_names() {
    let city = r#"{"type":"object","properties":{"city":{"type":"string"},"rank":{"type":"integer"}},"required":["city"]}"#;
    let_through(city, &[r#"{"city":"a"}"#, r#"{"city":"a","rank":1}"#]);
    keep_out(
        city,
        &["{}", r#"{"city":"a","x":1}"#, r#"{"rank":1,"city":"a"}"#, r#"{"city":"a","rank":1,"rank":1}"#],
    );
    let nested = r##"{"type":"object","properties":{"l":{"type":"array","items":{"$ref":"#/$defs/p"}}},"required":["l"],
        "$defs":{"p":{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"]}}}"##;
    let_through(nested, &[r#"{"l":[{"x":1},{"x":2}]}"#]);
    keep_out(nested, &[r#"{"l":[{"x":1,"y":1}]}"#, r#"{"l":[{"y":1}]}"#, r#"{"l":[],"m":1}"#]);
}

#[test]
fn what_a_schema_says_of_other_keys_is_kept() {
    let open = r#"{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":true}"#;
    let_through(open, &[r#"{"a":1,"b":[]}"#, r#"{"b":1}"#]);
    let typed = r#"{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"boolean"}}"#;
    let_through(typed, &[r#"{"a":1,"b":true}"#]);
    keep_out(typed, &[r#"{"b":1}"#]);
    let map = r#"{"additionalProperties":{"type":"integer"}}"#;
    let_through(map, &["{}", r#"{"x":1,"y":2}"#]);
    keep_out(map, &["[]", r#"{"x":"a"}"#]);
    let patterns = r#"{"patternProperties":{"^x":{"type":"integer"}}}"#;
    let_through(patterns, &[r#"{"x1":1}"#]);
    keep_out(patterns, &[r#"{"y":1}"#, r#"{"x":"a"}"#]);
}

#[test]
fn a_schema_without_a_type_is_one_of_what_it_speaks_of() {
    let_through("{}", &["{}", r#"{"a":[1]}"#]);
    keep_out("{}", &["1", "[]"]);
    let_through(r#"{"title":"T","description":"d"}"#, &["{}"]);
    let object = r#"{"properties":{"a":{"items":{"pattern":"^x+$"}},"b":{"minimum":3}},"required":["a"]}"#;
    let_through(object, &[r#"{"a":[]}"#, r#"{"a":["x","xx"],"b":3.5}"#]);
    keep_out(
        object,
        &[
            "[]",
            "1",
            r#""a""#,
            "{}",
            r#"{"a":{}}"#,
            r#"{"a":["y"]}"#,
            r#"{"a":[],"b":2}"#,
            r#"{"a":[],"b":null}"#,
        ],
    );
    let_through(r#"{"prefixItems":[{"type":"integer"}],"items":false,"minItems":1}"#, &["[1]"]);
    keep_out(r#"{"prefixItems":[{"type":"integer"}],"items":false,"minItems":1}"#, &["[]", "{}", "[1,2]"]);
    let referred = r##"{"$ref":"#/definitions/a","definitions":{"a":{"properties":{"b":{"const":1}},"required":["b"]}}}"##;
    let_through(referred, &[r#"{"b":1}"#]);
    keep_out(referred, &["1", "{}", r#"{"b":1,"c":2}"#]);
    let_through(r#"{"enum":[1,"a",null]}"#, &["1", r#""a""#, "null"]);
    let_through(
        r#"{"type":"object","properties":{"any":{"title":"Any"}}}"#,
        &[r#"{"any":[1]}"#, r#"{"any":"a"}"#],
    );
}

#[test]
fn parts_of_one_schema_name_its_keys_together() {
    let both = r##"{"allOf":[{"$ref":"#/$defs/base"},{"type":"object","properties":{"b":{"type":"integer"}},"required":["b"]}],
        "properties":{"c":{"type":"boolean"}},
        "$defs":{"base":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}}"##;
    let_through(both, &[r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2,"c":true}"#]);
    keep_out(both, &[r#"{"a":1}"#, r#"{"a":1,"b":2,"d":1}"#]);
    let used_twice = r##"{"properties":{"whole":{"$ref":"#/$defs/base"},"more":{"allOf":[{"$ref":"#/$defs/base"},{"properties":{"b":{"const":2}}}]}},
        "$defs":{"base":{"properties":{"a":{"const":1}}}}}"##;
    let_through(used_twice, &[r#"{"whole":{"a":1},"more":{"a":1,"b":2}}"#]);
    keep_out(used_twice, &[r#"{"whole":{"a":1,"b":2}}"#, r#"{"more":{"c":1}}"#]);
    let single = r##"{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"properties":{"x":{"const":1}}}}}"##;
    let_through(single, &[r#"{"x":1}"#]);
    keep_out(single, &[r#"{"y":1}"#]);
}

#[test]
fn alternatives_have_keys_of_their_own() {
    let either = r#"{"anyOf":[{"type":"object","properties":{"a":{"const":1}},"required":["a"]},
        {"type":"object","properties":{"b":{"const":2}},"required":["b"]},{"type":"null"}]}"#;
    let_through(either, &[r#"{"a":1}"#, r#"{"b":2}"#, "null"]);
    keep_out(either, &["{}", r#"{"a":1,"b":2}"#, r#"{"c":1}"#]);
    let tagged = r#"{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"],
        "oneOf":[{"properties":{"kind":{"const":"a"},"x":{"const":1}},"required":["kind"]},
                 {"properties":{"kind":{"const":"b"},"y":{"const":2}},"required":["kind"]}]}"#;
    let_through(tagged, &[r#"{"id":1,"kind":"a","x":1}"#, r#"{"id":1,"kind":"b","y":2}"#]);
    keep_out(
        tagged,
        &[
            r#"{"id":1}"#,
            r#"{"id":1,"kind":"a","z":1}"#,
            r#"{"id":1,"kind":"c"}"#,
            r#"{"id":1,"kind":"a","x":2}"#,
        ],
    );
    let one_of_two =
        r#"{"properties":{"a":{"const":1},"b":{"const":2}},"anyOf":[{"required":["a"]},{"required":["b"]}]}"#;
    let_through(one_of_two, &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":1,"b":2}"#]);
    keep_out(one_of_two, &["{}", r#"{"a":1,"c":1}"#]);
}

#[test]
fn references_may_lead_back_and_have_odd_letters() {
    let tree = r##"{"properties":{"name":{"const":"n"},"children":{"type":"array","items":{"$ref":"#"}}},"required":["name"]}"##;
    let_through(tree, &[r#"{"name":"n","children":[{"name":"n"},{"name":"n","children":[]}]}"#]);
    keep_out(tree, &[r#"{"name":"n","children":[{}]}"#, r#"{"name":"n","children":[{"name":"n","x":1}]}"#]);
    let_through(r##"{"anyOf":[{"$ref":"#"},{"type":"null"}]}"##, &["null"]);
    let odd = r##"{"$ref":"#/$defs/A~1B%20C","$defs":{"A/B C":{"const":1}}}"##;
    let_through(odd, &["1"]);
}

#[test]
fn a_key_that_is_required_and_not_described_may_have_any_value() {
    let text = r#"{"properties":{"a":{"const":1}},"required":["a","b"]}"#;
    let_through(text, &[r#"{"a":1,"b":[true]}"#]);
    keep_out(text, &[r#"{"a":1}"#]);
}

#[test]
fn numbers_come_to_an_end() {
    let numbers = r#"{"properties":{"i":{"type":"integer"},"n":{"type":"number"},"m":{"type":"integer","minimum":3},
        "f":{"type":"number","maximum":9.5}},"required":["i","n","m","f"]}"#;
    let grammar = schema(numbers);
    for liked in [&b"0"[..], b"1", b"9", b".1", b"1.0", b"1e", b"1e9", b"-1", b"12E-0", b" 1"] {
        let answer = greedy(&grammar, liked, 300);
        let value: serde_json::Value =
            serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{liked:?}: {answer}: {e}"));
        assert!(["i", "n", "m", "f"].iter().all(|key| value[key].is_number()), "{answer}");
    }
    assert_eq!(greedy(&schema(r#"{"type":"integer"}"#), b"1", 99), "1".repeat(16));
    let_through(r#"{"type":"number"}"#, &["1234567890123456.1234567890123456e-99", "-0.5", "0"]);
    keep_out(r#"{"type":"number"}"#, &["12345678901234567", "0.12345678901234567", "1e100", "1e-100"]);
    keep_out(r#"{"type":"object"}"#, &[r#"{"a":12345678901234567}"#, r#"{"a":[1e100]}"#]);
    let_through(r#"{"type":"object"}"#, &[r#"{"a12345678901234567890":"12345678901234567890"}"#]);
}

#[test]
fn what_a_schema_says_of_a_number_is_kept() {
    let_through(r#"{"type":"integer","minimum":-5,"maximum":120}"#, &["-5", "0", "120"]);
    keep_out(r#"{"type":"integer","minimum":-5,"maximum":120}"#, &["-6", "121", "1.5"]);
    let_through(r#"{"type":"integer","multipleOf":7}"#, &["0", "-14", "21"]);
    keep_out(r#"{"type":"integer","multipleOf":7}"#, &["1", "100"]);
    let end = greedy(&schema(r#"{"type":"integer","multipleOf":7}"#), b"10", 99);
    assert!(end.len() <= 17 && end.parse::<i64>().unwrap() % 7 == 0, "{end}");
    // More digits than ours where the schema asks for them.
    let_through(r#"{"type":"integer","minimum":100000000000000000}"#, &["100000000000000000"]);
    let_through(r#"{"type":"number","multipleOf":0.5,"exclusiveMinimum":1}"#, &["1.5", "2"]);
    keep_out(r#"{"type":"number","multipleOf":0.5,"exclusiveMinimum":1}"#, &["1", "1.7"]);
}

#[test]
fn white_space_comes_to_an_end() {
    let longest = |text: &str| {
        let blanks = |c: &char| c.is_ascii_whitespace();
        text.split(|c: char| !blanks(&c)).map(str::len).max().unwrap_or(0)
    };
    for (grammar, what) in [
        (grammars().json().unwrap(), "json"),
        (
            schema(r#"{"properties":{"a":{"type":"array","items":{"type":"integer"}}},"required":["a"]}"#),
            "schema",
        ),
        (schema(r#"{"type":"array","minItems":2}"#), "array"),
    ] {
        for liked in [&b" "[..], b"\n\t ", b"\n ", b"\t\n\r "] {
            let answer = greedy(&grammar, liked, 200);
            // Inside a text blanks are what the model says.
            let outside: String = answer.split('"').step_by(2).collect::<Vec<_>>().join("\"");
            assert!(longest(&outside) <= 21, "{what}: {answer:?}");
        }
    }
}

#[test]
fn two_thousand_keys_may_be_left_out_and_more_are_refused_with_the_bound() {
    let of = |keys: usize| {
        let keys: Vec<String> = (0..keys).map(|key| format!(r#""k{key}":{{"type":"null"}}"#)).collect();
        format!(r#"{{"properties":{{{}}}}}"#, keys.join(","))
    };
    let_through(&of(2000), &["{}", r#"{"k1999":null}"#, r#"{"k0":null,"k500":null}"#]);
    let error = grammars().schema(&of(2001)).unwrap_err().to_string();
    assert!(error.contains("at most 2000 keys that are not `required`, got 2001"), "{error}");
}

#[test]
fn as_many_keys_may_be_required_as_a_schema_has_room_for() {
    let keys: Vec<String> = (0..9_000).map(|key| format!(r#""k{key}""#)).collect();
    let properties: Vec<String> = keys.iter().map(|key| format!("{key}:{{}}")).collect();
    let text = format!(r#"{{"properties":{{{}}},"required":[{}]}}"#, properties.join(","), keys.join(","));
    // An answer may fail at a bound of its own, but the compiler comes back.
    assert!(grammars().schema(&text).is_ok());
}

#[test]
fn references_that_lead_far_are_refused_with_the_bound() {
    // Each definition leads to the next one, and the last to none.
    let chain = |len: usize, of: fn(usize) -> String| {
        let definitions: Vec<String> = (0..len).map(|at| format!(r#""{at}":{}"#, of(at))).collect();
        format!(r##"{{"$ref":"#/$defs/0","$defs":{{{},"{len}":{{"type":"null"}}}}}}"##, definitions.join(","))
    };
    let list = |at: usize| format!(r##"{{"type":"array","items":{{"$ref":"#/$defs/{}"}}}}"##, at + 1);
    let object = |at: usize| {
        format!(
            r##"{{"properties":{{"a":{{"anyOf":[{{"$ref":"#/$defs/{}"}},{{"type":"null"}}]}}}}}}"##,
            at + 1
        )
    };
    let part = |at: usize| {
        format!(
            r##"{{"allOf":[{{"$ref":"#/$defs/{}"}},{{"properties":{{"p{at}":{{"const":1}}}}}}]}}"##,
            at + 1
        )
    };
    let_through(&chain(300, list), &["[]", "[[[]]]"]);
    let_through(&chain(300, object), &[r#"{"a":{"a":null}}"#]);
    for far in [chain(3_000, list), chain(2_000, object), chain(1_900, part)] {
        let error = grammars().schema(&far).unwrap_err().to_string();
        assert!(error.contains("at most 2000 deep, references followed, got"), "{error}");
    }
}

#[test]
fn schemas_that_multiply_are_refused_with_the_bound() {
    // Every definition names the keys of all that follow it.
    let of = |at: usize| {
        let refs: Vec<String> = (at + 1..400).map(|to| format!(r##"{{"$ref":"#/$defs/{to}"}}"##)).collect();
        let refs = if refs.is_empty() {
            String::new()
        } else {
            format!("{},", refs[..refs.len().min(12)].join(","))
        };
        format!(r#""{at}":{{"allOf":[{refs}{{"properties":{{"p{at}":{{"const":1}}}}}}]}}"#)
    };
    let definitions: Vec<String> = (0..400).map(of).collect();
    let uses: Vec<String> = (0..400).map(|at| format!(r##""u{at}":{{"$ref":"#/$defs/{at}"}}"##)).collect();
    let text = format!(r#"{{"properties":{{{}}},"$defs":{{{}}}}}"#, uses.join(","), definitions.join(","));
    let error = grammars().schema(&text).unwrap_err().to_string();
    assert!(error.contains("at most 50000 parts, references followed"), "{error}");
    // A long key of an alternative is one of each object that has the alternative.
    let key = "k".repeat(100_000);
    let uses: Vec<String> =
        (0..100).map(|at| format!(r##""u{at}":{{"$ref":"#/$defs/d","properties":{{}}}}"##)).collect();
    let text = format!(
        r#"{{"properties":{{{}}},"$defs":{{"d":{{"anyOf":[{{"properties":{{"{key}":{{}}}}}}]}}}}}}"#,
        uses.join(",")
    );
    let error = grammars().schema(&text).unwrap_err().to_string();
    assert!(error.contains("at most 4194304 bytes, references followed"), "{error}");
}

#[test]
fn bad_schemas_are_refused_in_words() {
    let grammars = grammars();
    for (schema, part) in [
        (r#"{"type":"nonsense"}"#, "Invalid type: nonsense"),
        (r#"{"type":7}"#, "type must be a string or array of strings"),
        (r##"{"$ref":"#/nowhere"}"##, "`$ref` leads nowhere: \"#/nowhere\""),
        (r#"{"$ref":"https://example.com/schema.json"}"#, "`$ref` must begin with \"#/\", got"),
        (r##"{"$ref":"#"}"##, "a `$ref` may lead to itself"),
        (r##"{"allOf":[{"$ref":"#"},{"$ref":"#"}]}"##, "must have no other keywords beside it"),
        (r#"{"type":"string","pattern":"("}"#, "`pattern` \"(\": unclosed group"),
        (r#"{"properties":{"a":{"type":"string","pattern":"a(?=b)"}},"required":["a"]}"#, "look-around"),
        (r#"{"type":"integer","minimum":5,"maximum":1}"#, "minimum (5) is greater than maximum (1)"),
        (r#"{"type":"integer","minimum":1e30}"#, "`minimum` and `maximum` must be within"),
        (r#"{"properties":7}"#, "properties must be an object"),
        (r#"{"properties":{"a":7}}"#, "schema must be an object or boolean"),
        ("7", "must be a JSON object"),
    ] {
        let error = grammars.schema(schema).expect_err(schema).to_string();
        assert!(error.starts_with("invalid format: ") && error.contains(part), "{schema}: {error}");
        assert!(!error.contains('\n') && error.len() < 400, "{schema}: {error}");
    }
}

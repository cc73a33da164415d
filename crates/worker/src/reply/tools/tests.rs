//! What is a call and what is text, for the dresses in which models put their calls.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["get_weather", "get", "get_time"];

fn spec(dress: Dress) -> Spec {
    let offers = NAMES.map(|name| Offer { name: name.into(), schema: Value::Null }).to_vec();
    Spec { dress, offers, id_seed: 7 }
}

/// The content of the whole answer, and its calls as `name(arguments)`.
fn parse<'a>(dress: Dress, pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<String>) {
    let mut tools = Tools::new(spec(dress));
    let mut content = String::new();
    let mut calls = Vec::new();
    let mut add = |found: Found| {
        content.push_str(&found.content);
        calls.extend(found.calls);
    };
    pieces.into_iter().for_each(|piece| add(tools.push(piece)));
    add(tools.finish());
    for (at, call) in calls.iter().enumerate() {
        assert_eq!(call.index as usize, at);
    }
    (content, calls.into_iter().map(|call| format!("{}({})", call.name, call.arguments)).collect())
}

fn expect(tag: &str, answer: &str, content: &str, calls: &[&str]) {
    expect_in(&Dress::tagged(tag), answer, content, calls);
}

fn expect_in(dress: &Dress, answer: &str, content: &str, calls: &[&str]) {
    let calls: Vec<String> = calls.iter().map(|call| call.to_string()).collect();
    assert_eq!(parse(dress.clone(), [answer]), (content.to_owned(), calls), "{answer:?} in {dress:?}");
}

/// Llama 3: bare JSON, or anything after a tag.
fn llama() -> Dress {
    Dress { tags: vec!["<|python_tag|>".into()], ..Dress::tagged("{") }
}

#[test]
fn a_call_after_a_tag_is_found_and_the_text_before_it_is_content() {
    let answer = "Let me see.<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
    expect("<tool_call>", answer, "Let me see.", &[r#"get_weather({"city":"Paris"})"#]);
}

#[test]
fn several_calls_come_in_order() {
    let one = r#"<tool_call>{"name":"get_weather","arguments":{"b":1,"a":2}}</tool_call>"#;
    let two = r#"<tool_call>{"name":"get_time","parameters":{}}</tool_call>"#;
    let calls = [r#"get_weather({"b":1,"a":2})"#, "get_time({})"];
    expect("<tool_call>", &format!("{one}\n{two}"), "", &calls);
    let list = r#"[{"name":"get_weather","arguments":{"b":1,"a":2}}, {"name":"get_time"}]"#;
    expect("[", list, "", &calls);
    expect("[TOOL_CALLS]", &format!("[TOOL_CALLS]{list}"), "", &calls);
}

#[test]
fn a_bare_object_is_a_call_when_it_is_the_answer() {
    expect("{", "\n {\"name\":\"get\",\"parameters\":{\"x\":1}}", "", &[r#"get({"x":1})"#]);
}

#[test]
fn objects_in_a_row_are_calls() {
    let answer = r#"{"name":"get","parameters":{"x":1}}; {"name":"get_time","parameters":{}}"#;
    expect("{", answer, "", &[r#"get({"x":1})"#, "get_time({})"]);
}

#[test]
fn text_before_a_bare_object_makes_all_of_it_content() {
    let answer = r#"Sure: {"name":"get","parameters":{}}"#;
    expect("{", answer, answer, &[]);
}

#[test]
fn text_after_a_bare_object_is_content() {
    expect("{", "{\"name\":\"get\",\"parameters\":{}} Done {x}", " Done {x}", &["get({})"]);
}

#[test]
fn an_object_that_is_no_call_is_content() {
    expect("{", " {\"temperature\": 21} ok", " {\"temperature\": 21} ok", &[]);
    expect("{", "{\"name\":\"rm\",\"parameters\":{}}", "{\"name\":\"rm\",\"parameters\":{}}", &[]);
    expect("[", "[1, 2] is a list", "[1, 2] is a list", &[]);
}

#[test]
fn brackets_that_never_close_are_content_unless_a_whole_call_is_in_them() {
    expect("{", "{\"name\":\"get\"", "{\"name\":\"get\"", &[]);
    expect("[", "[{\"name\":\"get\"},", "", &["get({})"]);
}

#[test]
fn a_name_followed_by_an_object_is_a_call() {
    expect("[TOOL_CALLS]", "[TOOL_CALLS]get_weather[ARGS]{\"q\":\"a\"}", "", &[r#"get_weather({"q":"a"})"#]);
    expect("<f>", "<f>get_time {}", "", &["get_time({})"]);
}

#[test]
fn of_names_that_begin_together_the_longest_is_meant() {
    expect("<f>", "<f>get_weather{\"get\":1}", "", &[r#"get_weather({"get":1})"#]);
}

#[test]
fn an_object_under_the_name_of_a_tool_is_a_call() {
    expect("<f>", "<f>{\"get_time\":{\"tz\":\"UTC\"}}", "", &[r#"get_time({"tz":"UTC"})"#]);
}

#[test]
fn a_call_wrapped_in_other_objects_is_found() {
    let answer = r#"<f>{"type":"function","function":{"name":"get","arguments":"{\"x\":1}"}}"#;
    expect("<f>", answer, "", &[r#"get({"x":1})"#]);
}

#[test]
fn the_name_of_the_object_counts_and_not_one_in_its_arguments() {
    let answer = r#"<f>{"arguments":{"say":"get_time"},"name":"get_weather"}"#;
    expect("<f>", answer, "", &[r#"get_weather({"say":"get_time"})"#]);
}

#[test]
fn braces_in_strings_do_not_end_a_call() {
    expect("<f>", r#"<f>{"name":"get","arguments":{"x":"}\"{"}}"#, "", &[r#"get({"x":"}\"{"})"#]);
}

#[test]
fn a_possible_tag_is_held_back() {
    let mut tools = Tools::new(spec(Dress::tagged("<tool_call>")));
    assert_eq!(tools.push("1 <to").content, "1 ");
    assert_eq!(tools.push("e>").content, "<toe>");
    assert_eq!(tools.push("<tool_call").content, "");
    assert_eq!(tools.finish().content, "<tool_call");
}

#[test]
fn a_bare_answer_may_have_a_tag_as_well() {
    let call = r#"{"name": "get", "parameters": {"x": 1}}"#;
    let expected = [r#"get({"x":1})"#];
    expect_in(&llama(), call, "", &expected);
    expect_in(&llama(), &format!("<|python_tag|>{call}"), "", &expected);
    expect_in(&llama(), &format!("Let me look. <|python_tag|>{call}"), "Let me look. ", &expected);
    expect_in(&llama(), &format!("Like this: {call}"), &format!("Like this: {call}"), &[]);
    expect_in(&llama(), "<|python_tag|>print(1)", "<|python_tag|>print(1)", &[]);
}

#[test]
fn distilled_deepseeks_write_the_name_before_a_fence() {
    let one = |name: &str, arguments: &str| {
        format!(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"
        )
    };
    let calls = one("get_weather", r#"{"city": "Paris"}"#) + "\n" + &one("get_time", "{}");
    let answer = format!("Hm.<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>");
    let expected = [r#"get_weather({"city":"Paris"})"#, "get_time({})"];
    expect("<｜tool▁calls▁begin｜>", &answer, "Hm.", &expected);
}

#[test]
fn phi_writes_a_list_between_its_tags() {
    let answer = r#"<|tool_call|>[{"name": "get", "arguments": {"x": 1}}, {"name": "get_time", "arguments": {}}]<|/tool_call|>"#;
    expect("<|tool_call|>", answer, "", &[r#"get({"x":1})"#, "get_time({})"]);
}

#[test]
fn a_coder_writes_tags_with_names_in_them() {
    let one = "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>";
    let two = "<function=get_time>\n</function>";
    let expected = [r#"get_weather({"city":"Paris"})"#, "get_time({})"];
    let coder = Dress::coder();
    let wrapped = format!("I look.\n<tool_call>\n{one}\n</tool_call>\n<tool_call>\n{two}\n</tool_call>");
    expect_in(&coder, &wrapped, "I look.\n", &expected);
    expect_in(&coder, &format!("{one}{two}"), "", &expected);
    expect_in(&coder, "<tool_call> <function=rm></function>", "<tool_call> <function=rm></function>", &[]);
}

#[test]
fn function_gemma_writes_bare_keys_and_marked_texts() {
    let one = "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>";
    let two = "<start_function_call>call:get_time{}<end_function_call>";
    let gemma = Dress::gemma();
    let expected = [r#"get_weather({"city":"Paris"})"#, "get_time({})"];
    expect_in(&gemma, &format!("Well.{one}\n{two}"), "Well.", &expected);
    let unknown = "<start_function_call>call:rm{}<end_function_call>";
    expect_in(&gemma, unknown, unknown, &[]);
}

#[test]
fn what_is_no_call_after_a_tag_is_content_in_the_end() {
    expect(
        "<f>",
        "a <f>{\"name\":\"get\",\"arguments\":{\"x\"",
        "a <f>{\"name\":\"get\",\"arguments\":{\"x\"",
        &[],
    );
    expect("<f>", "<f>{\"a\":1} {broken} tail", "<f>{\"a\":1} {broken} tail", &[]);
    expect("<f>", "<f>{\"a\":1}{\"name\":\"get\"} tail", "", &["get({})"]);
}

#[test]
fn nothing_of_a_call_is_seen_before_it_is_whole() {
    let answer = "Well. <tool_call>{\"name\":\"get\",\"arguments\":{\"x\":\"}\"}}</tool_call>";
    let mut tools = Tools::new(spec(Dress::tagged("<tool_call>")));
    let mut content = String::new();
    for (at, _) in answer.char_indices() {
        let found = tools.push(&answer[at..=at]);
        content.push_str(&found.content);
        let is_whole = answer[..=at].ends_with("}}");
        assert_eq!(found.calls.len(), usize::from(is_whole), "{}", &answer[..=at]);
    }
    assert_eq!(content, "Well. ");
}

#[test]
fn ids_are_the_same_again_and_differ_between_calls_and_seeds() {
    let id = call_id(7, 0);
    assert_eq!(id, call_id(7, 0));
    assert!(id.strip_prefix("call_").is_some_and(|rest| rest.len() == 8), "{id}");
    assert_ne!(id, call_id(7, 1));
    assert_ne!(id, call_id(8, 0));
}

#[test]
fn a_call_nested_deeper_than_json_allows_is_no_call_and_no_panic() {
    let deep = format!("<f>{}{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    expect("<f>", &deep, &deep, &[]);
}

proptest! {
    #[test]
    fn calls_and_content_do_not_depend_on_how_the_text_was_cut(
        parts in proptest::collection::vec(prop_oneof![
            Just("<f>"), Just("<"), Just("{"), Just("}"), Just("["), Just("]"), Just(" "), Just("é"), Just("\""),
            Just(r#"{"name":"get","arguments":{"x":1}}"#), Just("get_time"), Just(r#"{"x":[1]}"#), Just(", "),
            Just("<|python_tag|>"), Just("<tool_call>"), Just("<function=get>"), Just("</function>"),
        ], 0..8),
        dress in prop_oneof![
            Just(Dress::tagged("{")), Just(Dress::tagged("[")), Just(Dress::tagged("<f>")), Just(llama()),
            Just(Dress::coder()),
        ],
        cuts in proptest::collection::vec(0usize..96, 0..6),
    ) {
        let text = parts.concat();
        let pieces = crate::reply::cut(&text, &cuts);
        prop_assert_eq!(parse(dress.clone(), pieces), parse(dress, [text.as_str()]));
    }
}

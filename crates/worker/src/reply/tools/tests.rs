//! What is a call and what is text, for the dresses in which models put their calls.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["get_weather", "get", "get_time"];

fn spec(tag: &str) -> Spec {
    Spec { tag: tag.into(), names: NAMES.map(String::from).to_vec(), id_seed: 7 }
}

/// The content of the whole answer, and its calls as `name(arguments)`.
fn parse<'a>(tag: &str, pieces: impl IntoIterator<Item = &'a str>) -> (String, Vec<String>) {
    let mut tools = Tools::new(spec(tag));
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
    let calls: Vec<String> = calls.iter().map(|call| call.to_string()).collect();
    assert_eq!(parse(tag, [answer]), (content.to_owned(), calls), "{answer:?} after {tag:?}");
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
    let mut tools = Tools::new(spec("<tool_call>"));
    assert_eq!(tools.push("1 <to").content, "1 ");
    assert_eq!(tools.push("e>").content, "<toe>");
    assert_eq!(tools.push("<tool_call").content, "");
    assert_eq!(tools.finish().content, "<tool_call");
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
    expect("<f>", &deep, "", &[]);
}

proptest! {
    #[test]
    fn calls_and_content_do_not_depend_on_how_the_text_was_cut(
        parts in proptest::collection::vec(prop_oneof![
            Just("<f>"), Just("<"), Just("{"), Just("}"), Just("["), Just("]"), Just(" "), Just("é"), Just("\""),
            Just(r#"{"name":"get","arguments":{"x":1}}"#), Just("get_time"), Just(r#"{"x":[1]}"#), Just(", "),
        ], 0..8),
        tag in prop_oneof![Just("{"), Just("["), Just("<f>")],
        cuts in proptest::collection::vec(0usize..96, 0..6),
    ) {
        let text = parts.concat();
        let pieces = crate::reply::cut(&text, &cuts);
        prop_assert_eq!(parse(tag, pieces), parse(tag, [text.as_str()]));
    }
}

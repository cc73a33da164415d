//! What Ollama's decoder says to tools, word for word, and what becomes of those that it takes.

use serde_json::{Value, json};

use crate::Result;
use crate::gojson::from_slice;
use crate::ollama::{ChatRequest, Tool, check_parameters};
use crate::openai::ChatCompletionRequest;

fn chat(tools: &Value) -> Result<Vec<Tool>> {
    let body = json!({ "tools": tools }).to_string();
    Ok(from_slice::<ChatRequest>(body.as_bytes())?.tools)
}

fn openai(tools: &Value) -> Result<Vec<Tool>> {
    let body = json!({ "tools": tools }).to_string();
    Ok(from_slice::<ChatCompletionRequest>(body.as_bytes())?.tools)
}

/// One tool whose property `p` is `property`.
fn with(property: Value) -> Value {
    json!([{"function": {"name": "f", "parameters": {"properties": {"p": property}}}}])
}

#[track_caller]
fn refused(tools: &Value, message: &str) {
    for read in [chat, openai] {
        assert_eq!(read(tools).unwrap_err().message, message, "{tools}");
    }
}

#[test]
fn what_is_no_tool_is_named_with_its_list() {
    let text = |read: fn(&Value) -> Result<Vec<Tool>>, tools: Value| read(&tools).unwrap_err().message;
    for (kind, tools) in [("string", json!("x")), ("object", json!({})), ("number", json!(5))] {
        let native =
            format!("json: cannot unmarshal {kind} into Go struct field ChatRequest.tools of type api.Tools");
        assert_eq!(text(chat, tools.clone()), native);
        let foreign = format!(
            "json: cannot unmarshal {kind} into Go struct field ChatCompletionRequest.tools of type []api.Tool"
        );
        assert_eq!(text(openai, tools.clone()), foreign);
        let tools = if tools.is_object() { json!([[]]) } else { json!([tools]) };
        let kind = if tools[0].is_array() { "array" } else { kind };
        assert_eq!(
            text(chat, tools),
            format!("json: cannot unmarshal {kind} into Go struct field ChatRequest.tools of type api.Tool")
        );
    }
}

#[test]
fn a_wrong_type_inside_a_tool_is_named_with_its_place() {
    for (tool, message) in [
        (json!({"type": 5}), "number into Go struct field Tool.tools.type of type string"),
        (
            json!({"function": "x"}),
            "string into Go struct field Tool.tools.function of type api.ToolFunction",
        ),
        (
            json!({"function": {"name": 5}}),
            "number into Go struct field ToolFunction.tools.function.name of type string",
        ),
        (
            json!({"function": {"description": []}}),
            "array into Go struct field ToolFunction.tools.function.description of type string",
        ),
        (
            json!({"function": {"parameters": "x"}}),
            "string into Go struct field ToolFunction.tools.function.parameters of type api.ToolFunctionParameters",
        ),
        (
            json!({"function": {"parameters": {"type": ["object"]}}}),
            "array into Go struct field ToolFunctionParameters.tools.function.parameters.type of type string",
        ),
        (
            json!({"function": {"parameters": {"required": "x"}}}),
            "string into Go struct field ToolFunctionParameters.tools.function.parameters.required of type []string",
        ),
    ] {
        refused(&json!([tool]), &format!("json: cannot unmarshal {message}"));
    }
}

#[test]
fn a_wrong_type_inside_a_property_is_named_by_the_parameters() {
    const PROPERTIES: &str =
        "into Go struct field ToolFunctionParameters.tools.function.parameters.properties";
    for (property, found, wanted) in [
        (json!(true), "bool", " of type api.ToolProperty"),
        (json!({"type": 5}), "number", ".type of type []string"),
        (json!({"type": {}}), "object", ".type of type []string"),
        (json!({"type": ["string", 5]}), "number", ".type of type string"),
        (json!({"enum": "x"}), "string", ".enum of type []interface {}"),
        (json!({"required": true}), "bool", ".required of type []string"),
        (json!({"anyOf": "x"}), "string", ".anyOf of type []api.ToolProperty"),
        (json!({"anyOf": ["x"]}), "string", ".anyOf of type api.ToolProperty"),
        (
            json!({"properties": {"q": {"description": 1}}}),
            "number",
            ".properties.description of type string",
        ),
        (
            json!({"anyOf": [{"properties": {"q": {"description": 1}}}]}),
            "number",
            ".anyOf.properties.description of type string",
        ),
    ] {
        refused(&with(property), &format!("json: cannot unmarshal {found} {PROPERTIES}{wanted}"));
    }
}

#[test]
fn properties_that_are_no_map_are_refused_as_ollama_does() {
    const NO_MAP: &str = "Value looks like object, but can't find closing '}' symbol";
    for none in [json!([]), json!("x"), json!(5), json!(true)] {
        refused(&json!([{"function": {"parameters": {"properties": none}}}]), NO_MAP);
        refused(&with(json!({"properties": none})), NO_MAP);
    }
}

#[test]
fn a_tool_is_kept_as_it_was_written() {
    let tools = json!([
        {"type": "function", "strict": true, "function": {"parameters": {"type": "object", "additionalProperties": false,
            "$defs": {"X": []}, "properties": {"b": {"type": ["string", "null"], "default": "x", "enum": ["x", 1, null]},
            "a": {"type": "array", "items": {"type": 5}}, "c": {"anyOf": [{"type": "string"}, {}]}, "d": {}}}, "name": "f"}},
        {"type": "function", "function": {"name": "g"}},
        {},
    ]);
    for read in [chat, openai] {
        assert_eq!(Value::from(read(&tools).unwrap()).to_string(), tools.to_string());
        assert_eq!(read(&json!([])).unwrap(), read(&Value::Null).unwrap());
    }
}

#[test]
fn fields_in_another_case_get_their_names_and_properties_keep_theirs() {
    let tools = json!([{"TYPE": "function", "Function": {"Name": "f", "Parameters": {"Type": "object", "Properties": {
        "Type": {"TYPE": "string", "Title": "t"}, "x": {"ANYOF": [{"Type": "string"}]}}}}}]);
    let expected = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
        "Type": {"type": "string", "Title": "t"}, "x": {"anyOf": [{"type": "string"}]}}}}}]);
    assert_eq!(Value::from(chat(&tools).unwrap()), expected);
    assert_eq!(
        check_parameters(tools[0]["Function"]["Parameters"].clone()).unwrap(),
        expected[0]["function"]["parameters"]
    );
}

#[test]
fn a_tool_that_is_null_is_one_of_which_nothing_is_given() {
    let nothing =
        json!({"type": "", "function": {"name": "", "parameters": {"type": "", "properties": null}}});
    assert_eq!(chat(&json!([null])).unwrap(), [nothing]);
}

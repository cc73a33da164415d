//! Turns [`Values`] into what templates see: the shapes, names and text forms of Ollama's own types.
//!
//! One difference: since 0.14 Ollama prints a call, a tool's function and its parameters as Go structs, which no
//! template means. Here they print as JSON, as they did before and as their authors expect.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;

use super::value::{Field, List, Map, Printed, Shape, Struct, Value};
use crate::{Message, Think, ToolCall, Values};

/// JSON nested deeper is cut off with nil. Bodies are parsed with a bound of 128 already.
const MAX_JSON_DEPTH: usize = 128;

const fn field(name: &'static str, json: &'static str) -> Field {
    Field { name, json, optional: false }
}

const fn optional(name: &'static str, json: &'static str) -> Field {
    Field { name, json, optional: true }
}

static MESSAGE: Shape = Shape {
    name: "Message",
    fields: &[
        field("Role", "role"),
        field("Content", "content"),
        optional("Thinking", "thinking"),
        optional("Images", "images"),
        optional("ToolCalls", "tool_calls"),
        optional("ToolName", "tool_name"),
        optional("ToolCallID", "tool_call_id"),
    ],
    printed: Printed::Go,
};

static TOOL_CALL: Shape = Shape {
    name: "ToolCall",
    fields: &[optional("ID", "id"), field("Function", "function")],
    printed: Printed::Json,
};

static CALLED_FUNCTION: Shape = Shape {
    name: "ToolCallFunction",
    fields: &[field("Index", "index"), field("Name", "name"), field("Arguments", "arguments")],
    printed: Printed::Json,
};

static TOOL: Shape = Shape {
    name: "Tool",
    fields: &[field("Type", "type"), optional("Items", "items"), field("Function", "function")],
    printed: Printed::Json,
};

static FUNCTION: Shape = Shape {
    name: "ToolFunction",
    fields: &[field("Name", "name"), field("Description", "description"), field("Parameters", "parameters")],
    printed: Printed::Json,
};

static PARAMETERS: Shape = Shape {
    name: "ToolFunctionParameters",
    fields: &[
        field("Type", "type"),
        optional("Defs", "$defs"),
        optional("Items", "items"),
        optional("Required", "required"),
        field("Properties", "properties"),
    ],
    printed: Printed::Json,
};

pub(super) static PROPERTY: Shape = Shape {
    name: "ToolProperty",
    fields: &[
        optional("AnyOf", "anyOf"),
        optional("Type", "type"),
        optional("Items", "items"),
        optional("Description", "description"),
        optional("Enum", "enum"),
        optional("Properties", "properties"),
        optional("Required", "required"),
    ],
    printed: Printed::Json,
};

/// The data of the mode that has messages.
pub(super) fn conversation(values: &Values, messages: &[Message], system: &str) -> Value {
    let tools = values.tools.iter().map(tool).collect();
    root(
        values,
        vec![
            ("System", Value::text(system)),
            ("Messages", Value::list(messages.iter().map(message).collect())),
            ("Tools", Value::List(List::new(tools, Printed::Json))),
            ("Response", Value::text("")),
        ],
    )
}

/// The data of the modes that have one prompt.
pub(super) fn texts(values: &Values, texts: &[(&'static str, &str)]) -> Value {
    root(values, texts.iter().map(|&(key, text)| (key, Value::text(text))).collect())
}

fn root(values: &Values, entries: Vec<(&'static str, Value)>) -> Value {
    let think = values.think.as_ref();
    let level = match think {
        Some(Think { level, .. }) if !level.is_empty() => level,
        Some(Think { on: true, .. }) => "medium",
        _ => "",
    };
    let thinking = [
        ("Think", Value::Bool(think.is_some_and(Think::is_on))),
        ("ThinkLevel", Value::text(level)),
        ("IsThinkSet", Value::Bool(think.is_some())),
    ];
    let entries = entries.into_iter().chain(thinking).map(|(key, value)| (key.to_owned(), value));
    map(entries.collect(), Printed::Go)
}

fn message(message: &Message) -> Value {
    let images = vec![Value::text(""); message.images];
    let values = vec![
        Value::text(message.role.as_str()),
        Value::text(message.content.as_str()),
        Value::text(message.thinking.as_str()),
        Value::list(images),
        Value::list(message.tool_calls.iter().map(tool_call).collect()),
        Value::text(message.tool_name.as_str()),
        Value::text(message.tool_call_id.as_str()),
    ];
    structure(&MESSAGE, values)
}

fn tool_call(call: &ToolCall) -> Value {
    let arguments = call.arguments.iter().map(|(key, value)| (key.clone(), any(value, MAX_JSON_DEPTH)));
    let function = vec![
        Value::Int(i64::from(call.index)),
        Value::text(call.name.as_str()),
        map(arguments.collect(), Printed::Json),
    ];
    structure(&TOOL_CALL, vec![Value::text(call.id.as_str()), structure(&CALLED_FUNCTION, function)])
}

fn tool(tool: &Json) -> Value {
    let function = &tool["function"];
    let parameters = &function["parameters"];
    let parameters = vec![
        string(&parameters["type"]),
        any(&parameters["$defs"], MAX_JSON_DEPTH),
        any(&parameters["items"], MAX_JSON_DEPTH),
        any(&parameters["required"], MAX_JSON_DEPTH),
        properties(&parameters["properties"], MAX_JSON_DEPTH),
    ];
    let function =
        vec![string(&function["name"]), string(&function["description"]), structure(&PARAMETERS, parameters)];
    let items = any(&tool["items"], MAX_JSON_DEPTH);
    structure(&TOOL, vec![string(&tool["type"]), items, structure(&FUNCTION, function)])
}

fn properties(json: &Json, depth: usize) -> Value {
    let entries = json.as_object().into_iter().flatten();
    let entries =
        entries.filter(|_| depth > 0).map(|(name, value)| (name.clone(), property(value, depth - 1)));
    map(entries.collect(), Printed::Json)
}

fn property(json: &Json, depth: usize) -> Value {
    let types = match &json["type"] {
        Json::Array(types) => types.iter().map(string).collect(),
        Json::String(one) => vec![Value::text(one.as_str())],
        _ => vec![],
    };
    let alternatives = json["anyOf"].as_array().into_iter().flatten();
    let alternatives = alternatives.filter(|_| depth > 0).map(|one| property(one, depth - 1)).collect();
    let values = vec![
        Value::list(alternatives),
        Value::List(List::new(types, Printed::Types)),
        any(&json["items"], depth),
        string(&json["description"]),
        any(&json["enum"], depth),
        properties(&json["properties"], depth),
        any(&json["required"], depth),
    ];
    structure(&PROPERTY, values)
}

fn string(json: &Json) -> Value {
    Value::text(json.as_str().unwrap_or_default())
}

/// Any JSON. Numbers are floats, as Go decodes them, unless a float could not hold all digits.
fn any(json: &Json, depth: usize) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), Some(float)) if float as i64 != int => Value::Int(int),
            (_, float) => Value::Float(float.unwrap_or_default()),
        },
        Json::String(text) => Value::text(text.as_str()),
        _ if depth == 0 => Value::Nil,
        Json::Array(items) => Value::list(items.iter().map(|item| any(item, depth - 1)).collect()),
        Json::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), any(value, depth - 1)));
            map(entries.collect(), Printed::Go)
        }
    }
}

fn map(entries: BTreeMap<String, Value>, printed: Printed) -> Value {
    Value::Map(Rc::new(Map { entries, printed }))
}

fn structure(shape: &'static Shape, values: Vec<Value>) -> Value {
    Value::Struct(Rc::new(Struct { shape, values }))
}

//! The variables that chat templates expect: messages as OpenAI has them, tools, special tokens, switches.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use serde_json::Value as Json;

use super::{strftime, tojson};
use crate::values::Think;
use crate::{Message, ToolCall, Values};

/// JSON nested deeper is cut off with none. Bodies are parsed with a bound of 128 already.
const MAX_JSON_DEPTH: usize = 128;

/// How a template wants its messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Content is a list of typed parts even when there is only text.
    pub always_in_parts: bool,
    /// Content may have parts that are images.
    pub takes_images: bool,
    /// It refuses or forgets system messages; they go to the front of the next user message.
    pub system_in_user: bool,
    /// It looks for the tools in the system message, as a text (Phi 4 mini), and not beside the messages.
    pub tools_in_system: bool,
}

/// The root of the template's variables.
pub(super) fn build(values: &Values, dialect: Dialect) -> Value {
    let today = values.today;
    let messages = values.conversation();
    let messages = if dialect.system_in_user { fold_system(messages) } else { messages };
    let messages = match dialect.tools_in_system && !values.tools.is_empty() {
        true => with_tools(messages, &values.tools, dialect),
        false => messages.iter().map(|one| Value::from_pairs(message(one, dialect))).collect(),
    };
    let tools: Vec<Value> = values.tools.iter().map(|tool| from_json(tool, MAX_JSON_DEPTH)).collect();
    let mut root = vec![
        ("messages", Value::from(messages)),
        // Python passes None where there are none; templates ask `is not none`.
        ("tools", if tools.is_empty() { Value::from(()) } else { Value::from(tools) }),
        ("documents", Value::from(())),
        ("bos_token", Value::from(values.bos_token.as_str())),
        ("eos_token", Value::from(values.eos_token.as_str())),
        ("add_generation_prompt", Value::from(values.add_generation_prompt)),
        ("strftime_now", Value::from_function(move |format: &str| strftime(today, format))),
    ];
    if let Some(think) = &values.think {
        root.push(("enable_thinking", Value::from(think.is_on())));
    }
    if let Some(Think { level, .. }) = values.think.as_ref().filter(|think| !think.level.is_empty()) {
        root.push(("reasoning_effort", Value::from(level.as_str())));
    }
    Value::from_pairs(root)
}

fn fold_system(messages: Vec<Message>) -> Vec<Message> {
    let mut pending = String::new();
    let mut folded = Vec::with_capacity(messages.len());
    for mut message in messages {
        match message.role.as_str() {
            "system" => {
                pending.push_str(if pending.is_empty() { "" } else { "\n" });
                pending.push_str(&message.content);
                continue;
            }
            "user" if !pending.is_empty() => {
                let between = if message.content.is_empty() { "" } else { "\n" };
                message.content = format!("{}{between}{}", std::mem::take(&mut pending), message.content);
            }
            _ => {}
        }
        folded.push(message);
    }
    if !pending.is_empty() {
        folded.push(Message::new("user", pending));
    }
    folded
}

/// Puts the tools into the first system message, and makes one where there is none.
fn with_tools(mut messages: Vec<Message>, tools: &[Json], dialect: Dialect) -> Vec<Value> {
    let first = messages.iter().position(|message| message.role == "system").unwrap_or_else(|| {
        messages.insert(0, Message::new("system", ""));
        0
    });
    // The functions alone: what is around them says nothing.
    let functions = tools.iter().map(|tool| from_json(tool.get("function").unwrap_or(tool), MAX_JSON_DEPTH));
    let text = tojson::compact(&functions.collect());
    let convert = |(at, one): (usize, &Message)| {
        let mut entries = message(one, dialect);
        if at == first {
            // What is nested too deeply for JSON is as good as no tool.
            entries.extend(text.as_deref().ok().map(|text| ("tools", Value::from(text))));
        }
        Value::from_pairs(entries)
    };
    messages.iter().enumerate().map(convert).collect()
}

fn message(message: &Message, dialect: Dialect) -> Vec<(&'static str, Value)> {
    let mut entries =
        vec![("role", Value::from(message.role.as_str())), ("content", content(message, dialect))];
    if !message.thinking.is_empty() {
        // Most templates know the first, some the second.
        entries.push(("reasoning_content", Value::from(message.thinking.as_str())));
        entries.push(("thinking", Value::from(message.thinking.as_str())));
    }
    if !message.tool_calls.is_empty() {
        let calls: Vec<Value> = message.tool_calls.iter().map(tool_call).collect();
        entries.push(("tool_calls", Value::from(calls)));
    }
    if !message.tool_name.is_empty() {
        entries.push(("name", Value::from(message.tool_name.as_str())));
    }
    if !message.tool_call_id.is_empty() {
        entries.push(("tool_call_id", Value::from(message.tool_call_id.as_str())));
    }
    entries
}

fn content(message: &Message, dialect: Dialect) -> Value {
    let images = if dialect.takes_images { message.images } else { 0 };
    if images == 0 && !dialect.always_in_parts {
        return Value::from(message.content.as_str());
    }
    let image = Value::from_pairs([("type", "image")]);
    let text = Value::from_pairs([("type", "text"), ("text", message.content.as_str())]);
    let parts = std::iter::repeat_n(image, images).chain([text]);
    Value::from(parts.collect::<Vec<Value>>())
}

fn tool_call(call: &ToolCall) -> Value {
    let entries = call.arguments.iter().map(|(key, value)| (key.as_str(), from_json(value, MAX_JSON_DEPTH)));
    let arguments = Value::from_object(Arguments(Value::from_pairs(entries)));
    let function = Value::from_pairs([("name", Value::from(call.name.as_str())), ("arguments", arguments)]);
    let mut entries = vec![("type", Value::from("function")), ("function", function)];
    if !call.id.is_empty() {
        entries.insert(0, ("id", Value::from(call.id.as_str())));
    }
    Value::from_pairs(entries)
}

/// The arguments of a call: a mapping, and JSON when printed. Templates for OpenAI's form print them as the text
/// that they are there; templates for Python's form walk them.
#[derive(Debug)]
struct Arguments(Value);

impl Object for Arguments {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get_item(key).ok().filter(|value| !value.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.try_iter().map(Iterator::collect).unwrap_or_default())
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = tojson::compact(&self.0).map_err(|_| std::fmt::Error)?;
        f.write_str(&text)
    }
}

fn from_json(json: &Json, depth: usize) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::from(int),
            (_, Some(int)) => Value::from(int),
            _ => Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::from(text.as_str()),
        _ if depth == 0 => Value::from(()),
        Json::Array(items) => {
            Value::from(items.iter().map(|item| from_json(item, depth - 1)).collect::<Vec<Value>>())
        }
        Json::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), from_json(value, depth - 1))))
        }
    }
}

//! The messages and tools of a request as templates want them.

use api::{Code, Error};
use protocol::v1::{Conversation, Message, ToolCall};
use serde_json::{Map, Value};

use crate::reply::Offer;

pub fn messages(conversation: &Conversation, model: &str) -> Result<Vec<template::Message>, Error> {
    if conversation.messages.is_empty() {
        return Err(Error::invalid("`messages` must not be empty"));
    }
    conversation.messages.iter().map(|message| convert(message, model)).collect()
}

fn convert(message: &Message, model: &str) -> Result<template::Message, Error> {
    if !message.images.is_empty() {
        return Err(Error::new(Code::Invalid, format!("{model} does not support vision")));
    }
    Ok(template::Message {
        role: message.role.clone(),
        content: message.content.clone(),
        thinking: message.thinking.clone(),
        images: 0,
        tool_calls: message.tool_calls.iter().map(tool_call).collect::<Result<_, _>>()?,
        tool_name: message.tool_name.clone(),
        tool_call_id: message.tool_call_id.clone(),
    })
}

fn tool_call(call: &ToolCall) -> Result<template::ToolCall, Error> {
    let arguments: Map<String, Value> = if call.arguments.is_empty() {
        Map::new()
    } else {
        let problem =
            |error| format!("`arguments` of the call of `{}` must be a JSON object: {error}", call.name);
        serde_json::from_str(&call.arguments).map_err(|error| Error::invalid(problem(error)))?
    };
    Ok(template::ToolCall { id: call.id.clone(), index: call.index, name: call.name.clone(), arguments })
}

/// Each is the JSON text of one tool.
pub fn tools(texts: &[String]) -> Result<Vec<Value>, Error> {
    let parse = |(at, text): (usize, &String)| {
        serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("`tools[{at}]` is no JSON: {error}")))
    };
    texts.iter().enumerate().map(parse).collect()
}

/// What the parser of answers must know about a tool: its name, and what its arguments are.
pub fn offer(tool: &Value) -> Option<Offer> {
    let function = tool.get("function")?;
    let name = function.get("name")?.as_str()?.to_owned();
    let schema = function.get("parameters").cloned().unwrap_or_default();
    (!name.is_empty()).then_some(Offer { name, schema })
}

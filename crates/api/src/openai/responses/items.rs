//! The items of a request: what was said, thought and called, turned into messages.

use serde_json::{Map, Value};

use super::super::chat::decode_image_url;
use crate::error::{Error, Result};
use crate::gojson::{self, Fields};
use crate::ollama::{self, Image, Message};

const NO_TYPE: &str = "input item missing required 'type' field";

/// Appends the messages that `input` stands for.
pub fn translate(input: &Value, out: &mut Vec<Message>) -> Result<()> {
    let items = match input {
        Value::Null => return Ok(()),
        Value::String(text) => {
            if !text.is_empty() {
                out.push(said("user", text.clone(), Vec::new()));
            }
            return Ok(());
        }
        Value::Array(items) => items,
        other => return Err(neither("input", other)),
    };
    let mut history = History { messages: out, pending: None };
    for (at, item) in items.iter().enumerate() {
        let next = items.get(at + 1);
        history.add(item, next).map_err(|error| Error::invalid(format!("input[{at}]: {error}")))?;
    }
    history.finish();
    Ok(())
}

/// Messages as they grow.
struct History<'m> {
    messages: &'m mut Vec<Message>,
    /// A thought waits for the message or the call that it led to.
    pending: Option<String>,
}

// === impl History ===

impl History<'_> {
    fn add(&mut self, item: &Value, next: Option<&Value>) -> Result<()> {
        if item.is_null() {
            return Err(Error::invalid(NO_TYPE));
        }
        let fields = |place| {
            let mismatch = || {
                let kind = gojson::kind(item);
                Error::invalid(format!(
                    "json: cannot unmarshal {kind} into Go value of type openai.ResponsesInputItem"
                ))
            };
            Fields::of(item, place).ok_or_else(mismatch)
        };
        let base = fields("")?;
        match base.text("type")? {
            // Clients write a message without its type.
            "" if !base.text("role")?.is_empty() => self.message(base, next),
            "message" => self.message(base, next),
            "function_call" => self.call(fields("ResponsesFunctionCall")?),
            "function_call_output" => self.result(fields("ResponsesFunctionCallOutput")?),
            "reasoning" => {
                let thought = fields("ResponsesReasoningInput")?.text("encrypted_content")?;
                self.pending = Some(thought.to_owned()).filter(|thought| !thought.is_empty());
                Ok(())
            }
            // What was found is told by the message that follows.
            "web_search_call" => Ok(()),
            "" => Err(Error::invalid(NO_TYPE)),
            other => Err(Error::invalid(format!("unknown input item type: {}", gojson::quote(other)))),
        }
    }

    fn message(&mut self, fields: Fields, next: Option<&Value>) -> Result<()> {
        let (content, images) = read_content(fields.value("content"), "content")?;
        let mut message = said(fields.text("role")?, content, images);
        if message.role == "assistant" {
            message.thinking = self.pending.take();
            if let Some(caller) = self.caller(next) {
                // Said between a call and its result: a turn of its own would part the two.
                if !caller.content.is_empty() && !message.content.is_empty() {
                    caller.content.push('\n');
                }
                caller.content.push_str(&message.content);
                caller.images.append(&mut message.images);
                caller.thinking = message.thinking.or(caller.thinking.take());
                return Ok(());
            }
        }
        self.messages.push(message);
        Ok(())
    }

    /// The last message, if it made the call that `next` is the result of.
    fn caller(&mut self, next: Option<&Value>) -> Option<&mut Message> {
        let id = next.filter(|next| next["type"] == "function_call_output")?["call_id"].as_str()?;
        let last = self.messages.last_mut().filter(|last| last.role == "assistant")?;
        let is_caller = !id.is_empty() && last.tool_calls.iter().any(|call| call.id.as_deref() == Some(id));
        is_caller.then_some(last)
    }

    fn call(&mut self, fields: Fields) -> Result<()> {
        let arguments = match fields.text("arguments")? {
            "" => Map::new(),
            json => gojson::from_slice(json.as_bytes()).map_err(|error| {
                Error::invalid(format!("failed to parse function call arguments: {error}"))
            })?,
        };
        let name = fields.text("name")?.to_owned();
        let function = ollama::ToolCallFunction { index: 0, name, arguments };
        let call = ollama::ToolCall { id: some(fields.text("call_id")?), function };
        if self.messages.last().is_none_or(|last| last.role != "assistant") {
            self.messages.push(said("assistant", String::new(), Vec::new()));
        }
        if let Some(last) = self.messages.last_mut() {
            last.tool_calls.push(call);
            last.thinking = self.pending.take().or(last.thinking.take());
        }
        Ok(())
    }

    fn result(&mut self, fields: Fields) -> Result<()> {
        let (content, images) = read_content(fields.value("output"), "output")?;
        let id = some(fields.text("call_id")?);
        let calls = self.messages.iter().rev().flat_map(|message| &message.tool_calls);
        let call = calls.into_iter().find(|call| id.is_some() && call.id == id);
        let tool_name = call.map(|call| call.function.name.clone());
        self.messages.push(Message { tool_name, tool_call_id: id, ..said("tool", content, images) });
        Ok(())
    }

    /// A thought that led to nothing is a turn of its own.
    fn finish(mut self) {
        if let Some(thought) = self.pending.take() {
            let message = said("assistant", String::new(), Vec::new());
            self.messages.push(Message { thinking: Some(thought), ..message });
        }
    }
}

fn said(role: &str, content: String, images: Vec<Image>) -> Message {
    let role = super::super::chat::role(role);
    Message { role, content, images, ..Message::default() }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Text and images of a string or a list of parts; `what` is the field that holds them.
fn read_content(content: &Value, what: &str) -> Result<(String, Vec<Image>)> {
    let parts = match content {
        Value::Null => return Ok(Default::default()),
        Value::String(text) => return Ok((text.clone(), Vec::new())),
        Value::Array(parts) => parts,
        other => return Err(neither(what, other)),
    };
    let (mut content, mut images) = (String::new(), Vec::new());
    for (at, part) in parts.iter().enumerate() {
        read_part(part, &mut content, &mut images)
            .map_err(|error| Error::invalid(format!("{what}[{at}]: {error}")))?;
    }
    Ok((content, images))
}

fn read_part(part: &Value, content: &mut String, images: &mut Vec<Image>) -> Result<()> {
    let fields = Fields::of(part, "ResponsesContent").ok_or_else(|| {
        let kind = gojson::kind(part);
        Error::invalid(format!("json: cannot unmarshal {kind} into Go value of type openai.ResponsesContent"))
    })?;
    match fields.text("type")? {
        "input_text" | "output_text" => content.push_str(fields.text("text")?),
        "input_image" => {
            // An image that OpenAI keeps (`file_id`) is not here.
            match fields.text("image_url")? {
                "" => {}
                url => images.push(decode_image_url(url)?),
            }
        }
        "input_file" => return Err(Error::invalid("file inputs are not currently supported")),
        other => return Err(Error::invalid(format!("unknown content type: {other}"))),
    }
    Ok(())
}

fn neither(what: &str, found: &Value) -> Error {
    let kind = gojson::kind(found);
    Error::invalid(format!(
        "{what} must be a string or array: json: cannot unmarshal {kind} into Go value of type []json.RawMessage"
    ))
}

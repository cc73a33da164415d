//! `POST /v1/chat/completions`, the way in.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::KeepAlive;
use crate::error::{Error, Result};
use crate::gojson::quote;
use crate::ollama::{self, Image, Think, Tool};

/// `keep_alive` and `num_ctx` are Ollama's words, accepted here too because OpenAI's clients let users add fields.
/// What is not named here (`tool_choice`, `n`, `logit_bias`, `user`, ..) is ignored, as Ollama does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.ChatCompletionRequest")]
pub struct ChatCompletionRequest {
    pub model: String,
    pub messages: Vec<Message>,
    pub stream: bool,
    pub stream_options: Option<StreamOptions>,
    pub max_tokens: Option<i64>,
    /// The newer name of `max_tokens`; it wins if both are there.
    pub max_completion_tokens: Option<i64>,
    pub seed: Option<i64>,
    /// A string or a list.
    pub stop: Option<Value>,
    pub temperature: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub top_p: Option<f64>,
    pub response_format: Option<ResponseFormat>,
    #[serde(deserialize_with = "ollama::tool_list")]
    pub tools: Vec<Tool>,
    pub reasoning: Option<Reasoning>,
    pub reasoning_effort: Option<String>,
    pub logprobs: Option<bool>,
    pub top_logprobs: i64,
    pub keep_alive: Option<KeepAlive>,
    pub num_ctx: Option<i64>,
    #[serde(rename = "_debug_render_only")]
    pub debug_render_only: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.StreamOptions")]
pub struct StreamOptions {
    pub include_usage: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.Message")]
pub struct Message {
    pub role: String,
    /// A string, a list of parts, or nothing beside tool calls.
    pub content: Value,
    pub reasoning: String,
    /// The same under the name that DeepSeek gave it.
    pub reasoning_content: String,
    pub tool_calls: Option<Vec<ToolCall>>,
    pub name: String,
    pub tool_call_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "openai.ToolCall")]
pub struct ToolCall {
    pub id: String,
    pub index: u32,
    #[serde(rename = "type")]
    pub kind: String,
    pub function: ToolCallFunction,
}

// Ollama's struct has no name, and so its errors have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "openai.")]
pub struct ToolCallFunction {
    pub name: String,
    /// A JSON object, written as a string.
    pub arguments: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.ResponseFormat")]
pub struct ResponseFormat {
    #[serde(rename = "type")]
    pub kind: String,
    pub json_schema: Option<JsonSchema>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.JsonSchema")]
pub struct JsonSchema {
    pub schema: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.Reasoning")]
pub struct Reasoning {
    pub effort: String,
}

// === impl ChatCompletionRequest ===

impl ChatCompletionRequest {
    /// The same request in Ollama's words.
    pub fn into_chat(self) -> Result<ollama::ChatRequest> {
        if self.messages.is_empty() {
            return Err(Error::invalid("[] is too short - 'messages'"));
        }
        let think = self.think()?;
        let options = self.options();
        let mut messages = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            message.translate(&self.messages, &mut messages)?;
        }
        Ok(ollama::ChatRequest {
            model: self.model,
            messages,
            tools: self.tools,
            stream: Some(self.stream),
            format: self.response_format.and_then(ResponseFormat::into_format),
            keep_alive: self.keep_alive,
            options: Some(options),
            think,
            truncate: None,
            shift: None,
            logprobs: self.logprobs.unwrap_or(false),
            top_logprobs: self.top_logprobs,
            debug_render_only: self.debug_render_only,
        })
    }

    /// `temperature` and `top_p` are 1.0 unless given, whatever the Modelfile says: that is OpenAI's promise.
    fn options(&self) -> Map<String, Value> {
        let stop = match &self.stop {
            Some(Value::String(text)) => Some(json!([text])),
            Some(Value::Array(items)) => {
                Some(items.iter().filter(|item| item.is_string()).cloned().collect())
            }
            _ => None,
        };
        let given = [
            ("stop", stop),
            ("num_predict", self.max_completion_tokens.or(self.max_tokens).map(Value::from)),
            ("num_ctx", self.num_ctx.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("frequency_penalty", self.frequency_penalty.map(Value::from)),
            ("presence_penalty", self.presence_penalty.map(Value::from)),
            ("temperature", Some(self.temperature.unwrap_or(1.0).into())),
            ("top_p", Some(self.top_p.unwrap_or(1.0).into())),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    fn think(&self) -> Result<Option<Think>> {
        match (&self.reasoning, &self.reasoning_effort) {
            (Some(reasoning), _) => think_of_effort(&reasoning.effort),
            (None, Some(effort)) => think_of_effort(effort),
            (None, None) => Ok(None),
        }
    }
}

/// OpenAI's levels, and those that its clients have invented, are more than Ollama's: the nearest is meant.
pub(super) fn think_of_effort(effort: &str) -> Result<Option<Think>> {
    let level = match effort {
        "" => return Ok(None),
        "none" => return Ok(Some(Think::Bool(false))),
        "minimal" => "low",
        "xhigh" | "ultra" => "max",
        level if Think::LEVELS.contains(&level) => level,
        other => {
            return Err(Error::invalid(format!(
                "invalid reasoning value: {} (must be \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\", \"ultra\", \"max\", or \"none\")",
                quote(other)
            )));
        }
    };
    Ok(Some(Think::Level(level.to_owned())))
}

/// In lower case; `developer` is what OpenAI calls `system` since its models think, and no template knows it.
pub(super) fn role(role: &str) -> String {
    match role.to_lowercase() {
        developer if developer == "developer" => "system".to_owned(),
        role => role,
    }
}

impl ResponseFormat {
    fn into_format(self) -> Option<Value> {
        match self.kind.trim().to_lowercase().as_str() {
            "json_object" => Some("json".into()),
            "json_schema" => self.json_schema.map(|json_schema| json_schema.schema),
            _ => None,
        }
    }
}

// === impl Message ===

impl Message {
    /// Appends this message to `out`: every part of its content becomes a message of its own. `all` are the messages
    /// of the request, where the name of the tool that a `tool` message answers is found.
    fn translate(&self, all: &[Message], out: &mut Vec<ollama::Message>) -> Result<()> {
        let first = out.len();
        match &self.content {
            Value::String(text) => out.push(self.part(text.clone(), None)),
            Value::Array(parts) => {
                for part in parts {
                    let (text, image) = read_part(part)?;
                    out.push(self.part(text, image));
                }
            }
            Value::Null if self.tool_calls.is_some() => out.push(self.part(String::new(), None)),
            other => {
                let kind = go_type(other);
                return Err(Error::invalid(format!("invalid message content type: {kind}")));
            }
        }
        let tool_calls =
            self.tool_calls.iter().flatten().map(ToolCall::translate).collect::<Result<Vec<_>>>()?;
        if out.len() == first && !tool_calls.is_empty() {
            out.push(self.part(String::new(), None));
        }
        // What belongs to the turn and not to one of its parts goes with the last.
        if let Some(last) = out[first..].last_mut() {
            last.tool_calls = tool_calls;
            let thoughts = [&self.reasoning, &self.reasoning_content];
            last.thinking = thoughts.into_iter().find(|text| !text.is_empty()).cloned();
            last.tool_name = self.tool_name(all);
            last.tool_call_id = Some(self.tool_call_id.clone()).filter(|id| !id.is_empty());
        }
        Ok(())
    }

    fn part(&self, content: String, image: Option<Image>) -> ollama::Message {
        let images = image.into_iter().collect();
        ollama::Message { role: role(&self.role), content, images, ..ollama::Message::default() }
    }

    /// Which tool a `tool` message comes from: as it says itself, or as the call that it answers says.
    fn tool_name(&self, all: &[Message]) -> Option<String> {
        if !self.role.eq_ignore_ascii_case("tool") {
            return None;
        }
        if !self.name.is_empty() {
            return Some(self.name.clone());
        }
        let calls = all.iter().rev().flat_map(|message| message.tool_calls.iter().flatten());
        let call = calls.into_iter().find(|call| !call.id.is_empty() && call.id == self.tool_call_id)?;
        Some(call.function.name.clone())
    }
}

impl ToolCall {
    fn translate(&self) -> Result<ollama::ToolCall> {
        let arguments = serde_json::from_str::<Option<_>>(&self.function.arguments)
            .map_err(|_| Error::invalid("invalid tool call arguments"))?
            .unwrap_or_default();
        let function =
            ollama::ToolCallFunction { index: self.index, name: self.function.name.clone(), arguments };
        Ok(ollama::ToolCall { id: Some(self.id.clone()).filter(|id| !id.is_empty()), function })
    }
}

/// The text or the image (a sound travels as one, too) of one part.
fn read_part(part: &Value) -> Result<(String, Option<Image>)> {
    let wrong = || Error::invalid("invalid message format");
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    match part["type"].as_str() {
        Some("text") => Ok((text(&part["text"])?, None)),
        Some("image_url") => {
            let image_url = &part["image_url"];
            let url = if image_url.is_object() { text(&image_url["url"])? } else { text(image_url)? };
            Ok((String::new(), Some(decode_image_url(&url)?)))
        }
        Some("input_audio") => Ok((String::new(), Some(read_sound(&part["input_audio"])?))),
        _ => Err(wrong()),
    }
}

fn read_sound(audio: &Value) -> Result<Image> {
    if !audio.is_object() {
        return Err(Error::invalid("invalid input_audio format"));
    }
    let data = audio["data"].as_str();
    let data = data.ok_or_else(|| Error::invalid("invalid input_audio format: missing data"))?;
    Image::from_base64(data).map_err(|at| {
        Error::invalid(format!("invalid input_audio base64 data: illegal base64 data at input byte {at}"))
    })
}

/// Only data URLs: fetching an address for a client would let it look into the network of the server.
pub(super) fn decode_image_url(url: &str) -> Result<Image> {
    const PREFIXES: [&str; 5] = [
        "data:image/jpeg;base64,",
        "data:image/jpg;base64,",
        "data:image/png;base64,",
        "data:image/webp;base64,",
        "data:;base64,",
    ];
    if url.starts_with("http://") || url.starts_with("https://") {
        return Err(Error::invalid(
            "image URLs are not currently supported, please use base64 encoded data instead",
        ));
    }
    let data = PREFIXES.iter().find_map(|prefix| url.strip_prefix(prefix));
    let image = data.and_then(|data| Image::from_base64(data).ok());
    image.ok_or_else(|| Error::invalid("invalid image input"))
}

/// What Go prints for the type of a decoded value.
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

//! `POST /v1/messages`, the way in.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::WEB_SEARCH;
use crate::KeepAlive;
use crate::error::{Error, Result};
use crate::gojson::{self, Fields};
use crate::ollama::{self, Image, Think};

/// What errors call the place of a block; Go's decoder does not tell of the list that it stands in.
const BLOCK: &str = "MessagesRequest.messages";
/// About as many bytes as a token has, for a count that must be told before there is one.
const BYTES_PER_TOKEN: usize = 4;

/// `keep_alive` and `num_ctx` are Ollama's words, accepted here too. What is not named (`tool_choice`, `metadata`,
/// ..) is ignored, as Ollama does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "anthropic.MessagesRequest")]
pub struct MessagesRequest {
    pub model: String,
    pub max_tokens: i64,
    pub messages: Vec<MessageParam>,
    /// A string, or a list of text blocks; anything else says nothing.
    pub system: Value,
    pub stream: bool,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<i64>,
    pub stop_sequences: Vec<String>,
    pub tools: Vec<Tool>,
    pub thinking: Option<Thinking>,
    pub output_config: Option<OutputConfig>,
    pub keep_alive: Option<KeepAlive>,
    pub num_ctx: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "anthropic.MessageParam")]
pub struct MessageParam {
    pub role: String,
    /// A string or a list of blocks.
    pub content: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "anthropic.Tool")]
pub struct Tool {
    /// `custom` or nothing for the client's own, `web_search_<date>` for the one that the server would run.
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub description: String,
    pub input_schema: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "anthropic.ThinkingConfig")]
pub struct Thinking {
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "anthropic.OutputConfig")]
pub struct OutputConfig {
    pub effort: String,
}

// === impl MessagesRequest ===

impl MessagesRequest {
    /// Whether the request has the tool that only a server with a search engine could run.
    pub fn wants_web_search(&self) -> bool {
        self.tools.iter().any(Tool::is_web_search)
    }

    /// What a stream says of the prompt before it is counted.
    pub fn estimated_tokens(&self) -> u64 {
        let blocks = |content: &Value| match content {
            Value::String(text) => text.len(),
            Value::Array(blocks) => blocks.iter().map(block_bytes).sum(),
            _ => 0,
        };
        let turns = self.messages.iter().map(|turn| turn.role.len() + blocks(&turn.content));
        let tools = self.tools.iter().map(|tool| {
            let schema = if tool.input_schema.is_null() { 0 } else { tool.input_schema.to_string().len() };
            tool.name.len() + tool.description.len() + schema
        });
        let bytes = blocks(&self.system) + turns.sum::<usize>() + tools.sum::<usize>();
        (bytes / BYTES_PER_TOKEN).max(1) as u64
    }

    /// The same request in Ollama's words.
    pub fn into_chat(self) -> Result<ollama::ChatRequest> {
        if self.model.is_empty() {
            return Err(Error::invalid("model is required"));
        }
        if self.max_tokens <= 0 {
            return Err(Error::invalid("max_tokens is required and must be positive"));
        }
        if self.messages.is_empty() {
            return Err(Error::invalid("messages is required"));
        }
        let mut messages: Vec<_> = self.system_message().into_iter().collect();
        for turn in &self.messages {
            turn.translate(&mut messages)?;
        }
        name_tools(&mut messages);
        let searches = self.wants_web_search();
        // A tool of the client's that has the name of the built-in one could not be told from it.
        let is_clear = |tool: &&Tool| !searches || tool.is_web_search() || tool.name != WEB_SEARCH;
        let tools = self.tools.iter().filter(is_clear).map(Tool::translate).collect::<Result<_>>()?;
        Ok(ollama::ChatRequest {
            messages,
            tools,
            stream: Some(self.stream),
            options: Some(self.options()),
            think: self.think(),
            keep_alive: self.keep_alive,
            model: self.model,
            ..ollama::ChatRequest::default()
        })
    }

    fn system_message(&self) -> Option<ollama::Message> {
        let content = match &self.system {
            Value::String(text) => text.clone(),
            Value::Array(blocks) => blocks.iter().filter_map(text_of).collect(),
            _ => String::new(),
        };
        let message = ollama::Message { role: "system".to_owned(), content, ..ollama::Message::default() };
        (!message.content.is_empty()).then_some(message)
    }

    /// Unlike OpenAI's routes, this one leaves to the Modelfile what the request does not say.
    fn options(&self) -> Map<String, Value> {
        let stop = Some(&self.stop_sequences).filter(|stop| !stop.is_empty());
        let given = [
            ("num_predict", Some(self.max_tokens.into())),
            ("num_ctx", self.num_ctx.map(Value::from)),
            ("temperature", self.temperature.map(Value::from)),
            ("top_p", self.top_p.map(Value::from)),
            ("top_k", self.top_k.map(Value::from)),
            ("stop", stop.map(|stop| json!(stop))),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    fn think(&self) -> Option<Think> {
        match self.thinking.as_ref().map(|thinking| thinking.kind.as_str()) {
            Some("enabled") => return Some(Think::Bool(true)),
            Some("disabled") => return Some(Think::Bool(false)),
            // `adaptive`, and whatever comes next, leaves it to the effort.
            _ => {}
        }
        let effort = self.output_config.as_ref()?.effort.trim().to_lowercase();
        let level = if effort == "xhigh" { "high".to_owned() } else { effort };
        Think::LEVELS.contains(&level.as_str()).then_some(Think::Level(level))
    }
}

// === impl MessageParam ===

impl MessageParam {
    /// Appends this turn to `out`. The results of tools become messages of their own; a user's come before what the
    /// user says, since they answer the turn before.
    fn translate(&self, out: &mut Vec<ollama::Message>) -> Result<()> {
        let role = self.role.to_lowercase();
        let mut turn = ollama::Message { role, ..ollama::Message::default() };
        let mut results = Vec::new();
        match &self.content {
            Value::Null => {}
            Value::String(text) => turn.content.clone_from(text),
            Value::Array(blocks) => {
                for block in blocks {
                    read_block(block, &mut turn, &mut results)?;
                }
            }
            other => {
                let kind = gojson::kind(other);
                return Err(Error::invalid(format!(
                    "json: cannot unmarshal {kind} into Go struct field {BLOCK} of type []anthropic.ContentBlock"
                )));
            }
        }
        if turn.role == "user" {
            out.append(&mut results);
        }
        let thinks = turn.thinking.as_ref().is_some_and(|text| !text.is_empty());
        if thinks || !(turn.content.is_empty() && turn.images.is_empty() && turn.tool_calls.is_empty()) {
            out.push(turn);
        }
        out.append(&mut results);
        Ok(())
    }
}

/// Adds one block to the turn that it is part of, or to the results of tools.
fn read_block(block: &Value, turn: &mut ollama::Message, results: &mut Vec<ollama::Message>) -> Result<()> {
    if block.is_null() {
        return Ok(());
    }
    let Some(fields) = Fields::of(block, BLOCK) else {
        let kind = gojson::kind(block);
        return Err(Error::invalid(format!(
            "json: cannot unmarshal {kind} into Go struct field {BLOCK} of type anthropic.ContentBlock"
        )));
    };
    match fields.text("type")? {
        "text" => turn.content.push_str(fields.text("text")?),
        "image" => turn.images.push(read_image(fields.value("source"), "invalid image source")?),
        "thinking" => turn.thinking = Some(fields.text("thinking")?.to_owned()),
        kind @ ("tool_use" | "server_tool_use") => {
            let (id, name) = (fields.text("id")?, fields.text("name")?);
            for (field, value) in [("id", id), ("name", name)] {
                if kind == "tool_use" && value.is_empty() {
                    return Err(Error::invalid(format!("tool_use block missing required '{field}' field")));
                }
            }
            let arguments = fields.object("input")?;
            let function = ollama::ToolCallFunction { index: 0, name: name.to_owned(), arguments };
            turn.tool_calls.push(ollama::ToolCall { id: Some(id.to_owned()), function });
        }
        "tool_result" => {
            let (content, images) = read_result(fields.value("content"))?;
            results.push(result(fields.text("tool_use_id")?, content, images));
        }
        "web_search_tool_result" => {
            let content = describe_search(fields.value("content"));
            results.push(result(fields.text("tool_use_id")?, content, Vec::new()));
        }
        _ => {}
    }
    Ok(())
}

fn result(id: &str, content: String, images: Vec<Image>) -> ollama::Message {
    let tool_call_id = Some(id.to_owned()).filter(|id| !id.is_empty());
    ollama::Message { role: "tool".to_owned(), content, images, tool_call_id, ..ollama::Message::default() }
}

/// What a tool brought: text, or blocks of text and images. Other blocks say nothing to a model.
fn read_result(content: &Value) -> Result<(String, Vec<Image>)> {
    let blocks = match content {
        Value::String(text) => return Ok((text.clone(), Vec::new())),
        Value::Array(blocks) => blocks,
        _ => return Ok(Default::default()),
    };
    let images = blocks.iter().filter(|block| block["type"] == "image");
    let images = images.map(|block| read_image(&block["source"], "invalid tool_result image source"));
    Ok((blocks.iter().filter_map(text_of).collect(), images.collect::<Result<_>>()?))
}

fn text_of(block: &Value) -> Option<&str> {
    block["text"].as_str().filter(|_| block["type"] == "text")
}

/// Only data that came along: fetching an address for a client would let it look into the network of the server.
fn read_image(source: &Value, missing: &str) -> Result<Image> {
    let fields =
        Fields::of(source, "MessagesRequest.messages.source").ok_or_else(|| Error::invalid(missing))?;
    match fields.text("type")? {
        "base64" => Image::from_base64(fields.text("data")?).map_err(|at| {
            Error::invalid(format!("invalid base64 image data: illegal base64 data at input byte {at}"))
        }),
        other => Err(Error::invalid(format!(
            "invalid image source type: {other}. Only base64 images are supported."
        ))),
    }
}

/// What a search of an earlier turn found, as a model reads it.
fn describe_search(content: &Value) -> String {
    let failure = |error: &Value| match error["error_code"].as_str() {
        Some(code) if !code.is_empty() => format!("web_search_tool_result_error: {code}"),
        _ => "web_search_tool_result_error".to_owned(),
    };
    let is_failure = |item: &&Value| item["type"] == "web_search_tool_result_error";
    match content {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => match items.iter().find(is_failure) {
            Some(error) => failure(error),
            None => {
                let hits = items.iter().filter(|item| item["type"] == "web_search_result");
                let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
                hits.map(|hit| format!("- {}: {}\n", text(hit, "title"), text(hit, "url"))).collect()
            }
        },
        error if is_failure(&error) => failure(error),
        other => other.to_string(),
    }
}

/// Results carry the id of their call only; templates ask for the name of the tool as well.
fn name_tools(messages: &mut [ollama::Message]) {
    for at in 0..messages.len() {
        let (before, rest) = messages.split_at_mut(at);
        let Some(id) = rest[0].tool_call_id.as_ref() else { continue };
        let calls = before.iter().rev().flat_map(|message| &message.tool_calls);
        let call = calls.into_iter().find(|call| call.id.as_ref() == Some(id));
        rest[0].tool_name = call.map(|call| call.function.name.clone());
    }
}

fn block_bytes(block: &Value) -> usize {
    match block["type"].as_str() {
        Some("tool_use" | "tool_result") => block.to_string().len(),
        _ => ["text", "thinking"].iter().map(|key| block[key].as_str().map_or(0, str::len)).sum(),
    }
}

// === impl Tool ===

impl Tool {
    fn is_web_search(&self) -> bool {
        self.kind.starts_with(WEB_SEARCH)
    }

    fn translate(&self) -> Result<ollama::Tool> {
        if self.is_web_search() {
            return Ok(json!({"type": "function", "function": {
                "name": WEB_SEARCH,
                "description": "Looks for current information on the web.",
                "parameters": {"type": "object", "required": ["query"], "properties": {
                    "query": {"type": "string", "description": "What to look for"}}}
            }}));
        }
        let parameters = match &self.input_schema {
            Value::Null => json!({"type": "object", "properties": {}}),
            schema => ollama::check_parameters(schema.clone()).map_err(|error| {
                let name = gojson::quote(&self.name);
                Error::invalid(format!("invalid input_schema for tool {name}: {error}"))
            })?,
        };
        let mut function = Map::new();
        function.insert("name".to_owned(), self.name.clone().into());
        if !self.description.is_empty() {
            function.insert("description".to_owned(), self.description.clone().into());
        }
        function.insert("parameters".to_owned(), parameters);
        Ok(json!({"type": "function", "function": function}))
    }
}

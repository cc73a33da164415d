//! `POST /v1/messages`, the way out: one message.

use serde::Serialize;
use serde_json::{Map, Value};

use super::WEB_SEARCH;
use crate::ollama::{self, ChatResponse, DoneReason, Metrics, ToolCall};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MessagesResponse {
    /// `msg_<24 hexadecimal digits>`.
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub role: &'static str,
    pub model: String,
    /// `null` when an answer has nothing to say, as in Ollama.
    pub content: Option<Vec<Block>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
    pub usage: Usage,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text { text: String },
    Thinking { thinking: String },
    ToolUse { id: String, name: String, input: Map<String, Value> },
    ServerToolUse { id: String, name: &'static str, input: Map<String, Value> },
    WebSearchToolResult { tool_use_id: String, content: SearchFailure },
}

/// Why a search of the web brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SearchFailure {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub error_code: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndTurn,
    MaxTokens,
    StopSequence,
    ToolUse,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
}

impl MessagesResponse {
    /// `searches` when the request had the built-in tool, which a call of its name then means.
    pub fn new(id: String, response: ChatResponse, searches: bool) -> MessagesResponse {
        let ollama::Message { content, thinking, tool_calls, .. } = response.message;
        let mut blocks = Vec::new();
        if let Some(thinking) = thinking.filter(|text| !text.is_empty()) {
            blocks.push(Block::Thinking { thinking });
        }
        if !content.is_empty() {
            blocks.push(Block::Text { text: content });
        }
        let search = tool_calls.iter().find(|call| searches && is_search(call));
        let stop_reason = match search {
            Some(call) => {
                blocks.extend(refused_search(&id, call));
                Some(StopReason::EndTurn)
            }
            None => {
                let reason = StopReason::new(response.done_reason, !tool_calls.is_empty());
                blocks.extend(tool_calls.into_iter().map(Block::from));
                reason
            }
        };
        MessagesResponse {
            id,
            kind: "message",
            role: "assistant",
            model: response.model,
            content: Some(blocks).filter(|blocks| !blocks.is_empty()),
            stop_reason,
            usage: Usage::from(response.metrics),
        }
    }
}

impl StopReason {
    pub(super) fn new(reason: Option<DoneReason>, has_tool_calls: bool) -> Option<StopReason> {
        if has_tool_calls {
            return Some(StopReason::ToolUse);
        }
        Some(match reason? {
            DoneReason::Stop => StopReason::EndTurn,
            DoneReason::Length => StopReason::MaxTokens,
            DoneReason::Load | DoneReason::Unload => StopReason::StopSequence,
        })
    }
}

impl From<Metrics> for Usage {
    fn from(metrics: Metrics) -> Usage {
        Usage { input_tokens: metrics.prompt_eval_count, output_tokens: metrics.eval_count }
    }
}

impl From<ToolCall> for Block {
    fn from(call: ToolCall) -> Block {
        let ollama::ToolCallFunction { name, arguments, .. } = call.function;
        Block::ToolUse { id: call.id.unwrap_or_default(), name, input: arguments }
    }
}

pub(super) fn is_search(call: &ToolCall) -> bool {
    call.function.name == WEB_SEARCH
}

/// A search that the model asked for, and that nobody can do for it here.
pub(super) fn refused_search(message_id: &str, call: &ToolCall) -> [Block; 2] {
    let query = call.function.arguments.get("query").and_then(Value::as_str).unwrap_or_default();
    let error_code = if query.is_empty() { "invalid_request" } else { "unavailable" };
    let id = format!("srvtoolu_{}", message_id.trim_start_matches("msg_"));
    let input = Map::from_iter([("query".to_owned(), query.into())]);
    let content = SearchFailure { kind: "web_search_tool_result_error", error_code };
    [
        Block::ServerToolUse { id: id.clone(), name: WEB_SEARCH, input },
        Block::WebSearchToolResult { tool_use_id: id, content },
    ]
}

//! `POST /v1/chat/completions`, the way out: one answer, or the chunks that [`super::Stream`] makes.

use serde::Serialize;

use super::SYSTEM_FINGERPRINT;
use super::chat::{ToolCall, ToolCallFunction};
use super::stream::Header;
use crate::ollama::{self, ChatResponse, DebugInfo, DoneReason, Logprob};

#[derive(Clone, Debug, Serialize)]
pub struct ChatCompletion {
    pub id: String,
    pub object: &'static str,
    pub created: i64,
    pub model: String,
    pub system_fingerprint: &'static str,
    pub choices: Vec<Choice>,
    pub usage: Usage,
    #[serde(rename = "_debug_info", skip_serializing_if = "Option::is_none")]
    pub debug_info: Option<DebugInfo>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    pub index: u32,
    pub message: Delta,
    pub finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Logprobs>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Chunk {
    pub id: String,
    pub object: &'static str,
    pub created: i64,
    pub model: String,
    pub system_fingerprint: &'static str,
    pub choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ChunkChoice {
    pub index: u32,
    pub delta: Delta,
    pub finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Logprobs>,
}

/// A message, or the part of one that a chunk adds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The same under the name that DeepSeek gave it, which is where many clients look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Logprobs {
    pub content: Vec<Logprob>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
    /// Ollama has no such field; it is left out when there is nothing to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PromptTokensDetails {
    /// What of the prompt did not have to be computed.
    pub cached_tokens: u64,
}

impl ChatCompletion {
    /// The id of `header` is `chatcmpl-<number>`.
    pub fn new(header: &Header, response: ChatResponse) -> ChatCompletion {
        let message = response.message;
        let tool_calls: Vec<ToolCall> = message.tool_calls.iter().map(ToolCall::from).collect();
        let choice = Choice {
            index: 0,
            finish_reason: finish_reason(response.done_reason, !tool_calls.is_empty()),
            logprobs: response.logprobs.map(|content| Logprobs { content }),
            message: Delta {
                role: Some("assistant"),
                content: Some(message.content),
                tool_calls,
                ..Delta::thought(message.thinking.unwrap_or_default())
            },
        };
        ChatCompletion {
            id: header.id.clone(),
            object: "chat.completion",
            created: header.created,
            model: response.model,
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices: vec![choice],
            usage: Usage::from(response.metrics),
            debug_info: response.debug_info,
        }
    }
}

impl Delta {
    /// Thoughts under both of their names, or nothing.
    pub(super) fn thought(thinking: String) -> Delta {
        let reasoning = Some(thinking).filter(|text| !text.is_empty());
        Delta { reasoning_content: reasoning.clone(), reasoning, ..Delta::default() }
    }
}

impl From<ollama::Metrics> for Usage {
    fn from(metrics: ollama::Metrics) -> Usage {
        Usage {
            prompt_tokens: metrics.prompt_eval_count,
            completion_tokens: metrics.eval_count,
            total_tokens: metrics.prompt_eval_count + metrics.eval_count,
            prompt_tokens_details: Some(metrics.cached_tokens)
                .filter(|tokens| *tokens > 0)
                .map(|cached_tokens| PromptTokensDetails { cached_tokens }),
        }
    }
}

impl From<&ollama::ToolCall> for ToolCall {
    fn from(call: &ollama::ToolCall) -> ToolCall {
        let arguments = serde_json::Value::Object(call.function.arguments.clone()).to_string();
        ToolCall {
            id: call.id.clone().unwrap_or_default(),
            index: call.function.index,
            kind: "function".to_owned(),
            function: ToolCallFunction { name: call.function.name.clone(), arguments },
        }
    }
}

/// An answer that ends in tool calls ended because of them, unless it ran out of room.
pub(super) fn finish_reason(reason: Option<DoneReason>, has_tool_calls: bool) -> Option<&'static str> {
    Some(match reason? {
        DoneReason::Stop if has_tool_calls => "tool_calls",
        DoneReason::Stop => "stop",
        DoneReason::Length => "length",
        DoneReason::Load => "load",
        DoneReason::Unload => "unload",
    })
}

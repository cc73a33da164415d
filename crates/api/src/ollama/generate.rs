//! `POST /api/generate`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::message::{Image, Logprob, Think, ToolCall};
use crate::KeepAlive;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct GenerateRequest {
    pub model: String,
    pub prompt: String,
    pub suffix: String,
    pub system: String,
    pub template: String,
    /// Deprecated: the tokens of an earlier answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<i64>,
    /// `None` means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    pub raw: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<bool>,
    pub logprobs: bool,
    pub top_logprobs: i64,
    #[serde(rename = "_debug_render_only")]
    pub debug_render_only: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateResponse {
    pub model: String,
    pub created_at: String,
    pub response: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    pub done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<DoneReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<u32>>,
    #[serde(flatten)]
    pub metrics: Metrics,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    #[serde(rename = "_debug_info", skip_serializing_if = "Option::is_none")]
    pub debug_info: Option<DebugInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<Logprob>>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoneReason {
    Stop,
    Length,
    Load,
    Unload,
}

/// Times in nanoseconds, counts in tokens; a zero is left out, as Go's `omitempty` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    #[serde(skip_serializing_if = "super::is_zero")]
    pub total_duration: u64,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub load_duration: u64,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub prompt_eval_count: u64,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub eval_count: u64,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub eval_duration: u64,
    /// Part of `prompt_eval_count`. Ollama does not tell it; OpenAI's usage does.
    #[serde(skip)]
    pub cached_tokens: u64,
}

/// The answer to `_debug_render_only`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugInfo {
    pub rendered_template: String,
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub image_count: u64,
}

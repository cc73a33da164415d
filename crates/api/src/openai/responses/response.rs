//! The answer: one object, which also frames a stream.

use serde::Serialize;
use serde_json::{Map, Value};

use super::request::{ReasoningConfig, ResponsesRequest, ResponsesTool, TextConfig};
use crate::error::{Code, Error, Result};
use crate::ollama::{ChatResponse, Metrics, ToolCall};

/// What a server without ollama.com says when a model wants to search the web.
const NO_SEARCH: &str = "ollama cloud is disabled: web search is unavailable";

/// `Option<()>` is what is always `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Response {
    /// `resp_<number>`.
    pub id: String,
    pub object: &'static str,
    pub created_at: i64,
    pub completed_at: Option<i64>,
    /// `in_progress`, `completed` or `failed`.
    pub status: &'static str,
    pub incomplete_details: Option<()>,
    pub model: String,
    pub previous_response_id: Option<()>,
    pub instructions: Option<String>,
    pub output: Vec<OutputItem>,
    pub error: Option<ResponseError>,
    pub tools: Vec<ResponsesTool>,
    pub tool_choice: &'static str,
    pub truncation: String,
    pub parallel_tool_calls: bool,
    pub text: TextConfig,
    pub top_p: f64,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    pub top_logprobs: u32,
    pub temperature: f64,
    pub reasoning: Option<ReasoningConfig>,
    pub usage: Option<ResponsesUsage>,
    pub max_output_tokens: Option<i64>,
    pub max_tool_calls: Option<()>,
    pub store: bool,
    pub background: bool,
    pub service_tier: &'static str,
    pub metadata: Map<String, Value>,
    pub safety_identifier: Option<()>,
    pub prompt_cache_key: Option<()>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    Reasoning {
        id: String,
        summary: Vec<SummaryText>,
        /// Plain text: it comes back in the next request, and nobody here has anything to hide.
        #[serde(skip_serializing_if = "Option::is_none")]
        encrypted_content: Option<String>,
    },
    Message {
        id: String,
        status: &'static str,
        role: &'static str,
        content: Vec<OutputText>,
    },
    FunctionCall {
        id: String,
        status: &'static str,
        call_id: String,
        name: String,
        arguments: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryText {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputText {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub text: String,
    /// Always empty.
    pub annotations: [(); 0],
    pub logprobs: [(); 0],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResponseError {
    pub code: &'static str,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ResponsesUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub total_tokens: u64,
    pub input_tokens_details: InputTokensDetails,
    pub output_tokens_details: OutputTokensDetails,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InputTokensDetails {
    /// What of the prompt did not have to be computed.
    pub cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OutputTokensDetails {
    /// Always zero: nobody counts them apart.
    pub reasoning_tokens: u64,
}

// === impl Response ===

impl Response {
    /// An answer that has just begun: what the request says, told back. `id` is `resp_<number>`, `created_at` is in
    /// seconds since 1970.
    pub fn begun(id: String, created_at: i64, request: &ResponsesRequest) -> Response {
        let ReasoningConfig { effort, summary } = &request.reasoning;
        let reasons = !(effort.is_empty() && summary.is_empty());
        Response {
            id,
            object: "response",
            created_at,
            completed_at: None,
            status: "in_progress",
            incomplete_details: None,
            model: request.model.clone(),
            previous_response_id: None,
            instructions: Some(request.instructions.clone()).filter(|text| !text.is_empty()),
            output: Vec::new(),
            error: None,
            tools: request.tools.clone(),
            tool_choice: "auto",
            truncation: request.truncation.clone().unwrap_or_else(|| "disabled".to_owned()),
            parallel_tool_calls: true,
            text: request.text.clone().unwrap_or_default(),
            top_p: request.top_p.unwrap_or(1.0),
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            top_logprobs: 0,
            temperature: request.temperature.unwrap_or(1.0),
            reasoning: reasons.then(|| request.reasoning.clone()),
            usage: None,
            max_output_tokens: request.max_output_tokens,
            max_tool_calls: None,
            store: false,
            background: request.background,
            service_tier: "default",
            metadata: request.metadata.as_object().cloned().unwrap_or_default(),
            safety_identifier: None,
            prompt_cache_key: None,
        }
    }

    /// The whole answer, when nobody wants a stream. `searches` when the request had the built-in tool.
    pub fn answered(mut self, whole: ChatResponse, searches: bool, now: i64) -> Result<Response> {
        let message = whole.message;
        if searches && message.tool_calls.iter().any(is_search) {
            return Err(no_search());
        }
        let mut output = Vec::new();
        if let Some(thinking) = message.thinking.filter(|text| !text.is_empty()) {
            output.push(OutputItem::thought(self.item_id("rs", 0), thinking));
        }
        // What is said beside calls is left out, as in Ollama.
        if message.tool_calls.is_empty() {
            output.push(OutputItem::said(self.item_id("msg", output.len()), message.content));
        }
        for call in &message.tool_calls {
            output.push(OutputItem::called(self.item_id("fc", output.len()), call));
        }
        self.complete(output, whole.metrics, now);
        Ok(self)
    }

    pub(super) fn complete(&mut self, output: Vec<OutputItem>, metrics: Metrics, now: i64) {
        self.status = "completed";
        self.completed_at = Some(now);
        self.output = output;
        self.usage = Some(metrics.into());
    }

    /// The id of the item at `index`: it follows from the id of the answer.
    pub(super) fn item_id(&self, prefix: &str, index: usize) -> String {
        format!("{prefix}_{}_{index}", self.id.trim_start_matches("resp_"))
    }
}

impl OutputItem {
    pub(super) fn thought(id: String, text: String) -> OutputItem {
        let summary = vec![SummaryText { kind: "summary_text", text: text.clone() }];
        OutputItem::Reasoning { id, summary, encrypted_content: Some(text) }
    }

    pub(super) fn said(id: String, text: String) -> OutputItem {
        let content = vec![OutputText::new(text)];
        OutputItem::Message { id, status: "completed", role: "assistant", content }
    }

    pub(super) fn called(id: String, call: &ToolCall) -> OutputItem {
        OutputItem::FunctionCall {
            id,
            status: "completed",
            call_id: call.id.clone().unwrap_or_default(),
            name: call.function.name.clone(),
            arguments: Value::Object(call.function.arguments.clone()).to_string(),
        }
    }
}

impl OutputText {
    pub(super) fn new(text: String) -> OutputText {
        OutputText { kind: "output_text", text, annotations: [], logprobs: [] }
    }
}

impl From<Metrics> for ResponsesUsage {
    fn from(metrics: Metrics) -> ResponsesUsage {
        ResponsesUsage {
            input_tokens: metrics.prompt_eval_count,
            output_tokens: metrics.eval_count,
            total_tokens: metrics.prompt_eval_count + metrics.eval_count,
            input_tokens_details: InputTokensDetails { cached_tokens: metrics.cached_tokens },
            output_tokens_details: OutputTokensDetails { reasoning_tokens: 0 },
        }
    }
}

pub(super) fn is_search(call: &ToolCall) -> bool {
    call.function.name == super::WEB_SEARCH
}

pub(super) fn no_search() -> Error {
    Error::new(Code::Forbidden, NO_SEARCH)
}

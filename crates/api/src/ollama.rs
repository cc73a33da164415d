//! Ollama's native requests and responses, field for field and in Ollama's key order
//! (`reference: docs/api.md of ollama v0.33`).

mod chat;
mod embed;
mod generate;
mod message;
mod models;
mod tool;

pub use chat::{ChatRequest, ChatResponse};
pub use embed::{EmbedRequest, EmbedResponse, EmbeddingsRequest, EmbeddingsResponse, Input};
pub use generate::{DebugInfo, DoneReason, GenerateRequest, GenerateResponse, Metrics};
pub use message::{Image, Logprob, Message, Think, ToolCall, ToolCallFunction, TopLogprob};
pub use models::{
    CopyRequest, CreateRequest, DeleteRequest, Details, ListResponse, ListedModel, OneOrMany, Progress,
    PsResponse, PullRequest, RunningModel, SaveRequest, ShowRequest, ShowResponse, TensorSummary,
};
pub use tool::Tool;
pub(crate) use tool::{check_parameters, list as tool_list};

/// The version that `/api/version` tells. Editors gate on Ollama's numbers, so this is the Ollama release whose
/// behaviour we follow, not our own version.
pub const OLLAMA_VERSION: &str = "0.33.0";

/// Ollama's text for a full queue, byte for byte (two spaces).
pub const QUEUE_FULL: &str = "server busy, please try again.  maximum pending requests exceeded";

/// What Go's `omitempty` leaves out.
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The texts of a list that holds nothing else.
fn texts(items: Vec<serde_json::Value>) -> Option<Vec<String>> {
    let text = |item| match item {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    };
    items.into_iter().map(text).collect()
}

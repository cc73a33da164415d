//! OpenAI's words: its requests turned into Ollama's, Ollama's answers turned into its.
//!
//! Pure translation: the caller brings ids and the time, and sends the frames.

mod chat;
mod completion;
mod embeddings;
mod error;
mod legacy;
mod models;
mod responses;
mod stream;
#[cfg(test)]
mod tests;

pub use chat::{
    ChatCompletionRequest, JsonSchema, Message, Reasoning, ResponseFormat, StreamOptions, ToolCall,
    ToolCallFunction,
};
pub use completion::{
    ChatCompletion, Choice, Chunk, ChunkChoice, Delta, Logprobs, PromptTokensDetails, Usage,
};
pub use embeddings::{
    Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage, EmbeddingVector, EncodingFormat,
};
pub use error::{ErrorBody, ErrorDetail};
pub use legacy::{Completion, CompletionRequest, CompletionStream, TextChoice};
pub use models::{Model, ModelList};
pub use responses::{
    InputTokensDetails, OutputItem, OutputText, OutputTokensDetails, ReasoningConfig, Response,
    ResponseError, ResponseStream, ResponsesRequest, ResponsesTool, ResponsesUsage, SummaryText, TextConfig,
    TextFormat,
};
pub use stream::{Header, Stream};

/// What every answer claims as its `system_fingerprint`.
const SYSTEM_FINGERPRINT: &str = "fp_ollama";

//! OpenAI's words: its requests turned into Ollama's, Ollama's answers turned into its.
//!
//! Pure translation: the caller brings ids and the time, writes the frames and appends `[DONE]`.

mod chat;
mod completion;
mod embeddings;
mod error;
mod models;
mod stream;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::gojson;

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
pub use models::{Model, ModelList};
pub use stream::Stream;

/// Decodes a request as [`gojson::from_slice`] does; only an empty body is worded otherwise on these routes.
pub fn from_slice<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    gojson::from_slice(bytes).map_err(|error| match error.message.as_str() {
        gojson::MISSING_BODY => Error::invalid("EOF"),
        _ => error,
    })
}

/// What every answer claims as its `system_fingerprint`.
const SYSTEM_FINGERPRINT: &str = "fp_ollama";

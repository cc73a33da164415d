//! OpenAI's words: its requests turned into Ollama's, Ollama's answers turned into its.
//!
//! Pure translation: the caller brings ids and the time, writes the frames and appends `[DONE]`.

mod chat;
mod completion;
mod embeddings;
mod error;
mod models;
mod stream;

pub use chat::{
    ChatCompletionRequest, JsonSchema, Message, Reasoning, ResponseFormat, StreamOptions, ToolCall,
    ToolCallFunction,
};
pub use completion::{ChatCompletion, Choice, Chunk, ChunkChoice, Delta, Logprobs, Usage};
pub use embeddings::{
    Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage, EmbeddingVector, EncodingFormat,
};
pub use error::{ErrorBody, ErrorDetail};
pub use models::{Model, ModelList};
pub use stream::Stream;

/// What every answer claims as its `system_fingerprint`.
const SYSTEM_FINGERPRINT: &str = "fp_ollama";

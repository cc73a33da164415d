//! Anthropic's words: `POST /v1/messages` turned into Ollama's chat, Ollama's answers turned into messages.
//!
//! Pure translation: the caller brings ids and sends the frames. There is no search of the web here, so a model that
//! asks for it by the built-in tool is told that it is unavailable.

mod error;
mod message;
mod request;
mod stream;
#[cfg(test)]
mod tests;

pub use error::{ErrorBody, ErrorDetail};
pub use message::{Block, MessagesResponse, SearchFailure, StopReason, Usage};
pub use request::{MessageParam, MessagesRequest, OutputConfig, Thinking, Tool};
pub use stream::Stream;

/// What the built-in tool is called when a model calls it.
const WEB_SEARCH: &str = "web_search";

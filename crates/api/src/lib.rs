//! The words on the wire: Ollama's JSON, OpenAI's and Anthropic's beside it, and the one table of errors.
//!
//! Pure data and its (de)serialisation. Nothing here does I/O, reads a clock or knows a worker.

pub mod anthropic;
pub mod duration;
pub mod error;
pub mod events;
pub mod gojson;
pub mod ollama;
pub mod openai;
pub mod options;
pub mod rerank;

pub use duration::KeepAlive;
pub use error::{Code, Error, Result};
pub use options::Options;

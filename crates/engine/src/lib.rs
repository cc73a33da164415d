//! From a GGUF file to tokens: tokenizer, transformer, KV cache, scheduler and sampler, for many sequences at once.
//!
//! Synchronous: one thread owns one [`Engine`]. Nothing here knows HTTP, a clock, or the environment.

mod engine;
mod error;
mod sequence;
mod tokenizer;

pub use engine::{Engine, Info, Pooling};
pub use error::Error;
pub use sequence::{Event, FinishReason, Logprobs, Sampling, Sequence, SequenceId};
pub use tokenizer::Tokenizer;

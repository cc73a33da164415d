//! From a GGUF file to tokens: tokenizer, transformer, KV cache, scheduler and sampler, for many sequences at once.
//!
//! Synchronous: one thread owns one [`Engine`]. Nothing here knows HTTP, a clock, or the environment.

mod candle;
mod compute;
mod detokenizer;
mod device;
mod engine;
mod error;
mod grammar;
mod kernels;
mod linear;
mod load;
mod model;
mod pages;
mod pool;
mod pooling;
pub mod quantize;
mod sampler;
mod scheduler;
mod sequence;
mod spec;
mod tokenizer;
mod transformer;
mod weights;

pub use candle::CandleEngine;
pub use detokenizer::Detokenizer;
pub use device::{Device, DeviceMemory, Meter};
pub use engine::{Engine, Info, Pooling};
pub use error::Error;
pub use grammar::{Constraint, Grammar, Grammars, Thought};
pub use kernels::Tier;
pub use load::{Estimate, KvType, LoadOptions, estimate};
pub use sampler::{Choice, Mask, Sampler};
pub use sequence::{Event, FinishReason, Logprobs, Sampling, Sequence, SequenceId};
pub use spec::is_supported;
pub use tokenizer::{Fim, Pairs, Reranker, Tokenizer};

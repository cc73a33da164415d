//! Models out of other models: checkpoints as their trainers publish them, and GGUF files, to one GGUF of a chosen
//! quantization; and adapters to one GGUF.
//!
//! It reads files and writes one stream of bytes; it knows neither store nor network. Tensors pass through in pieces, so
//! that what it needs of memory is told by the largest row, not by the model. Everything that it reads was written by
//! strangers: sizes are checked against the files before anything is allocated.
//!
//! ```text
//! checkpoint -> architecture, tokenizer ─┐
//! adapter, base -> adapter ──────────────┼─> plan -> write
//! gguf files -> shards ──────────────────┘
//! ```

mod adapter;
mod architecture;
mod checkpoint;
mod error;
mod fp8;
mod job;
mod json;
mod plan;
mod safetensors;
mod shards;
mod source;
mod tokenizer;
mod write;

pub use error::Error;
pub use job::{Input, Job, Step, convert};

//! The GGUF container: metadata, the tensor index and where each tensor's bytes lie.
//!
//! It knows the format and nothing above it: no tensors, no arithmetic on weights, no architecture.
//! Everything is checked against the bytes that are really there before anything is allocated, so a
//! [`Gguf`] that exists is one whose every tensor can be sliced out of its file.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod error;
mod file;
mod label;
mod metadata;
mod parse;
mod quantization;
mod reader;
mod shard;
mod tensor;
mod value;
mod writer;

pub use error::Error;
pub use file::File;
pub use label::human_count;
pub use metadata::Metadata;
pub use parse::{Gguf, MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_NESTING};
pub use quantization::Quantization;
pub use shard::Shard;
pub use tensor::{Tensor, TensorType};
pub use value::{Array, Value};
pub use writer::Writer;

//! Turns messages into a prompt: Go `text/template` as Ollama's models use it, and Jinja as model files carry it.
//!
//! Pure: no clock (the date is in [`Values`]), no environment, no I/O. Templates are data from strangers, so
//! every loop, nesting and output has a bound and nothing panics. What a model answers is parsed elsewhere;
//! this crate only tells with which tags it will answer ([`Go::thinking_tags`], [`Go::tool_tag`]).

pub mod builtin;
mod choose;
mod error;
mod go;
mod jinja;
pub mod known;
mod values;

pub use choose::{Capabilities, Kind, capabilities, choose};
pub use error::Error;
pub use go::Go;
pub use jinja::Jinja;
pub use values::{Message, Think, ToolCall, Values};

/// The longest template that is parsed. The longest known chat templates have 30 KB.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;
/// The longest prompt that is rendered: more than any model reads.
pub const MAX_OUTPUT_BYTES: usize = 16 << 20;

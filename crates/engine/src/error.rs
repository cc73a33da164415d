//! What can go wrong in the engine, and whose fault it is.

use api::Code;

/// Every text names the tensor, the key or the bound, and the value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("every one of the {slots} slots runs a sequence")]
    NoSlot { slots: usize },
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("the prompt has {tokens} tokens, the context has room for {context_length}")]
    PromptTooLong { tokens: usize, context_length: usize },
    #[error("the sequence may need {needed} pages of KV cache, there are {found}")]
    TooFewPages { needed: usize, found: usize },
    #[error("token {token} is out of range, the vocabulary has {vocab_size}")]
    TokenOutOfRange { token: u32, vocab_size: usize },
    #[error("a sequence with id {id} is already running")]
    DuplicateId { id: u64 },
    #[error("`{option}` must be {bound}, got {value}")]
    InvalidOption { option: &'static str, bound: &'static str, value: usize },
    #[error("`{option}` must be {bound}, got {value}")]
    InvalidSampling { option: &'static str, bound: &'static str, value: f32 },
    #[error("unsupported architecture {name:?}; supported: {supported}")]
    UnsupportedArchitecture { name: String, supported: String },
    #[error("model key `{key}`: {problem}")]
    InvalidKey { key: String, problem: String },
    #[error("tensor `{name}` is missing")]
    MissingTensor { name: String },
    #[error("tensor `{name}` must have shape {expected:?}, got {found:?}")]
    WrongShape { name: String, expected: Vec<u64>, found: Vec<u64> },
    #[error(
        "tensor `{name}` is unknown in architecture {architecture:?}; without it the model would be wrong"
    )]
    UnknownTensor { name: String, architecture: String },
    #[error("tensor `{name}` has type {found}, supported: {supported}")]
    UnsupportedType { name: String, found: String, supported: &'static str },
    #[error("{what} is not a finite number; the weights are broken or the model overflows")]
    NotFinite { what: String },
    #[error("not enough memory: {needed} bytes are needed for {what}")]
    OutOfMemory { what: &'static str, needed: u64 },
    #[error("invalid format: {0}")]
    Grammar(String),
    #[error("this model cannot {what}")]
    Unsupported { what: &'static str },
    #[error("`device` must be {bound}, got {value}")]
    NoDevice { bound: &'static str, value: String },
    #[error("the load was given up")]
    GivenUp,
    #[error("the model's tokenizer: {0}")]
    Tokenizer(String),
    #[error("read the model: {0}")]
    Gguf(String),
    #[error("compute: {0}")]
    Compute(String),
}

impl Error {
    /// What a model that overflows, or whose weights are broken, ends a sequence with.
    pub(crate) fn block_not_finite(block: usize) -> Error {
        Error::NotFinite { what: format!("what block {block} (`blk.{block}`) computed") }
    }

    /// Who is at fault and whether it may be retried.
    pub fn code(&self) -> Code {
        match self {
            Error::NoSlot { .. } => Code::Busy,
            Error::EmptyPrompt
            | Error::PromptTooLong { .. }
            | Error::TooFewPages { .. }
            | Error::TokenOutOfRange { .. }
            | Error::InvalidOption { .. }
            | Error::InvalidSampling { .. }
            | Error::Grammar(_)
            | Error::NoDevice { .. }
            | Error::Unsupported { .. } => Code::Invalid,
            Error::OutOfMemory { .. } => Code::OutOfMemory,
            Error::GivenUp => Code::Canceled,
            _ => Code::Internal,
        }
    }
}

impl From<gguf::Error> for Error {
    fn from(error: gguf::Error) -> Error {
        Error::Gguf(error.to_string())
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Compute(error.to_string())
    }
}

impl From<Error> for api::Error {
    fn from(error: Error) -> api::Error {
        api::Error::new(error.code(), error.to_string())
    }
}

//! Text to tokens and back.

/// Text to tokens and back, as a GGUF describes it.
#[derive(Debug)]
pub struct Tokenizer {}

//! What the store wants to know of a GGUF: little, because it never reads the weights.

use gguf::{Gguf, Value};

/// The facts that listing and capabilities need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    pub(crate) context_length: Option<u64>,
    pub(crate) embedding_length: Option<u64>,
    /// It pools: an embedder, not a language model.
    pub(crate) pools: bool,
    /// It tells how well a document answers a query.
    pub(crate) ranks: bool,
    pub(crate) vision: bool,
    pub(crate) audio: bool,
    /// The Jinja template of the tokenizer.
    pub(crate) chat_template: Option<String>,
}

/// What a GGUF is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Model,
    Adapter,
    Projector,
}

impl Weights {
    pub(crate) fn of(gguf: &Gguf) -> Weights {
        let metadata = &gguf.metadata;
        let architecture = gguf.architecture().unwrap_or_default();
        let get = |key: &str| metadata.get(&format!("{architecture}.{key}"));
        let text = metadata.get("tokenizer.chat_template").and_then(Value::as_str);
        Weights {
            context_length: get("context_length").and_then(Value::as_u64),
            embedding_length: get("embedding_length").and_then(Value::as_u64),
            pools: get("pooling_type").is_some() || gguf.is_reranker(),
            ranks: gguf.is_reranker(),
            vision: get("vision.block_count").is_some(),
            audio: get("audio.block_count").is_some() || hears(gguf),
            chat_template: text.filter(|text| !text.is_empty()).map(str::to_owned),
        }
    }
}

impl Role {
    pub(crate) fn of(gguf: &Gguf) -> Role {
        let declared = gguf.metadata.get("general.type").and_then(Value::as_str);
        match declared.unwrap_or_default() {
            "adapter" => Role::Adapter,
            "projector" | "mmproj" => Role::Projector,
            // Files from before `general.type`.
            _ if gguf.architecture().is_ok_and(|architecture| architecture == "clip") => Role::Projector,
            _ => Role::Model,
        }
    }
}

/// A projector that also takes sound.
fn hears(gguf: &Gguf) -> bool {
    gguf.metadata
        .iter()
        .any(|(key, value)| key.ends_with(".has_audio_encoder") && value.as_bool() == Some(true))
}

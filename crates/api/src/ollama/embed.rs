//! `POST /api/embed` and its elder `/api/embeddings`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::KeepAlive;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct EmbedRequest {
    pub model: String,
    pub input: Input,
    /// `None` means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
}

/// A string, a list of strings, or nothing. Anything else is `invalid input type`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Input(pub Vec<String>);

impl<'de> Deserialize<'de> for Input {
    /// An empty string is nothing at all: it loads the model.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Input, D::Error> {
        let wrong = || serde::de::Error::custom("invalid input type");
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Input::default()),
            Value::String(text) if text.is_empty() => Ok(Input::default()),
            Value::String(text) => Ok(Input(vec![text])),
            Value::Array(items) => super::texts(items).map(Input).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbedResponse {
    pub model: String,
    pub embeddings: Vec<Vec<f32>>,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub total_duration: u64,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub load_duration: u64,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub prompt_eval_count: u64,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename = "EmbeddingRequest")]
pub struct EmbeddingsRequest {
    pub model: String,
    pub prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EmbeddingsResponse {
    pub embedding: Vec<f64>,
}

//! `POST /v1/embeddings`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::KeepAlive;
use crate::error::{Error, Result};
use crate::ollama::{EmbedRequest, EmbedResponse, Input};

/// `keep_alive` and `num_ctx` are Ollama's words, accepted here too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.EmbedRequest")]
pub struct EmbeddingRequest {
    pub input: Value,
    pub model: String,
    /// Zero is not given.
    pub dimensions: i64,
    pub encoding_format: String,
    pub keep_alive: Option<KeepAlive>,
    pub num_ctx: Option<i64>,
}

/// How the numbers of an answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodingFormat {
    Float,
    /// Little-endian single precision in base64.
    Base64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbeddingList {
    pub object: &'static str,
    pub data: Vec<Embedding>,
    pub model: String,
    pub usage: EmbeddingUsage,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Embedding {
    pub object: &'static str,
    pub embedding: EmbeddingVector,
    pub index: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum EmbeddingVector {
    Float(Vec<f32>),
    Base64(Vec<f32>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EmbeddingUsage {
    pub prompt_tokens: u64,
    pub total_tokens: u64,
}

impl EmbeddingRequest {
    /// The same request in Ollama's words, and how its answer is to be written.
    pub fn into_embed(self) -> Result<(EmbedRequest, EncodingFormat)> {
        let format = match self.encoding_format.to_lowercase().as_str() {
            "" | "float" => EncodingFormat::Float,
            "base64" => EncodingFormat::Base64,
            _ => {
                return Err(Error::invalid(format!(
                    "Invalid value for 'encoding_format' = {}. Supported values: ['float', 'base64'].",
                    self.encoding_format
                )));
            }
        };
        let input = match self.input {
            // Unlike the native route, which loads the model and returns nothing.
            Value::String(text) => Input(vec![text]),
            Value::Null => return Err(Error::invalid("invalid input")),
            Value::Array(items) if items.is_empty() => return Err(Error::invalid("invalid input")),
            other => serde_json::from_value(other).map_err(|error| Error::invalid(error.to_string()))?,
        };
        let dimensions = Some(self.dimensions).filter(|dimensions| *dimensions != 0);
        let options = self.num_ctx.map(|num_ctx| Map::from_iter([("num_ctx".to_owned(), num_ctx.into())]));
        let request = EmbedRequest {
            model: self.model,
            input,
            dimensions,
            keep_alive: self.keep_alive,
            options,
            ..EmbedRequest::default()
        };
        Ok((request, format))
    }
}

impl EmbeddingList {
    /// `model` is the name as it was asked for.
    pub fn new(response: EmbedResponse, format: EncodingFormat) -> EmbeddingList {
        let write = |(index, vector)| {
            let embedding = match format {
                EncodingFormat::Float => EmbeddingVector::Float(vector),
                EncodingFormat::Base64 => EmbeddingVector::Base64(vector),
            };
            Embedding { object: "embedding", embedding, index }
        };
        let tokens = response.prompt_eval_count;
        EmbeddingList {
            object: "list",
            data: response.embeddings.into_iter().enumerate().map(write).collect(),
            model: response.model,
            usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
        }
    }
}

impl Serialize for EmbeddingVector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            EmbeddingVector::Float(vector) => vector.serialize(serializer),
            EmbeddingVector::Base64(vector) => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                serializer.serialize_str(&STANDARD.encode(bytes))
            }
        }
    }
}

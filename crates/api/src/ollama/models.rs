//! Listing, showing, creating, copying and deleting models.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::message::Message;
use crate::KeepAlive;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    pub parent_model: String,
    pub format: String,
    pub family: String,
    /// `null` where the config names none.
    pub families: Option<Vec<String>>,
    pub parameter_size: String,
    pub quantization_level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_length: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListResponse {
    pub models: Vec<ListedModel>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListedModel {
    pub name: String,
    pub model: String,
    /// What a stub of the cloud stands for, and where.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
    pub modified_at: String,
    pub size: u64,
    pub digest: String,
    pub details: Details,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PsResponse {
    pub models: Vec<RunningModel>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunningModel {
    pub name: String,
    pub model: String,
    pub size: u64,
    pub digest: String,
    pub details: Details,
    pub expires_at: String,
    pub size_vram: u64,
    pub context_length: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShowRequest {
    pub model: String,
    /// The deprecated spelling of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub verbose: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShowResponse {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub modelfile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parameters: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    pub details: Details,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    pub model_info: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projector_info: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    pub modified_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub requires: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorSummary {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub shape: Vec<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeleteRequest {
    pub model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyRequest {
    pub source: String,
    pub destination: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateRequest {
    pub model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// File name to blob digest.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub files: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub adapters: Map<String, Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub template: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<OneOrMany>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub quantize: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub quantization: String,
    /// A small model that guesses for the large one: file name to blob digest.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub draft_files: Map<String, Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub draft_quantize: String,
    /// What makes prompts and reads replies in Ollama's own code, by name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub renderer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parser: String,
    /// The oldest version of Ollama that runs the model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub requires: String,
    /// What is said of a model that lies elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Map<String, Value>>,
    /// Where it lies.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
    /// `None` means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
}

/// A pull, and a push, which has no user and password.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PullRequest {
    pub model: String,
    /// The deprecated spelling of `model`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Speak plain HTTP to the registry.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Read and not used, as by Ollama.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `None` means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
}

/// Models as one file. No route of Ollama's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SaveRequest {
    pub models: Vec<String>,
}

/// `license`: one text or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OneOrMany(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany, D::Error> {
        let texts = match Value::deserialize(deserializer)? {
            Value::Null => Some(Vec::new()),
            Value::String(text) => Some(vec![text]),
            Value::Array(items) => super::texts(items),
            _ => None,
        };
        texts
            .map(OneOrMany)
            .ok_or_else(|| serde::de::Error::custom("`license` must be a string or a list of strings"))
    }
}

/// One line of a create, pull or push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub total: u64,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub completed: u64,
}

impl Progress {
    pub fn status(text: impl Into<String>) -> Progress {
        Progress { status: text.into(), ..Progress::default() }
    }
}

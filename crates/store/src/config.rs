//! The config blob: what the manifest's author says about the model.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::manifest::null_as_default;

/// Ollama's `ConfigV2`. Fields that we do not know are kept, so that a model made from another inherits them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    #[serde(deserialize_with = "null_as_default")]
    pub model_format: String,
    #[serde(deserialize_with = "null_as_default")]
    pub model_family: String,
    /// `None` is `null`, which is what clients see.
    pub model_families: Option<Vec<String>>,
    /// The number of parameters for people: `7.2B`.
    #[serde(deserialize_with = "null_as_default")]
    pub model_type: String,
    /// The quantization for people: `Q4_K_M`.
    #[serde(deserialize_with = "null_as_default")]
    pub file_type: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub renderer: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub parser: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub requires: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub capabilities: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_length: Option<u64>,
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    #[serde(deserialize_with = "null_as_default")]
    pub os: String,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Config {
    /// The config of a model that is made here.
    pub(crate) fn fresh() -> Config {
        Config {
            model_format: "gguf".to_owned(),
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            ..Config::default()
        }
    }

    /// Where a stub's model runs: the model's name there, and the host.
    pub fn remote(&self) -> Option<(&str, &str)> {
        let text = |key| self.extra.get(key).and_then(Value::as_str).unwrap_or_default();
        let (model, host) = (text("remote_model"), text("remote_host"));
        (!model.is_empty() || !host.is_empty()).then_some((model, host))
    }

    /// What a child model starts from: everything but the layer list of old manifests, which would be wrong.
    pub(crate) fn inherited(&self) -> Config {
        let mut config = self.clone();
        config.extra.shift_remove("rootfs");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_and_the_old_layer_list_does_not() {
        let text = r#"{"model_format":"gguf","model_families":null,"rootfs":{"type":"layers"},"remote_host":"h","os":"linux"}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let child = serde_json::to_value(config.inherited()).unwrap();
        assert_eq!(child["remote_host"], "h");
        assert_eq!(child["model_families"], Value::Null);
        assert!(child.get("rootfs").is_none());
    }
}

//! The manifest: which blobs make a model.

use serde::{Deserialize, Deserializer, Serialize};

use crate::Digest;

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_PREFIX: &str = "application/vnd.ollama.image.";

/// `manifests/<host>/<namespace>/<model>/<tag>`. A pulled manifest is stored byte for byte as it came, so this type
/// is read from disk often and written only for models created here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default)]
    pub schema_version: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    pub media_type: String,
    pub config: Layer,
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Layer>,
}

/// One entry: a blob and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    #[serde(default, deserialize_with = "null_as_default")]
    pub media_type: String,
    pub digest: Digest,
    #[serde(default)]
    pub size: u64,
    /// The parent model's short name, or the file that the layer was made from.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub from: String,
    /// Only layers of safetensors models have one.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub name: String,
}

/// What a layer holds, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// The weights, a GGUF.
    Model,
    /// The image tower, a GGUF.
    Projector,
    /// A LoRA, a GGUF.
    Adapter,
    /// A Go template; `prompt` is its old media type.
    Template,
    System,
    Params,
    Messages,
    License,
    /// A small model that guesses for the large one, a GGUF: kept, not used yet.
    Draft,
    /// Safetensors and whatever comes next: kept, never read.
    Other,
}

// === impl Manifest ===

impl Manifest {
    pub fn new(config: Layer, layers: Vec<Layer>) -> Manifest {
        Manifest { schema_version: 2, media_type: MANIFEST_TYPE.to_owned(), config, layers }
    }

    /// # Errors
    /// When the bytes are no JSON object with a config and well-formed digests.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Manifest> {
        serde_json::from_slice(bytes)
    }

    /// Bytes of all blobs together.
    pub fn size(&self) -> u64 {
        self.blobs().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }

    /// The layers and the config.
    pub fn blobs(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().chain([&self.config])
    }

    pub fn of_kind(&self, kind: LayerKind) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.kind() == kind)
    }
}

// === impl Layer ===

impl Layer {
    pub fn new(kind: LayerKind, digest: Digest, size: u64) -> Layer {
        let media_type = format!("{LAYER_PREFIX}{}", kind.suffix());
        Layer { media_type, digest, size, from: String::new(), name: String::new() }
    }

    pub fn config(digest: Digest, size: u64) -> Layer {
        Layer { media_type: CONFIG_TYPE.to_owned(), digest, size, from: String::new(), name: String::new() }
    }

    pub fn kind(&self) -> LayerKind {
        match self.media_type.strip_prefix(LAYER_PREFIX) {
            Some("model") => LayerKind::Model,
            Some("projector") => LayerKind::Projector,
            Some("adapter") => LayerKind::Adapter,
            Some("template" | "prompt") => LayerKind::Template,
            Some("system") => LayerKind::System,
            Some("params") => LayerKind::Params,
            Some("messages") => LayerKind::Messages,
            Some("license") => LayerKind::License,
            Some("draft") => LayerKind::Draft,
            _ => LayerKind::Other,
        }
    }
}

// === impl LayerKind ===

impl LayerKind {
    /// Whether it is read whole whenever the model is.
    pub(crate) fn is_text(self) -> bool {
        use LayerKind::{License, Messages, Params, System, Template};
        matches!(self, Template | System | Params | Messages | License)
    }

    /// The field of a create request that makes such a layer.
    pub(crate) fn field(self) -> &'static str {
        match self {
            LayerKind::Params => "parameters",
            other => other.suffix(),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            LayerKind::Model => "model",
            LayerKind::Projector => "projector",
            LayerKind::Adapter => "adapter",
            LayerKind::Template => "template",
            LayerKind::System => "system",
            LayerKind::Params => "params",
            LayerKind::Messages => "messages",
            LayerKind::License => "license",
            LayerKind::Draft => "draft",
            LayerKind::Other => "other",
        }
    }
}

/// Go reads `null` as "not given", and Go wrote these files.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer(kind: LayerKind) -> Layer {
        Layer::new(kind, Digest::of(kind.suffix().as_bytes()), 7)
    }

    #[test]
    fn a_manifest_is_written_as_ollama_writes_it() {
        let mut model = layer(LayerKind::Model);
        model.from = "a.gguf".to_owned();
        let manifest = Manifest::new(Layer::config(Digest::of(b""), 3), vec![model]);
        assert_eq!(
            serde_json::to_string(&manifest).unwrap(),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"{CONFIG_TYPE}","digest":"{}","size":3}},"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"{}","size":7,"from":"a.gguf"}}]}}"#,
                Digest::of(b""),
                Digest::of(b"model"),
            )
        );
        assert_eq!(manifest.size(), 10);
    }

    #[test]
    fn null_and_missing_fields_are_read_as_empty_ones() {
        let text = format!(
            r#"{{"config":{{"digest":"{}","mediaType":null}},"layers":null,"extra":1}}"#,
            Digest::of(b"")
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!((manifest.layers.len(), manifest.config.size), (0, 0));
    }

    #[test]
    fn every_kind_is_known_by_its_media_type() {
        for kind in [
            LayerKind::Model,
            LayerKind::Projector,
            LayerKind::Adapter,
            LayerKind::Template,
            LayerKind::System,
            LayerKind::Params,
            LayerKind::Messages,
            LayerKind::License,
            LayerKind::Draft,
        ] {
            assert_eq!(layer(kind).kind(), kind);
        }
        let old =
            Layer { media_type: "application/vnd.ollama.image.prompt".to_owned(), ..layer(LayerKind::Model) };
        assert_eq!(old.kind(), LayerKind::Template);
        let tensor = Layer { media_type: "application/vnd.ollama.image.tensor".to_owned(), ..old };
        assert_eq!(tensor.kind(), LayerKind::Other);
    }

    #[test]
    fn a_size_that_overflows_is_clamped() {
        let huge = Layer { size: u64::MAX, ..layer(LayerKind::Model) };
        assert_eq!(Manifest::new(huge.clone(), vec![huge]).size(), u64::MAX);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in any::<Vec<u8>>(), text in r#"[{}\[\]":,a-z0-9]{0,60}"#) {
            let _ = Manifest::parse(&bytes);
            let _ = Manifest::parse(text.as_bytes());
            let _ = Manifest::parse(format!(r#"{{"config":{text},"layers":[{text}]}}"#).as_bytes());
        }
    }
}

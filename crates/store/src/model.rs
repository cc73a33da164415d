//! A model as the rest of the program sees it: the manifest with its small blobs read.

use std::cell::Cell;
use std::time::SystemTime;

use api::ollama::{Details, ListedModel, Message};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::capability;
use crate::home::{Entry, Place};
use crate::shelf::Shelf;
use crate::weights::Weights;
use crate::{Config, Digest, Error, Layer, LayerKind, Manifest, Name, Result};

/// Templates, system prompts, licenses and conversations: texts that people wrote. The longest known license has
/// 40 KiB.
pub(crate) const MAX_TEXT: u64 = 16 << 20;

/// All of them together, which stay in memory as long as the model is known.
pub(crate) const MAX_TEXTS: u64 = 2 * MAX_TEXT;

/// A stored model. Everything that a request needs but the weights.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: Name,
    /// Hex sha256 of the manifest's bytes, without `sha256:`.
    pub digest: String,
    /// Bytes of all its blobs.
    pub size: u64,
    pub modified_at: SystemTime,
    pub manifest: Manifest,
    pub config: Config,
    pub weights: Option<Digest>,
    pub adapters: Vec<Digest>,
    /// Only the first is used, as in Ollama.
    pub projector: Option<Digest>,
    /// The Go template layer.
    pub template: Option<String>,
    /// The Jinja template in the weights.
    pub chat_template: Option<String>,
    pub system: Option<String>,
    /// Modelfile parameters, under the request's options.
    pub parameters: Map<String, Value>,
    pub messages: Vec<Message>,
    pub licenses: Vec<String>,
    pub capabilities: Vec<String>,
    pub details: Details,
}

// === impl Model ===

impl Model {
    /// Models with the same key can share a replica: they differ in template, system and parameters at most, and
    /// those travel with the request.
    pub fn replica_key(&self) -> String {
        match (&self.weights, self.adapters.is_empty(), &self.projector) {
            (Some(weights), true, None) => weights.hex().to_owned(),
            (weights, _, projector) => {
                let lines = weights.iter().map(|digest| format!("weights {digest}\n"));
                let lines = lines.chain(self.adapters.iter().map(|digest| format!("adapter {digest}\n")));
                let lines = lines.chain(projector.iter().map(|digest| format!("projector {digest}\n")));
                Digest::of(lines.collect::<String>().as_bytes()).hex().to_owned()
            }
        }
    }

    /// Which of the two templates makes prompts, where no renderer does. Parses both, so it is for `show`, not for every
    /// request.
    pub fn template_kind(&self) -> template::Kind {
        capability::choose(&self.name, self.template.as_deref(), self.chat_template.as_deref())
    }

    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// With this machine's offset, as clients expect it.
    pub fn modified_at_text(&self) -> String {
        api::gojson::timestamp_local(self.modified_at)
    }

    /// Its row of `GET /api/tags`.
    pub fn listed(&self) -> ListedModel {
        let name = self.name.shortest();
        let (remote_model, remote_host) = self.config.remote().unwrap_or_default();
        ListedModel {
            name: name.clone(),
            model: name,
            remote_model: remote_model.to_owned(),
            remote_host: remote_host.to_owned(),
            modified_at: self.modified_at_text(),
            size: self.size,
            digest: self.digest.clone(),
            details: Details { parent_model: String::new(), ..self.details.clone() },
            capabilities: self.capabilities.clone(),
        }
    }

    /// Reads a model, and says whether all of it could be read: one whose weights are not there (yet) or damaged
    /// is listed, but must not be cached.
    pub(crate) fn load(shelf: &Shelf, entry: &Entry) -> Result<(Model, bool)> {
        let reader = Reader { shelf, name: &entry.name, read_bytes: Cell::new(0) };
        let bytes = shelf.home.read_manifest(&entry.name)?;
        let manifest = shelf.parse_manifest(&entry.name, &bytes)?;
        let config: Config = reader.json(&manifest.config, "config")?;
        let (weights, weights_read) = reader.weights(&manifest, LayerKind::Model);
        let (projector, projector_read) = reader.weights(&manifest, LayerKind::Projector);
        let template = reader.last_text(&manifest, LayerKind::Template)?;
        let digest = |kind| manifest.of_kind(kind).next().map(|layer| layer.digest.clone());
        let capabilities = capability::detect(&capability::Evidence {
            name: &entry.name,
            config: &config,
            weights: weights.as_deref(),
            projector: projector.as_deref(),
            has_projector: digest(LayerKind::Projector).is_some(),
            template: template.as_deref(),
        });
        let model = Model {
            capabilities,
            details: details(&manifest, &config, weights.as_deref()),
            name: entry.name.clone(),
            digest: Digest::of(&bytes).hex().to_owned(),
            size: manifest.size(),
            modified_at: entry.stamp.modified,
            weights: digest(LayerKind::Model),
            adapters: manifest.of_kind(LayerKind::Adapter).map(|layer| layer.digest.clone()).collect(),
            projector: digest(LayerKind::Projector),
            template,
            chat_template: weights.and_then(|weights| weights.chat_template.clone()),
            system: reader.last_text(&manifest, LayerKind::System)?,
            parameters: reader.last_json(&manifest, LayerKind::Params, "parameters")?,
            messages: reader.last_json(&manifest, LayerKind::Messages, "messages")?,
            licenses: reader.texts(&manifest, LayerKind::License)?,
            config,
            manifest,
        };
        Ok((model, weights_read && projector_read))
    }
}

pub(crate) fn too_much_text(got: u64) -> Error {
    Error::TooLong { field: "texts", unit: "bytes together", limit: MAX_TEXTS, got }
}

fn details(manifest: &Manifest, config: &Config, weights: Option<&Weights>) -> Details {
    let parent = manifest.of_kind(LayerKind::Model).next().map(|layer| layer.from.clone());
    Details {
        parent_model: parent.unwrap_or_default(),
        format: config.model_format.clone(),
        family: config.model_family.clone(),
        families: config.model_families.clone(),
        parameter_size: config.model_type.clone(),
        quantization_level: config.file_type.clone(),
        context_length: config.context_length.or(weights.and_then(|weights| weights.context_length)),
        embedding_length: config.embedding_length.or(weights.and_then(|weights| weights.embedding_length)),
    }
}

/// Reads the small blobs of one model. One manifest can name thousands of them, or one of them thousands of times.
struct Reader<'a> {
    shelf: &'a Shelf,
    name: &'a Name,
    read_bytes: Cell<u64>,
}

// === impl Reader ===

impl Reader<'_> {
    fn bytes(&self, layer: &Layer) -> Result<Vec<u8>> {
        let bytes = self.shelf.read_blob(self.name, layer, MAX_TEXT)?;
        let got = self.read_bytes.get() + bytes.len() as u64;
        if got > MAX_TEXTS {
            return Err(too_much_text(got));
        }
        self.read_bytes.set(got);
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(&self, layer: &Layer, what: &'static str) -> Result<T> {
        let bytes = self.bytes(layer)?;
        let path = || self.shelf.home.place(Place::Blob(&layer.digest));
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { what, path: path(), source })
    }

    /// The last layer of a kind wins, as in Ollama.
    fn last_json<T>(&self, manifest: &Manifest, kind: LayerKind, what: &'static str) -> Result<T>
    where
        T: DeserializeOwned + Default,
    {
        let value: Option<Option<T>> =
            manifest.of_kind(kind).last().map(|layer| self.json(layer, what)).transpose()?;
        Ok(value.flatten().unwrap_or_default())
    }

    fn last_text(&self, manifest: &Manifest, kind: LayerKind) -> Result<Option<String>> {
        manifest.of_kind(kind).last().map(|layer| self.text(layer)).transpose()
    }

    fn texts(&self, manifest: &Manifest, kind: LayerKind) -> Result<Vec<String>> {
        manifest.of_kind(kind).map(|layer| self.text(layer)).collect()
    }

    /// Licenses in the wild are not all UTF-8; nobody is helped by refusing the model for it.
    fn text(&self, layer: &Layer) -> Result<String> {
        let bytes = self.bytes(layer)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The facts of the first GGUF of a kind, and whether there is nothing left to be read.
    fn weights(&self, manifest: &Manifest, kind: LayerKind) -> (Option<std::sync::Arc<Weights>>, bool) {
        let Some(layer) = manifest.of_kind(kind).next() else { return (None, true) };
        match self.shelf.weights(&layer.digest) {
            Ok(weights) => (Some(weights), true),
            Err(error) => {
                tracing::warn!(name = %self.name, digest = %layer.digest, %error, "weights cannot be read");
                (None, false)
            }
        }
    }
}

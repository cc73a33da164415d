//! What has to be converted before a model can be made, and the blob that comes of it.
//!
//! The store only looks at headers; a worker does the work, because it owns the quantizers and has the cores.

use std::path::Path;
use std::sync::Arc;

use gguf::{Quantization, Shard};

use super::CreateSpec;
use super::file::{self, Files, Inspector};
use crate::store::Inner;
use crate::{Digest, Error, LayerKind, Name, Result, remove};

/// Files that a worker makes one GGUF of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Which layer comes of it: a model, an adapter or a draft.
    pub part: LayerKind,
    /// Names as the client gave them, and the blobs that were uploaded for them.
    pub files: Vec<(String, Digest)>,
    /// The weights that an adapter changes.
    pub base: Option<Digest>,
    /// As a file names it; empty = what the worker thinks right: a GGUF stays as it is.
    pub quantization: String,
}

/// A blob that was made for a model which is not there yet. Dropped, it takes the blob with it, unless a manifest names
/// it by then.
#[derive(Clone)]
pub struct Made(Arc<Owned>);

struct Owned {
    inner: Arc<Inner>,
    digest: Digest,
    part: LayerKind,
    /// The names of the files that went into it.
    consumed: Vec<String>,
}

// === impl Conversion ===

impl Conversion {
    fn of_model(files: Files, quantization: Option<Quantization>) -> Conversion {
        let quantization = quantization.map(Quantization::name).unwrap_or_default().to_owned();
        Conversion { part: LayerKind::Model, files, base: None, quantization }
    }
}

// === impl Made ===

impl Made {
    pub(crate) fn new(inner: Arc<Inner>, digest: Digest, conversion: &Conversion) -> Made {
        let consumed = conversion.files.iter().map(|(name, _)| name.clone()).collect();
        Made(Arc::new(Owned { inner, digest, part: conversion.part, consumed }))
    }

    pub(super) fn part(&self) -> LayerKind {
        self.0.part
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// The other files of the request.
    pub(super) fn rest(&self, files: Files) -> Files {
        files.into_iter().filter(|(name, _)| !self.0.consumed.contains(name)).collect()
    }

    /// What the layer is said to come from: the GGUF, where it was one.
    pub(super) fn origin(&self) -> String {
        match self.0.consumed.as_slice() {
            [only] if is_gguf_name(only) => only.clone(),
            _ => String::new(),
        }
    }
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Made").field(self.digest()).finish()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        remove::remove_orphans_aside(&self.inner, [self.digest.clone()]);
    }
}

/// What a request needs next; `None` when nothing is left to be made.
pub(crate) fn needed(inner: &Inner, spec: &CreateSpec) -> Result<Option<Conversion>> {
    let request = &spec.request;
    // What is wrong is said before anything has been done.
    let draft_quantization = quantization(&request.draft_quantize)?;
    if draft_quantization.is_some() && request.draft_files.is_empty() {
        return Err(Error::NoDraft);
    }
    if spec.made(LayerKind::Model).is_none()
        && let Some(conversion) = model(inner, spec)?
    {
        return Ok(Some(conversion));
    }
    if spec.made(LayerKind::Adapter).is_none()
        && let Some(conversion) = adapter(inner, spec)?
    {
        return Ok(Some(conversion));
    }
    if spec.made(LayerKind::Draft).is_some() {
        return Ok(None);
    }
    let files = file::parse_map(&request.draft_files)?;
    let conversion = of_files(inner, spec, files, draft_quantization)?;
    Ok(conversion.map(|conversion| Conversion { part: LayerKind::Draft, ..conversion }))
}

fn model(inner: &Inner, spec: &CreateSpec) -> Result<Option<Conversion>> {
    let request = &spec.request;
    let asked = if request.quantize.is_empty() { &request.quantization } else { &request.quantize };
    let quantization = quantization(asked)?;
    let files = file::parse_map(&request.files)?;
    match (request.from.as_str(), quantization) {
        ("", _) => of_files(inner, spec, files, quantization),
        (_, None) => Ok(None),
        (from, Some(quantization)) => stored(inner, &Name::parse(from.trim())?, quantization),
    }
}

/// Uploaded files that are to be one model.
fn of_files(
    inner: &Inner,
    spec: &CreateSpec,
    files: Files,
    quantization: Option<Quantization>,
) -> Result<Option<Conversion>> {
    if files.iter().any(is_safetensors) {
        return checkpoint(inner, files, quantization).map(Some);
    }
    let is_split = files.iter().any(|(name, _)| Shard::of(name).is_some_and(|shard| shard.count > 1));
    if quantization.is_none() && !is_split {
        // Layers as they are; what is wrong with them is found when they become ones.
        return Ok(None);
    }
    let models = models(inner, spec, files)?;
    match (models.as_slice(), quantization) {
        ([], _) => Ok(None),
        ([(_, digest)], Some(quantization)) if !is_split && !differs(inner, digest, quantization)? => {
            Ok(None)
        }
        (models, _) if models.len() > 1 && !is_split => Err(file::several(models.len())),
        _ => Ok(Some(Conversion::of_model(models, quantization))),
    }
}

/// Those of GGUF files that are models.
fn models(inner: &Inner, spec: &CreateSpec, files: Files) -> Result<Files> {
    let inspector = Inspector { inner, supported: spec.supported };
    let mut models = Vec::new();
    for (name, digest) in files {
        if inspector.inspect(&name, &digest)?.layer.kind() == LayerKind::Model {
            models.push((name, digest));
        }
    }
    Ok(models)
}

/// The weights of a model that is there.
fn stored(inner: &Inner, name: &Name, quantization: Quantization) -> Result<Option<Conversion>> {
    let model = inner.get(name)?;
    let Some(weights) = model.weights.clone().filter(|_| model.config.model_format != "safetensors") else {
        return Err(Error::Quantized);
    };
    if !differs(inner, &weights, quantization)? {
        return Ok(None);
    }
    let files = vec![("model.gguf".to_owned(), weights)];
    Ok(Some(Conversion::of_model(files, Some(quantization))))
}

fn checkpoint(inner: &Inner, files: Files, quantization: Option<Quantization>) -> Result<Conversion> {
    if let Some((name, _)) = files.iter().find(|(name, _)| is_gguf_name(name)) {
        return Err(Error::Unsupported(format!("file `{name}`: a GGUF beside a checkpoint")));
    }
    if files.iter().any(|(name, _)| name == "adapter_config.json") {
        return Err(Error::AdapterAlone);
    }
    require(inner, &files)?;
    Ok(Conversion::of_model(files, quantization))
}

/// An adapter that is no GGUF yet.
fn adapter(inner: &Inner, spec: &CreateSpec) -> Result<Option<Conversion>> {
    let files = file::parse_map(&spec.request.adapters)?;
    if !files.iter().any(is_safetensors) {
        return Ok(None);
    }
    require(inner, &files)?;
    let base = match (spec.made(LayerKind::Model), spec.request.from.as_str()) {
        (Some(made), _) => Some(made.digest().clone()),
        (None, "") => {
            let models = models(inner, spec, file::parse_map(&spec.request.files)?)?;
            models.into_iter().next().map(|(_, digest)| digest)
        }
        (None, from) => inner.get(&Name::parse(from.trim())?)?.weights.clone(),
    };
    let base = base.ok_or(Error::NoSource)?;
    let quantization = String::new();
    Ok(Some(Conversion { part: LayerKind::Adapter, files, base: Some(base), quantization }))
}

fn require(inner: &Inner, files: &Files) -> Result<()> {
    for (name, digest) in files {
        if inner.home.size(digest)?.is_none() {
            return Err(Error::BlobNotFound { file: name.clone(), digest: digest.to_string() });
        }
    }
    Ok(())
}

/// Whether the weights are of another type. Those that lost precision before are refused.
fn differs(inner: &Inner, weights: &Digest, quantization: Quantization) -> Result<bool> {
    let header =
        inner.home.header(weights).map_err(|source| Error::Gguf { file: weights.to_string(), source })?.gguf;
    if header.metadata.get("general.file_type").and_then(gguf::Value::as_u64)
        == Some(quantization.file_type().into())
    {
        return Ok(false);
    }
    match header.tensors.iter().any(|tensor| tensor.kind.block_elements() > 1) {
        true => Err(Error::Quantized),
        false => Ok(true),
    }
}

fn quantization(asked: &str) -> Result<Option<Quantization>> {
    if asked.is_empty() {
        return Ok(None);
    }
    let unknown = || Error::Quantization(asked.to_ascii_uppercase());
    Quantization::parse(asked).map(Some).ok_or_else(unknown)
}

fn is_safetensors((name, _): &(String, Digest)) -> bool {
    extension(name) == "safetensors"
}

fn is_gguf_name(name: &str) -> bool {
    extension(name) == "gguf"
}

fn extension(name: &str) -> String {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    extension.unwrap_or_default().to_ascii_lowercase()
}

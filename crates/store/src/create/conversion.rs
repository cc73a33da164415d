//! What has to be converted before a model can be made, and the blob that comes of it.
//!
//! The store only looks at headers; a worker does the work, because it owns the quantizers and has the cores.

use std::path::Path;
use std::sync::Arc;

use api::ollama::CreateRequest;
use gguf::{Quantization, Shard};

use super::CreateSpec;
use super::file::{self, Files, Inspector};
use crate::store::Inner;
use crate::{Digest, Error, LayerKind, Name, Result, remove};

/// Files that a worker makes one GGUF of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Names as the client gave them, and the blobs that were uploaded for them.
    pub files: Vec<(String, Digest)>,
    /// As a file names it; empty = half precision for a checkpoint, and a GGUF as it is.
    pub quantization: String,
}

/// A blob that was made for a model which is not there yet. Dropped, it takes the blob with it, unless a manifest names
/// it by then.
#[derive(Clone)]
pub struct Made(Arc<Owned>);

struct Owned {
    inner: Arc<Inner>,
    digest: Digest,
    /// The names of the files that went into it.
    consumed: Vec<String>,
}

// === impl Made ===

impl Made {
    pub(crate) fn new(inner: Arc<Inner>, digest: Digest, conversion: &Conversion) -> Made {
        let consumed = conversion.files.iter().map(|(name, _)| name.clone()).collect();
        Made(Arc::new(Owned { inner, digest, consumed }))
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
        remove::remove_orphans(&self.inner, [&self.digest]);
    }
}

/// What a request needs; `None` when its files are layers as they are.
pub(crate) fn needed(inner: &Inner, spec: &CreateSpec) -> Result<Option<Conversion>> {
    let request = &spec.request;
    let quantization = quantization(request)?;
    let files = file::parse_map(&request.files)?;
    if !request.from.is_empty() {
        let Some(quantization) = quantization else { return Ok(None) };
        return stored(inner, &Name::parse(request.from.trim())?, quantization);
    }
    if files.iter().any(|(name, _)| extension(name) == "safetensors") {
        return checkpoint(inner, files, quantization).map(Some);
    }
    let is_split = files.iter().any(|(name, _)| Shard::of(name).is_some_and(|shard| shard.count > 1));
    if quantization.is_none() && !is_split {
        // Layers as they are; what is wrong with them is found when they become ones.
        return Ok(None);
    }
    let inspector = Inspector { inner, supported: spec.supported };
    let mut models = Vec::new();
    for (name, digest) in files {
        if inspector.inspect(&name, &digest)?.layer.kind() == LayerKind::Model {
            models.push((name, digest));
        }
    }
    let name = quantization.map(Quantization::name).unwrap_or_default().to_owned();
    match (models.as_slice(), quantization) {
        ([], _) => Ok(None),
        ([(_, digest)], Some(quantization)) if !is_split && !differs(inner, digest, quantization)? => {
            Ok(None)
        }
        (models, _) if models.len() > 1 && !is_split => Err(file::several(models.len())),
        _ => Ok(Some(Conversion { files: models, quantization: name })),
    }
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
    Ok(Some(Conversion { files, quantization: quantization.name().to_owned() }))
}

fn checkpoint(inner: &Inner, files: Files, quantization: Option<Quantization>) -> Result<Conversion> {
    if let Some((name, _)) = files.iter().find(|(name, _)| is_gguf_name(name)) {
        return Err(Error::Unsupported(format!("file `{name}`: a GGUF beside a checkpoint")));
    }
    if files.iter().any(|(name, _)| name == "adapter_config.json") {
        return Err(Error::Unsupported("importing an adapter from safetensors".to_owned()));
    }
    for (name, digest) in &files {
        if inner.home.size(digest)?.is_none() {
            return Err(Error::BlobNotFound { file: name.clone(), digest: digest.to_string() });
        }
    }
    let name = quantization.map(Quantization::name).unwrap_or_default();
    Ok(Conversion { files, quantization: name.to_owned() })
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

/// `quantize`, or its older name.
fn quantization(request: &CreateRequest) -> Result<Option<Quantization>> {
    let asked = if request.quantize.is_empty() { &request.quantization } else { &request.quantize };
    if asked.is_empty() {
        return Ok(None);
    }
    let unknown = || Error::Quantization(asked.to_ascii_uppercase());
    Quantization::parse(asked).map(Some).ok_or_else(unknown)
}

fn is_gguf_name(name: &str) -> bool {
    extension(name) == "gguf"
}

fn extension(name: &str) -> String {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    extension.unwrap_or_default().to_ascii_lowercase()
}

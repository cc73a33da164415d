//! The files of a create request: what they are, and whether we can serve them.

use std::io;
use std::path::Path;

use api::ollama::Progress;
use serde_json::{Map, Value};

use super::Reporter;
use crate::home::Header;
use crate::store::Inner;
use crate::weights::Role;
use crate::{Digest, Error, Layer, LayerKind, Result, remove};

/// Ollama reports its validation under a digest of zeros, because the result has none yet. Clients cut 12 letters
/// out of it, so it is this long.
const NO_DIGEST: &str = "0000000000000000000";

/// A file name and the blob that was uploaded for it.
pub(super) type Files = Vec<(String, Digest)>;

/// Looks into uploaded files.
pub(super) struct Inspector<'a> {
    pub(super) inner: &'a Inner,
    pub(super) supported: fn(&str) -> bool,
}

/// A GGUF that may become a layer.
pub(super) struct Inspected {
    pub(super) layer: Layer,
    pub(super) architecture: String,
    pub(super) parameter_size: String,
    pub(super) file_type: &'static str,
}

/// Reads `files` or `adapters` of a request.
pub(super) fn parse_map(map: &Map<String, Value>) -> Result<Files> {
    let parse = |(name, digest): (&String, &Value)| {
        if !is_clean(name) {
            return Err(Error::FilePath);
        }
        Ok((name.clone(), Digest::parse(digest.as_str().unwrap_or_default())?))
    };
    map.iter().map(parse).collect()
}

/// A relative path without `.`, `..` or empty parts.
fn is_clean(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

// === impl Inspector ===

impl Inspector<'_> {
    /// The model and what belongs to it.
    pub(super) fn models(&self, files: &Files, reporter: &Reporter) -> Result<Vec<Inspected>> {
        reporter.status("parsing GGUF")?;
        let inspected = self.validate(files, reporter)?;
        match inspected.iter().filter(|file| file.layer.kind() == LayerKind::Model).count() {
            0 => Err(Error::NoFiles),
            1 => Ok(inspected),
            count => Err(several(count)),
        }
    }

    pub(super) fn adapters(&self, files: &Files, reporter: &Reporter) -> Result<Vec<Inspected>> {
        reporter.status("converting adapter")?;
        let inspected = self.validate(files, reporter)?;
        match inspected.iter().all(|file| file.layer.kind() == LayerKind::Adapter) {
            true => Ok(inspected),
            false => Err(Error::UnknownType),
        }
    }

    /// A model that belongs to another, as its own kind of layer.
    pub(super) fn draft(&self, name: &str, digest: &Digest) -> Result<Layer> {
        let model = self.inspect(name, digest)?.layer;
        match model.kind() {
            LayerKind::Model => {
                Ok(Layer { from: model.from, ..Layer::new(LayerKind::Draft, model.digest, model.size) })
            }
            _ => Err(Error::UnknownType),
        }
    }

    /// Refuses what we cannot serve, and removes its blob if nothing else uses it: no retry could succeed with it.
    pub(super) fn inspect(&self, name: &str, digest: &Digest) -> Result<Inspected> {
        let described = match self.inner.home.header(digest) {
            Ok(header) => self.describe(name, digest, &header),
            Err(error) => Err(refuse(name, digest, error)),
        };
        described.inspect_err(|error| {
            if is_final(error) {
                remove::remove_orphans(self.inner, [digest]);
            }
        })
    }

    fn validate(&self, files: &Files, reporter: &Reporter) -> Result<Vec<Inspected>> {
        let mut inspected = Vec::with_capacity(files.len());
        for (name, digest) in files {
            let file = self.inspect(name, digest)?;
            reporter.report(Progress {
                status: "validating GGUF model".to_owned(),
                digest: NO_DIGEST.to_owned(),
                total: file.layer.size,
                completed: file.layer.size,
            })?;
            inspected.push(file);
        }
        Ok(inspected)
    }

    fn describe(&self, name: &str, digest: &Digest, header: &Header) -> Result<Inspected> {
        let (header, bytes) = (&header.gguf, header.bytes);
        let wrong = |source| Error::Gguf { file: name.to_owned(), source };
        let architecture = header.architecture().map_err(wrong)?.to_owned();
        let kind = match Role::of(header) {
            Role::Model => LayerKind::Model,
            Role::Adapter => LayerKind::Adapter,
            Role::Projector => LayerKind::Projector,
        };
        // A projector is kept, and its model answers texts.
        if kind != LayerKind::Projector && !(self.supported)(&architecture) {
            return Err(Error::Architecture(architecture));
        }
        let mut layer = Layer::new(kind, digest.clone(), bytes);
        layer.from = name.to_owned();
        Ok(Inspected {
            layer,
            architecture,
            parameter_size: gguf::human_count(header.parameter_count()),
            file_type: header.file_type(),
        })
    }
}

/// Says what is wrong with a file that is no GGUF, by its name or its first bytes.
fn refuse(name: &str, digest: &Digest, error: gguf::Error) -> Error {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (error, extension.to_ascii_lowercase().as_str()) {
        (gguf::Error::Io { source, .. }, _) if source.kind() == io::ErrorKind::NotFound => {
            Error::BlobNotFound { file: name.to_owned(), digest: digest.to_string() }
        }
        (gguf::Error::Io { action, path, source }, _) => Error::Io { action, path, source },
        (gguf::Error::Magic { .. }, "bin" | "pth" | "pt") => Error::Pickle(name.to_owned()),
        (gguf::Error::Magic { .. }, "gguf") => Error::NotGguf,
        (gguf::Error::Magic { .. }, _) => Error::UnknownType,
        (source, _) => Error::Gguf { file: name.to_owned(), source },
    }
}

/// What two models in one are refused with.
pub(super) fn several(count: usize) -> Error {
    Error::Unsupported(format!("a model made of {count} GGUF files"))
}

/// Whether the file itself is to blame, not the moment.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::NotGguf | Error::Architecture(_) | Error::Gguf { .. })
}

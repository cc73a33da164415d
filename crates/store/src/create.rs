//! Making a model: from a GGUF blob, or from a model that is there already.
//!
//! First everything is read and checked, then the small blobs are written, the manifest last. What was written is
//! taken back when something fails on the way.

mod conversion;
mod draft;
mod file;
mod info;
mod shape;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::ollama::{CreateRequest, Progress};

use crate::home::{self, MAX_MANIFEST, unwatched};
use crate::model::{MAX_TEXTS, too_much_text};
use crate::pins::Pins;
use crate::store::Inner;
use crate::{Digest, Error, Layer, LayerKind, Manifest, Name, Result, durable, remove};
pub(crate) use conversion::needed as conversion;
pub use conversion::{Conversion, Made};
use draft::{Content, Draft};

/// What to make.
#[derive(Clone, Debug)]
pub struct CreateSpec {
    pub name: Name,
    pub request: CreateRequest,
    /// Whether the engine can run a GGUF architecture. Injected, because the engine owns the list.
    pub supported: fn(&str) -> bool,
    /// What workers made of the request's files, where [`crate::Store::conversion`] asked for it.
    pub made: Vec<Made>,
}

/// Progress out, cancellation in.
pub(crate) struct Reporter {
    progress: Box<dyn Fn(Progress) + Send>,
    canceled: Arc<AtomicBool>,
}

// === impl CreateSpec ===

impl CreateSpec {
    /// # Errors
    /// [`Error::Name`] when the request's name is no model name.
    pub fn new(request: CreateRequest, supported: fn(&str) -> bool) -> Result<CreateSpec> {
        let text = if request.model.is_empty() { &request.name } else { &request.model };
        Ok(CreateSpec { name: Name::parse(text.trim())?, request, supported, made: Vec::new() })
    }

    fn made(&self, part: LayerKind) -> Option<&Made> {
        self.made.iter().find(|made| made.part() == part)
    }
}

// === impl Reporter ===

impl Reporter {
    pub(crate) fn new(progress: Box<dyn Fn(Progress) + Send>, canceled: Arc<AtomicBool>) -> Reporter {
        Reporter { progress, canceled }
    }

    /// # Errors
    /// [`Error::Canceled`] when nobody listens any more.
    fn report(&self, progress: Progress) -> Result<()> {
        if self.canceled.load(Ordering::Relaxed) {
            return Err(Error::Canceled);
        }
        (self.progress)(progress);
        Ok(())
    }

    fn status(&self, text: impl Into<String>) -> Result<()> {
        self.report(Progress::status(text))
    }
}

/// Does all of it, on a blocking thread, while the caller holds the lock of the name.
pub(crate) fn run(inner: &Inner, spec: &CreateSpec, reporter: &Reporter) -> Result<()> {
    let mut draft = Draft::begin(inner, spec, reporter)?;
    draft.apply(&spec.request)?;
    let name = inner.home.spelling(&spec.name)?;
    let old = remove::replaced(inner, &name);
    commit(inner, draft, &name, reporter)?;
    remove::orphans_of(inner, old);
    // The model is there; a client that left before this line misses only the line.
    let _ = reporter.status("success");
    Ok(())
}

/// Writes the blobs of a draft, then its manifest.
fn commit(inner: &Inner, draft: Draft, name: &Name, reporter: &Reporter) -> Result<()> {
    let mut written = Written::new(inner, draft.digests());
    let mut layers = Vec::with_capacity(draft.pieces.len());
    for piece in &draft.pieces {
        let is_new = match &piece.content {
            Content::Stored => require(inner, &piece.layer).map(|()| false)?,
            Content::Bytes(bytes) => written.write(&piece.layer.digest, bytes)?,
        };
        let verb = if is_new { "creating new" } else { "using existing" };
        reporter.status(format!("{verb} layer {}", piece.layer.digest))?;
        layers.push(piece.layer.clone());
    }
    let (config, bytes) = draft.config_blob()?;
    let texts = config.size
        + layers.iter().filter(|layer| layer.kind().is_text()).map(|layer| layer.size).sum::<u64>();
    if texts > MAX_TEXTS {
        return Err(too_much_text(texts));
    }
    written.write(&config.digest, &bytes)?;
    let manifest = encode(&Manifest::new(config, layers))?;
    draft::bound("manifest", "bytes", MAX_MANIFEST, manifest.len())?;
    reporter.status("writing manifest")?;
    inner.home.write_manifest(name, &manifest)?;
    written.keep();
    Ok(())
}

/// A layer that should be there.
fn require(inner: &Inner, layer: &Layer) -> Result<()> {
    if inner.home.touch(&layer.digest)? {
        return Ok(());
    }
    Err(Error::BlobNotFound { file: layer.from.clone(), digest: layer.digest.to_string() })
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| Error::Json {
        what: "encode",
        path: "manifest".into(),
        source,
    })
}

/// The blobs that this create has written. Dropped without [`Written::keep`], it removes them again.
struct Written<'a> {
    inner: &'a Inner,
    pins: Option<Pins>,
    new: HashSet<Digest>,
}

// === impl Written ===

impl<'a> Written<'a> {
    /// Pins what the draft needs, so that a delete of another model cannot take it away meanwhile.
    fn new(inner: &'a Inner, digests: Vec<Digest>) -> Written<'a> {
        Written { inner, pins: Some(inner.pins.pin(digests)), new: HashSet::new() }
    }

    /// Writes a blob unless it is there. Says whether it was not.
    fn write(&mut self, digest: &Digest, bytes: &[u8]) -> Result<bool> {
        let home = &self.inner.home;
        if home.touch(digest)? {
            return Ok(false);
        }
        durable::write(&home.local(digest), bytes)?;
        home::publish(&**home, digest, &mut unwatched)?;
        self.new.insert(digest.clone());
        Ok(true)
    }

    fn keep(mut self) {
        self.new.clear();
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.pins = None;
        remove::remove_orphans(self.inner, &self.new);
    }
}

//! Conversions: files of the store become one new blob of it. One at a time, because each takes all cores that it is
//! given; what runs models beside it has its own threads.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use api::Error;
use convert::{Input, Job, Step};
use engine::{LoadOptions, estimate};
use gguf::Quantization;
use protocol::v1::{ConvertProgress, ConvertRequest};
use store::{BlobFile, Digest, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cheap to clone; all clones share the one turn.
#[derive(Clone)]
pub struct Converter {
    store: Store,
    threads: usize,
    turn: Arc<Semaphore>,
}

/// A conversion whose request is in order.
pub(crate) struct Prepared {
    store: Store,
    files: Vec<(String, Digest)>,
    base: Option<(String, Digest)>,
    quantization: Option<Quantization>,
    threads: usize,
}

// === impl Converter ===

impl Converter {
    pub fn new(store: Store, threads: usize) -> Converter {
        Converter { store, threads, turn: Arc::new(Semaphore::new(1)) }
    }

    pub(crate) fn prepare(&self, request: &ConvertRequest) -> Result<Prepared, Error> {
        let quantization = match request.quantization.as_str() {
            "" => None,
            name => Some(Quantization::parse(name).ok_or_else(|| {
                Error::invalid(format!(
                    "`quantization` must be a type that models are quantized to, got {name:?}"
                ))
            })?),
        };
        let file = |file: &protocol::v1::NamedBlob| Ok((file.name.clone(), Digest::parse(&file.digest)?));
        let files = request.files.iter().map(file).collect::<Result<_, Error>>()?;
        let base = request.base.as_ref().map(file).transpose()?;
        Ok(Prepared { store: self.store.clone(), files, base, quantization, threads: self.threads })
    }

    /// Waits until nobody else converts.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        // The semaphore is never closed; if it were, this worker would be on its way out.
        self.turn.clone().acquire_owned().await.map_err(|_| Error::unavailable("the worker is shutting down"))
    }
}

// === impl Prepared ===

impl Prepared {
    /// Does all of it; blocking. `tell` breaks when nobody listens any more.
    pub fn run(self, tell: &mut dyn FnMut(ConvertProgress) -> ControlFlow<()>) -> Result<Digest, Error> {
        // Until the end: a cache shall keep what is being read.
        let (mut files, mut held) = (Vec::new(), Vec::new());
        for file in &self.files {
            let (input, blob) = self.input(file, tell)?;
            files.push(input);
            held.push(blob);
        }
        let base = self.base.as_ref().map(|base| self.input(base, tell)).transpose()?;
        let (base, _held_base) = base.unzip();
        let job = Job { files, base, quantization: self.quantization, threads: self.threads };
        let mut blob = self.store.new_blob()?;
        convert::convert(&job, &mut blob, &mut |step| tell(told(step)))?;
        let status = "verifying conversion".to_owned();
        if tell(ConvertProgress { status, ..ConvertProgress::default() }).is_break() {
            return Err(convert::Error::Canceled.into());
        }
        if job.base.is_none() {
            verify(blob.path()?)?;
        }
        let status = "storing converted model".to_owned();
        Ok(blob.publish(&mut |completed, total| {
            tell(ConvertProgress { status: status.clone(), total, completed, made: String::new() })
        })?)
    }

    /// A file, brought to this machine where it is not.
    fn input(
        &self,
        (name, digest): &(String, Digest),
        tell: &mut dyn FnMut(ConvertProgress) -> ControlFlow<()>,
    ) -> Result<(Input, BlobFile), Error> {
        let status = format!("fetching {name}");
        let blob = self.store.fetch(digest, &mut |completed, total| {
            tell(ConvertProgress { status: status.clone(), total, completed, made: String::new() })
        })?;
        Ok((Input { name: name.clone(), path: blob.path().to_owned() }, blob))
    }

    pub fn store(&self) -> Store {
        self.store.clone()
    }
}

/// The engine reads the header as it would for a load, so that what it would refuse does not become a model.
fn verify(path: &Path) -> Result<(), Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::invalid(format!("the converted model: {error}"));
    let file = gguf::File::open(path).map_err(|error| wrong(&error))?;
    estimate(file.header(), &LoadOptions::default()).map(drop).map_err(|error| wrong(&error))
}

fn told(step: Step) -> ConvertProgress {
    let Step { status, total, completed } = step;
    ConvertProgress { status, total, completed, made: String::new() }
}

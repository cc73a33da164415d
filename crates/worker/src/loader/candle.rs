//! Loads GGUF files from the store into the candle engine.

use std::{error::Error as _, io};

use api::Error;
use engine::{CandleEngine, Device, Engine, KvType, Tier, estimate};
use gguf::{File, Gguf};
use protocol::v1::{LoadOptions, Model};
use store::{BlobFile, Digest, Store};

use super::{Built, Loader, Opened, Report, Shape};
use crate::converter::Converter;

#[derive(Clone)]
pub struct CandleLoader {
    pub store: Store,
    /// For one step of one replica; a request's `num_thread` goes before it.
    pub threads: usize,
    /// `None` = the best that the processor has (`CARAVAN_CPU`).
    pub tier: Option<Tier>,
    /// Guessed tokens of one step at most; 0 = none, `None` = what the engine takes to be good (`CARAVAN_GUESSES`).
    pub guesses: Option<usize>,
    /// How the KV cache keeps a number (`OLLAMA_KV_CACHE_TYPE`).
    pub kv_type: KvType,
    pub device: Device,
}

struct OpenedFile {
    weights: Weights,
    threads: usize,
    tier: Option<Tier>,
    guesses: Option<usize>,
    kv_type: KvType,
    device: Device,
    train_context_length: usize,
}

/// The weights of a model, as far as they are here.
enum Weights {
    Here {
        file: File,
        blob: BlobFile,
    },
    /// In a bucket; of them only the header was read.
    Away {
        header: Gguf,
        digest: Digest,
        store: Store,
    },
}

/// How much of a load is to bring the weights here, where they must be brought.
const BRINGING: f32 = 0.7;

// === impl CandleLoader ===

impl Loader for CandleLoader {
    fn open(&self, model: &Model, options: &LoadOptions) -> Result<Box<dyn Opened>, Error> {
        if !model.adapters.is_empty() {
            return Err(Error::invalid(format!("{} has adapters, which are not supported yet", model.name)));
        }
        let digest = Digest::parse(&model.weights)?;
        let weights = self.weights(digest).map_err(|error| unreadable(model, &error))?;
        let trained = weights
            .header()
            .metadata
            .arch_u64("context_length")
            .map_err(|error| unreadable(model, &error))?;
        let threads = match options.num_thread {
            0 => self.threads,
            threads => usize::try_from(threads).unwrap_or(usize::MAX).min(self.threads),
        };
        let opened = OpenedFile {
            threads: threads.max(1),
            tier: self.tier,
            guesses: self.guesses,
            kv_type: self.kv_type,
            device: self.device,
            // Without the key the engine refuses the file, in its own words.
            train_context_length: trained
                .and_then(|length| usize::try_from(length).ok())
                .unwrap_or(usize::MAX),
            weights,
        };
        // What cannot be loaded is refused before memory is planned for it.
        estimate(opened.weights.header(), &opened.options(Shape { slots: 1, context_length: 1 }))?;
        Ok(Box::new(opened))
    }

    fn automatic_slots(&self) -> usize {
        4
    }

    fn converter(&self) -> Option<Converter> {
        Some(Converter::new(self.store.clone(), self.threads))
    }
}

impl CandleLoader {
    fn weights(&self, digest: Digest) -> Result<Weights, gguf::Error> {
        match self.store.cached(&digest) {
            Some(blob) => Ok(Weights::Here { file: File::open(blob.path())?, blob }),
            None => {
                let header = self.store.header(&digest)?.gguf;
                Ok(Weights::Away { header, digest, store: self.store.clone() })
            }
        }
    }
}

impl Weights {
    fn header(&self) -> &Gguf {
        match self {
            Weights::Here { file, .. } => file.header(),
            Weights::Away { header, .. } => header,
        }
    }
}

impl OpenedFile {
    fn options(&self, shape: Shape) -> engine::LoadOptions {
        let usual = engine::LoadOptions::default();
        engine::LoadOptions {
            slots: shape.slots,
            context_length: shape.context_length,
            threads: self.threads,
            tier: self.tier,
            guesses: self.guesses.unwrap_or(usual.guesses),
            kv_type: self.kv_type,
            device: self.device,
            ..usual
        }
    }
}

impl Opened for OpenedFile {
    fn train_context_length(&self) -> usize {
        self.train_context_length
    }

    fn size_bytes(&self, shape: Shape) -> u64 {
        // A shape that the engine refuses fits nowhere; `load` says why.
        estimate(self.weights.header(), &self.options(shape)).map_or(0, |estimate| estimate.total_bytes())
    }

    fn load(self: Box<Self>, shape: Shape, progress: Report<'_>) -> Result<Built, Error> {
        let options = self.options(shape);
        let (file, blob, done) = match self.weights {
            Weights::Here { file, blob } => (file, blob, 0.0),
            Weights::Away { digest, store, .. } => {
                let blob = store.fetch(&digest, &mut |completed, total| {
                    progress(BRINGING * (completed as f64 / total.max(1) as f64) as f32)
                })?;
                let file = File::open(blob.path())
                    .map_err(|error| Error::internal(format!("load {digest}: {error}")))?;
                (file, blob, BRINGING)
            }
        };
        let mut rest = |fraction: f32| progress(done + (1.0 - done) * fraction);
        let engine: Box<dyn Engine> = Box::new(CandleEngine::load(&file, options, &mut rest)?);
        Ok(Built { engine, file: Some(blob) })
    }
}

/// A blob that is not there is the model not being there, in Ollama's words.
fn unreadable(model: &Model, error: &gguf::Error) -> Error {
    if let gguf::Error::Io { source, .. } = error
        && source.kind() == io::ErrorKind::NotFound
    {
        return Error::not_found(format!("model \"{}\" not found, try pulling it first", model.name));
    }
    match error.source() {
        Some(source) => Error::internal(format!("load {}: {error}: {source}", model.name)),
        None => Error::internal(format!("load {}: {error}", model.name)),
    }
}

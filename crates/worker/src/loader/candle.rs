//! Loads GGUF files from the store into the candle engine.

use std::{error::Error as _, io};

use api::Error;
use engine::{CandleEngine, Device, Engine, KvType, Tier, estimate};
use gguf::File;
use protocol::v1::{LoadOptions, Model};
use store::{Digest, Store};

use super::{Loader, Opened, Report, Shape};
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
    file: File,
    threads: usize,
    tier: Option<Tier>,
    guesses: Option<usize>,
    kv_type: KvType,
    device: Device,
    train_context_length: usize,
}

// === impl CandleLoader ===

impl Loader for CandleLoader {
    fn open(&self, model: &Model, options: &LoadOptions) -> Result<Box<dyn Opened>, Error> {
        if !model.adapters.is_empty() {
            return Err(Error::invalid(format!("{} has adapters, which are not supported yet", model.name)));
        }
        let digest = Digest::parse(&model.weights)?;
        let file = File::open(&self.store.blob_path(&digest)).map_err(|error| unreadable(model, &error))?;
        let trained =
            file.header().metadata.arch_u64("context_length").map_err(|error| unreadable(model, &error))?;
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
            file,
        };
        // What cannot be loaded is refused before memory is planned for it.
        estimate(opened.file.header(), &opened.options(Shape { slots: 1, context_length: 1 }))?;
        Ok(Box::new(opened))
    }

    fn automatic_slots(&self) -> usize {
        4
    }

    fn converter(&self) -> Option<Converter> {
        Some(Converter::new(self.store.clone(), self.threads))
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
        estimate(self.file.header(), &self.options(shape)).map_or(0, |estimate| estimate.total_bytes())
    }

    fn load(self: Box<Self>, shape: Shape, progress: Report<'_>) -> Result<Box<dyn Engine>, Error> {
        let engine = CandleEngine::load(&self.file, self.options(shape), progress)?;
        Ok(Box::new(engine))
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

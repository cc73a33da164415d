//! Where engines come from: the seam between the replicas, which know when to load, and what is loaded.

mod candle;
mod scripted;

use std::ops::ControlFlow;

use api::Error;
use engine::Engine;
use protocol::v1::{LoadOptions, Model};
use store::BlobFile;

use crate::converter::Converter;

pub use self::{candle::CandleLoader, scripted::ScriptedLoader};

/// Finds models and loads them. Everything here blocks and runs on a blocking thread.
pub trait Loader: Send + Sync + 'static {
    /// Finds the files of a model and reads what the plan needs to know, but no weights.
    fn open(&self, model: &Model, options: &LoadOptions) -> Result<Box<dyn Opened>, Error>;

    /// How many sequences a replica runs when nobody says so: batching makes more of them cheap, until the
    /// device's arithmetic is the bound.
    fn automatic_slots(&self) -> usize;

    /// What converts models here, where there is a store to convert in.
    fn converter(&self) -> Option<Converter> {
        None
    }
}

/// A model that could be loaded.
pub trait Opened: Send {
    fn train_context_length(&self) -> usize;

    /// What a replica of that shape would take.
    fn size_bytes(&self, shape: Shape) -> u64;

    /// Reports how far it is, from 0 to 1; a break gives the load up as soon as possible.
    fn load(self: Box<Self>, shape: Shape, progress: Report<'_>) -> Result<Built, Error>;
}

/// A model that is loaded.
pub struct Built {
    pub engine: Box<dyn Engine>,
    /// Its file stays on this machine as long as it is loaded: the next load will want it again.
    pub file: Option<BlobFile>,
}

impl From<Box<dyn Engine>> for Built {
    fn from(engine: Box<dyn Engine>) -> Built {
        Built { engine, file: None }
    }
}

/// Called as a load goes on.
pub type Report<'a> = &'a mut dyn FnMut(f32) -> ControlFlow<()>;

/// How large a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub slots: usize,
    /// Positions of one slot.
    pub context_length: usize,
}

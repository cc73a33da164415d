//! Loads the scripted engine under any name, at once.

use api::Error;
use engine::Engine;
use protocol::v1::{LoadOptions, Model};

use super::{Loader, Opened, Report, Shape};
use crate::scripted::{self, Config, Scripted, SystemPace};

#[derive(Clone, Copy, Debug)]
pub struct ScriptedLoader {
    pub config: Config,
}

struct OpenedScripted(Config);

impl Loader for ScriptedLoader {
    fn open(&self, _: &Model, _: &LoadOptions) -> Result<Box<dyn Opened>, Error> {
        Ok(Box::new(OpenedScripted(self.config)))
    }

    fn automatic_slots(&self) -> usize {
        4
    }
}

impl Opened for OpenedScripted {
    fn train_context_length(&self) -> usize {
        scripted::TRAIN_CONTEXT_LENGTH
    }

    fn size_bytes(&self, shape: Shape) -> u64 {
        scripted::size_bytes(shape.slots, shape.context_length)
    }

    fn load(self: Box<Self>, shape: Shape, progress: Report<'_>) -> Result<Box<dyn Engine>, Error> {
        // Nobody can leave in between: there is nothing to wait for.
        let _ = progress(1.0);
        let pace = Box::new(SystemPace::default());
        Ok(Box::new(Scripted::new(shape.slots, shape.context_length, &self.0, pace)))
    }
}

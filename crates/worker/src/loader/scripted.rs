//! Loads the scripted engine under any name, as slowly as a test wants.

use std::time::Duration;

use api::{Code, Error};
use engine::Engine;
use protocol::v1::{LoadOptions, Model};

use super::{Built, Loader, Opened, Report, Shape};
use crate::scripted::{self, Config, Pace, Scripted, SystemPace};

#[derive(Clone, Copy, Debug)]
pub struct ScriptedLoader {
    pub config: Config,
    /// How long a load takes (`CARAVAN_SCRIPTED_LOAD_MS`).
    pub load_time: Duration,
}

struct OpenedScripted(ScriptedLoader);

/// How often a load says how far it is, and looks whether anybody still wants it.
const PROGRESS: Duration = Duration::from_millis(20);

impl Loader for ScriptedLoader {
    fn open(&self, _: &Model, _: &LoadOptions) -> Result<Box<dyn Opened>, Error> {
        Ok(Box::new(OpenedScripted(*self)))
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

    fn load(self: Box<Self>, shape: Shape, progress: Report<'_>) -> Result<Built, Error> {
        let ScriptedLoader { config, load_time } = self.0;
        let mut pace = Box::new(SystemPace::default());
        while pace.now() < load_time {
            if progress(pace.now().as_secs_f32() / load_time.as_secs_f32()).is_break() {
                return Err(Error::new(Code::Canceled, "the load was given up"));
            }
            let next = pace.now() + PROGRESS;
            pace.sleep_until(next.min(load_time));
        }
        // Too late to give up: the model is there.
        let _ = progress(1.0);
        let engine: Box<dyn Engine> =
            Box::new(Scripted::new(shape.slots, shape.context_length, &config, pace));
        Ok(engine.into())
    }
}

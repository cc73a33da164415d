//! The replicas of a worker: loading, ready, unloading.
//!
//! The table says what is; one task per replica does what takes time (permit, load, unload) from its first wish to
//! its freed memory; the keeper says when an idle one goes. Handles leave this module, the table does not.

mod keeper;
mod load;
mod plan;
mod status;
mod table;
mod tend;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Code, Error};
use protocol::v1::Model;
use registry::{Registry, Session};
use store::BlobFile;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::table::Table;
use crate::{
    changes::Changes, clock::Clock, config::Config, keep_alive::KeepAlive, loader::Loader, prompt::Prompts,
    runner::Runner, slots::Slot,
};

/// Cheap to clone.
#[derive(Clone)]
pub struct Replicas(Arc<Inner>);

struct Inner {
    config: Config,
    loader: Arc<dyn Loader>,
    registry: Registry,
    session: Arc<Session>,
    clock: Clock,
    changes: Changes,
    table: Mutex<Table>,
    tasks: TaskTracker,
}

/// A loaded model.
#[derive(Debug)]
pub struct Loaded {
    pub runner: Runner,
    pub prompts: Prompts,
    /// Positions that a request gets which names no number, if a slot has them.
    pub usual_context: usize,
    /// Kept from going while the model is loaded.
    pub _file: Option<BlobFile>,
}

impl Loaded {
    /// Positions that a request may use; 0 wished = the usual number.
    pub fn context_length(&self, wished: u32) -> usize {
        let wished = match wished {
            0 => self.usual_context,
            wished => usize::try_from(wished).unwrap_or(usize::MAX),
        };
        wished.clamp(1, self.runner.info().context_length)
    }
}

/// A request's hold on a replica, as long as its answer: it is not idle meanwhile.
pub struct InUse {
    replicas: Replicas,
    key: String,
    id: u64,
    loaded: Arc<Loaded>,
}

/// How a load goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    pub fraction: f32,
    /// Set when it is over.
    pub end: Option<Result<(), Error>>,
}

// === impl Replicas ===

impl Replicas {
    /// Begins to watch for replicas that are to go. Ends with [`Replicas::close`].
    pub fn start(
        config: Config,
        loader: Arc<dyn Loader>,
        registry: Registry,
        session: Arc<Session>,
    ) -> Replicas {
        let inner = Inner {
            config,
            loader,
            registry,
            session,
            clock: Clock::start(),
            changes: Changes::default(),
            table: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        let replicas = Replicas(Arc::new(inner));
        replicas.0.tasks.spawn(keeper::keep(Arc::downgrade(&replicas.0)));
        replicas
    }

    /// For a request: [`Code::NotLoaded`] unless the replica is ready.
    pub fn enter(&self, model: &Model, keep_alive: Option<KeepAlive>) -> Result<InUse, Error> {
        let key = &model.replica_key;
        let mut table = self.table();
        if table.draining {
            return Err(draining());
        }
        let Some((id, loaded)) = table.enter(key, keep_alive, Instant::now()) else {
            return Err(Error::new(
                Code::NotLoaded,
                format!("`{}` is not loaded on this worker", model.name),
            ));
        };
        Ok(InUse { replicas: self.clone(), key: key.clone(), id, loaded })
    }

    /// False when there is no such replica. It goes at once if it is idle, else with its last answer.
    pub fn unload(&self, key: &str) -> bool {
        let found = self.table().retire(key);
        self.0.changes.notify();
        found
    }

    /// Rings at every change of what [`Replicas::status`] tells.
    pub fn changes(&self) -> &Changes {
        &self.0.changes
    }

    /// Admits nothing new; idle replicas go.
    pub fn drain(&self) {
        let mut table = self.table();
        table.draining = true;
        table.retire_all();
        drop(table);
        self.0.changes.notify();
    }

    /// Waits until every replica has gone; what still runs at the deadline breaks off.
    pub async fn close(&self, deadline: Instant) {
        self.drain();
        if tokio::time::timeout_at(deadline, self.emptied()).await.is_err() {
            tracing::warn!("answers still run at the end of the drain, they break off");
            self.table().stop_all();
            self.0.changes.notify();
            self.emptied().await;
        }
        self.0.tasks.close();
        self.0.changes.notify();
        self.0.tasks.wait().await;
    }

    async fn emptied(&self) {
        let mut changes = self.0.changes.watch();
        while !self.table().is_empty() {
            // The sender lives in `self`, so there is always a next change.
            let _ = changes.changed().await;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is whole before anything can panic.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl InUse ===

impl InUse {
    pub fn loaded(&self) -> &Arc<Loaded> {
        &self.loaded
    }

    /// [`Code::Busy`] at once when every slot is taken (C2).
    pub fn take_slot(&self) -> Result<Slot, Error> {
        let slots = self.loaded.runner.slots();
        let busy =
            || Error::new(Code::Busy, format!("every one of the {} slots runs a sequence", slots.total()));
        slots.take().ok_or_else(busy)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.replicas.table().leave(&self.key, self.id, Instant::now());
        self.replicas.0.changes.notify();
    }
}

fn draining() -> Error {
    Error::unavailable("the worker is draining and takes nothing new")
}

/// What a replica's task needs to be told apart from its earlier lives.
#[derive(Clone)]
struct Life {
    key: String,
    id: u64,
    stop: CancellationToken,
}

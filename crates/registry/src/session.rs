//! A worker's presence: a lease kept alive by a task that owns it, and the records that live under it.
//!
//! When the lease is lost the task takes a new one and publishes everything again. While the metadata store is out
//! of reach the holder is told so, and in the end that its permits count for nothing any more: others cannot tell
//! a worker that is cut off from one that is dead.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    keys,
    permits::Desk,
    records::{ReplicaRecord, WorkerRecord, encode},
    store::{self, MAX_TXN_BYTES},
};

mod keeper;

pub(crate) use keeper::{Keeper, Watches};

/// How far the others can be trusted to see this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The lease is alive and every record is published.
    Live,
    /// The lease was last renewed then. Others may take the worker for gone.
    Cut { since: Instant },
    /// Cut for so long that others are about to reclaim its permits: unload everything now.
    Forfeit,
    /// Closed, or another process has taken the worker's id.
    Ended,
}

/// Dropping it ends the session; [`Session::close`] also waits for that.
pub struct Session {
    shared: Arc<Shared>,
    desk: Desk,
    state: watch::Receiver<SessionState>,
    written: watch::Receiver<u64>,
    tasks: SessionTasks,
}

/// The session's two tasks and how to end them.
pub(crate) struct SessionTasks {
    /// Gives permits back. Ends first, because what it writes needs no lease, but others wait for it.
    clerk: CancellationToken,
    /// Keeps the lease.
    keeper: CancellationToken,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

type Task = (CancellationToken, JoinHandle<()>);

/// What the session and its keeper have in common.
pub(crate) struct Shared {
    wishes: Mutex<Wishes>,
    /// Tells the keeper that `wishes` has changed.
    wake: Notify,
    /// Cancelled when permits that were granted until now are forfeit; then there is a new one for those to come.
    trust: Mutex<CancellationToken>,
}

/// What should be in the store.
struct Wishes {
    worker: WorkerRecord,
    /// By store key.
    replicas: BTreeMap<String, Bytes>,
    /// Counts changes, so that a caller can wait until its own is written.
    generation: u64,
}

// === impl Session ===

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, desk: Desk, watches: Watches, tasks: SessionTasks) -> Session {
        Session { shared, desk, state: watches.state, written: watches.written, tasks }
    }

    /// As last announced or updated.
    pub fn worker(&self) -> WorkerRecord {
        self.shared.worker()
    }

    pub fn state(&self) -> SessionState {
        *self.state.borrow()
    }

    /// Tells every change of the state.
    pub fn watch_state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// Resolves when the worker must unload everything, because its permits are about to be reclaimed, or because
    /// the session has ended.
    pub async fn forfeited(&self) {
        let token = self.shared.trust();
        if self.state() != SessionState::Ended {
            token.cancelled().await;
        }
    }

    /// Publishes what the worker has loaded. An error means that it is not published yet; it will be when the
    /// store is back, unless it is withdrawn before.
    pub async fn publish(&self, replica: &ReplicaRecord) -> Result<()> {
        let key = keys::replica(&self.worker().id, &replica.replica_key);
        let value = encode(replica);
        check_size(&key, &value)?;
        self.wish(|wishes| drop(wishes.replicas.insert(key, value))).await
    }

    pub async fn withdraw(&self, replica_key: &str) -> Result<()> {
        let key = keys::replica(&self.worker().id, replica_key);
        self.wish(|wishes| drop(wishes.replicas.remove(&key))).await
    }

    /// Changes the worker's own record: that it drains, for example. Its id and boot id stay.
    pub async fn update(&self, edit: impl FnOnce(&mut WorkerRecord)) -> Result<()> {
        let mut worker = self.worker();
        let (id, boot_id) = (worker.id.clone(), worker.boot_id.clone());
        edit(&mut worker);
        (worker.id, worker.boot_id) = (id, boot_id);
        check_size(&keys::worker(&worker.id), &encode(&worker))?;
        self.wish(|wishes| wishes.worker = worker).await
    }

    /// Gives back what was released, revokes the lease, so that the others see it at once, and waits for both.
    pub async fn close(&self) {
        let handles =
            std::mem::take(&mut *self.tasks.handles.lock().expect("nothing under this lock panics"));
        self.tasks.clerk.cancel();
        for handle in handles {
            // Each ends within a few of the store's time limits. The keeper comes last.
            let _ = handle.await;
            self.tasks.keeper.cancel();
        }
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    async fn wish(&self, edit: impl FnOnce(&mut Wishes)) -> Result<()> {
        let generation = self.shared.wish(edit);
        let (mut state, mut written) = (self.state.clone(), self.written.clone());
        tokio::select! {
            // First, because a session that is live again has also written what was wished meanwhile.
            biased;
            Ok(_) = written.wait_for(|written| *written >= generation) => Ok(()),
            state = state.wait_for(|state| *state != SessionState::Live) => match state.map(|state| *state) {
                Ok(SessionState::Ended) | Err(_) => Err(Error::Closed),
                Ok(_) => Err(Error::Cut { worker: self.worker().id }),
            },
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.clerk.cancel();
        self.tasks.keeper.cancel();
    }
}

// === impl SessionTasks ===

impl SessionTasks {
    pub fn new(clerk: Task, keeper: Task) -> SessionTasks {
        SessionTasks { clerk: clerk.0, keeper: keeper.0, handles: Mutex::new(vec![clerk.1, keeper.1]) }
    }
}

// === impl Shared ===

impl Shared {
    pub fn new(worker: WorkerRecord) -> Shared {
        let wishes = Wishes { worker, replicas: BTreeMap::new(), generation: 1 };
        Shared { wishes: Mutex::new(wishes), wake: Notify::new(), trust: Mutex::default() }
    }

    /// Lasts as long as a permit that is granted now can be trusted.
    pub fn trust(&self) -> CancellationToken {
        self.trust.lock().expect("nothing under this lock panics").clone()
    }

    fn forfeit(&self) {
        let old = std::mem::take(&mut *self.trust.lock().expect("nothing under this lock panics"));
        old.cancel();
    }

    pub fn worker(&self) -> WorkerRecord {
        self.lock().worker.clone()
    }

    /// Everything by store key, the worker's own record included, and which generation that is.
    fn wishes(&self) -> (BTreeMap<String, Bytes>, u64) {
        let wishes = self.lock();
        let mut records = wishes.replicas.clone();
        records.insert(keys::worker(&wishes.worker.id), encode(&wishes.worker));
        (records, wishes.generation)
    }

    fn wish(&self, edit: impl FnOnce(&mut Wishes)) -> u64 {
        let mut wishes = self.lock();
        edit(&mut wishes);
        wishes.generation += 1;
        let generation = wishes.generation;
        drop(wishes);
        self.wake.notify_one();
        generation
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().expect("nothing under this lock panics")
    }
}

fn check_size(key: &str, value: &Bytes) -> Result<()> {
    // A quarter of what a transaction may hold, so that the keeper can always write a few at once.
    let limit = MAX_TXN_BYTES / 4;
    if value.len() <= limit {
        return Ok(());
    }
    Err(store::Error::TooLarge { what: format!("bytes of `{key}`"), limit, got: value.len() }.into())
}

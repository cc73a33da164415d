//! Permits to have a model in memory (contract C1): exact under races, crashes and partitions.
//!
//! A grant is one transaction that counts: the permits are read together with the guard, a key that every grant
//! writes, and the grant is conditioned on the guard being unchanged. So between the reading and the grant nobody
//! else was granted anything, and what was released meanwhile only makes room. The limit, the worker's own record
//! and, for the automatic limit, the records of the workers whose devices justify the grant are conditions too.
//!
//! A permit is not leased. Its worker gives it back after the memory is free; `reaper` takes it from the dead.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    keys::ReplicaId,
};

mod clerk;
mod grant;

pub(crate) use clerk::Clerk;
pub(crate) use grant::delete;

/// Requests that wait for the clerk. One comes per load, and a worker loads few models at once.
const QUEUE: usize = 64;

/// The right to have one model in memory on this session's worker. Drop it, or better
/// [`release`](Permit::release) it, when the memory is free and not before.
#[derive(Debug)]
pub struct Permit {
    id: ReplicaId,
    revision: i64,
    forfeited: CancellationToken,
    /// `None` once it is on its way back.
    returns: Option<Arc<Returns>>,
}

/// Where a session asks for permits. The clerk behind it serves one request at a time.
#[derive(Clone)]
pub(crate) struct Desk {
    requests: mpsc::Sender<Request>,
}

pub(crate) struct Request {
    replica_key: String,
    reply: oneshot::Sender<Result<Permit>>,
}

/// Permits on their way back. Not a channel, because a permit that is dropped cannot wait for room in one; it
/// holds at most what was granted.
#[derive(Debug, Default)]
pub(crate) struct Returns {
    waiting: Mutex<BTreeMap<String, Return>>,
    wake: Notify,
}

#[derive(Debug)]
struct Return {
    /// `None` when nobody knows whether the permit was granted.
    revision: Option<i64>,
    reply: Option<oneshot::Sender<Result<()>>>,
}

// === impl Permit ===

impl Permit {
    pub fn worker(&self) -> &str {
        &self.id.worker
    }

    pub fn replica_key(&self) -> &str {
        &self.id.replica_key
    }

    /// Resolves when the permit counts for nothing any more: the worker was cut off for so long that others are
    /// about to reclaim it, or somebody has deleted it. Unload at once, then release or drop it.
    pub async fn forfeited(&self) {
        self.forfeited.cancelled().await;
    }

    /// The same for those who cannot borrow the permit while they wait.
    pub fn forfeit_token(&self) -> CancellationToken {
        self.forfeited.clone()
    }

    /// Gives it back and waits until others can have it. On an error the session goes on trying.
    pub async fn release(mut self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.give_back(Some(reply));
        answer.await.unwrap_or(Err(Error::Closed))
    }

    fn give_back(&mut self, reply: Option<oneshot::Sender<Result<()>>>) {
        if let Some(returns) = self.returns.take() {
            let back = Return { revision: Some(self.revision), reply };
            returns.lock().insert(self.id.replica_key.clone(), back);
            returns.wake.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

// === impl Desk ===

impl Desk {
    pub fn new() -> (Desk, mpsc::Receiver<Request>) {
        let (requests, queue) = mpsc::channel(QUEUE);
        (Desk { requests }, queue)
    }

    pub async fn acquire(&self, replica_key: &str) -> Result<Permit> {
        let (reply, answer) = oneshot::channel();
        let request = Request { replica_key: replica_key.to_owned(), reply };
        self.requests.send(request).await.map_err(|_| Error::Closed)?;
        // A caller that leaves meanwhile drops the answer, and with it the permit, which gives it back.
        answer.await.unwrap_or(Err(Error::Closed))
    }
}

// === impl Returns ===

impl Returns {
    fn take(&self) -> BTreeMap<String, Return> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Return>> {
        self.waiting.lock().expect("nothing under this lock panics")
    }
}

//! The task that holds a session's permits: grants them one at a time, gives them back until that succeeds, and
//! tells their holders when they are forfeit.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{
    Permit, Request, Return, Returns,
    grant::{annul, delete, grant},
};
use crate::{
    error::{Error, Result},
    keys::ReplicaId,
    records::WorkerRecord,
    retry::Backoff,
    session::{SessionState, Shared},
    store::MetadataStore,
    view::ClusterView,
};

/// Between two attempts to give permits back: the others wait for them.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSE: Duration = Duration::from_secs(1);

/// At the end: a second or two without a silent store, and the process has to end some day.
const LAST_ATTEMPTS: u32 = 4;

pub(crate) struct Clerk {
    pub store: Arc<dyn MetadataStore>,
    /// As announced; the parts that a permit names never change.
    pub worker: WorkerRecord,
    pub requests: mpsc::Receiver<Request>,
    pub session: Arc<Shared>,
    pub state: watch::Receiver<SessionState>,
    pub view: watch::Receiver<Arc<ClusterView>>,
    pub books: ClerkBooks,
}

/// What the clerk itself writes down.
#[derive(Default)]
pub(crate) struct ClerkBooks {
    /// By replica key.
    held: BTreeMap<String, Held>,
    /// Released, and not deleted from the store yet.
    leaving: BTreeMap<String, Return>,
    returns: Arc<Returns>,
}

struct Held {
    revision: i64,
    /// Of the view at the time of the grant.
    setbacks: u32,
    forfeited: CancellationToken,
}

// === impl Clerk ===

impl Clerk {
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        let mut retry_at = None;
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.books.returns.wake.notified() => {}
                () = at(retry_at) => {}
                Some(request) = self.requests.recv() => self.serve(request).await,
                Ok(()) = self.view.changed() => self.check_view(),
            }
            retry_at = match self.give_back().await {
                true => {
                    backoff.reset();
                    None
                }
                false => Some(Instant::now() + backoff.pause()),
            };
        }
        self.end(backoff).await;
    }

    async fn serve(&mut self, request: Request) {
        self.give_back().await;
        let granted = self.grant(&request.replica_key).await;
        if let Err(error) = &granted {
            debug!(%error, replica_key = request.replica_key, "no permit");
        }
        // The caller may have left; the permit then drops here and comes back to us.
        let _ = request.reply.send(granted);
    }

    async fn grant(&mut self, replica_key: &str) -> Result<Permit> {
        if self.books.is_known(replica_key) {
            let worker = self.worker.id.clone();
            return Err(Error::PermitHeld { worker, replica_key: replica_key.to_owned() });
        }
        if *self.state.borrow() != SessionState::Live {
            return Err(Error::Cut { worker: self.worker.id.clone() });
        }
        // Taken before the grant, because the session may be cut off in the middle of it.
        let trust = self.session.trust();
        let result = grant(&*self.store, &self.worker, replica_key).await;
        if let Err(Error::Store(error)) = &result
            && error.is_retryable()
        {
            // Nobody knows whether it was granted.
            let unknown = Return { revision: None, reply: None };
            self.books.leaving.insert(replica_key.to_owned(), unknown);
        }
        let setbacks = self.view.borrow().setbacks;
        let id = ReplicaId::new(&self.worker.id, replica_key);
        result
            .map(|revision| self.books.hold(id, Held { revision, setbacks, forfeited: trust.child_token() }))
    }

    /// Deletes what was released from the store. False when something is left to do.
    async fn give_back(&mut self) -> bool {
        self.books.collect();
        while let Some((replica_key, mut back)) = self.books.leaving.pop_first() {
            let id = ReplicaId::new(&self.worker.id, &replica_key);
            let result = match back.revision {
                // Refused means that it is not ours any more, which is as good.
                Some(revision) => delete(&*self.store, &id, revision, &[]).await.map(|_| ()),
                None => annul(&*self.store, &id, &self.worker.boot_id).await,
            };
            let has_failed = result.is_err();
            if let Err(error) = &result {
                warn!(%error, replica_key, "permit could not be given back, it is tried again");
            }
            if let Some(reply) = back.reply.take() {
                // Nobody may be waiting any more.
                let _ = reply.send(result);
            }
            if has_failed {
                self.books.leaving.insert(replica_key, back);
                return false;
            }
        }
        true
    }

    /// A permit that is not in the store any more was reclaimed, or deleted by a person.
    fn check_view(&mut self) {
        let view = self.view.borrow_and_update();
        for (replica_key, held) in &self.books.held {
            let in_store = view.permits.get(&ReplicaId::new(&self.worker.id, replica_key));
            let is_there = in_store.is_some_and(|permit| permit.revision == held.revision);
            // A view that is older than the grant proves nothing, unless the store itself went back.
            let is_proof = view.revision >= held.revision || view.setbacks != held.setbacks;
            if is_proof && !is_there && !held.forfeited.is_cancelled() {
                error!(worker = self.worker.id, replica_key, "permit was reclaimed while it was held");
                held.forfeited.cancel();
            }
        }
    }

    /// Gives back what can be given back in a few attempts; the rest is for the reaper.
    async fn end(&mut self, mut backoff: Backoff) {
        let mut attempts = 1;
        while !self.give_back().await && attempts < LAST_ATTEMPTS {
            attempts += 1;
            sleep(backoff.pause()).await;
        }
        self.books.held.values().for_each(|held| held.forfeited.cancel());
        let left: Vec<&String> = self.books.leaving.keys().chain(self.books.held.keys()).collect();
        if !left.is_empty() {
            warn!(worker = self.worker.id, ?left, "permits were not given back, others reclaim them");
        }
    }
}

// === impl ClerkBooks ===

impl ClerkBooks {
    fn is_known(&self, replica_key: &str) -> bool {
        self.held.contains_key(replica_key) || self.leaving.contains_key(replica_key)
    }

    fn hold(&mut self, id: ReplicaId, held: Held) -> Permit {
        let (revision, forfeited) = (held.revision, held.forfeited.clone());
        self.held.insert(id.replica_key.clone(), held);
        Permit { id, revision, forfeited, returns: Some(self.returns.clone()) }
    }

    /// Moves what was released meanwhile from `held` to `leaving`.
    fn collect(&mut self) {
        for (replica_key, back) in self.returns.take() {
            // Unless it is the next permit for the same model.
            if self.held.get(&replica_key).is_some_and(|held| Some(held.revision) == back.revision) {
                self.held.remove(&replica_key);
            }
            self.leaving.insert(replica_key, back);
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

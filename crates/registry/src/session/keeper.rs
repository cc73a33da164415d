//! The task behind a session: renews the lease, writes what the session wishes to have in the store, and starts
//! over with a new lease when the old one is gone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{SessionState, Shared};
use crate::{
    error::{Error, Result},
    keys,
    records::{WorkerRecord, decode, encode},
    registry::Config,
    retry::Backoff,
    store::{self, Condition, LeaseId, MAX_TXN_BYTES, MAX_TXN_OPS, MetadataStore, Op, Outcome},
    view::ClusterView,
};

/// While the store is out of reach, so that a lease is renewed as soon as it is back.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Keeper {
    store: Arc<dyn MetadataStore>,
    shared: Arc<Shared>,
    ttl: Duration,
    forfeit_after: Duration,
    lease: LeaseId,
    /// When the last successful renewal was *sent*: the lease cannot end before this plus its time to live, and
    /// nobody can have started to count `permit_grace` earlier than this.
    renewed: Instant,
    /// The store's revision of our own worker record: every write is conditioned on it, so that a process which
    /// took over the id is never overwritten.
    claim: i64,
    view: watch::Receiver<Arc<ClusterView>>,
    written: BTreeMap<String, Bytes>,
    state_sender: watch::Sender<SessionState>,
    written_sender: watch::Sender<u64>,
}

/// What the holder of the session can see of its keeper.
pub(crate) struct Watches {
    pub state: watch::Receiver<SessionState>,
    pub written: watch::Receiver<u64>,
}

// === impl Keeper ===

impl Keeper {
    /// Grants the lease and writes the worker's record. A worker that was restarted under its old id waits for
    /// the old lease to end, unless the address proves that the old process is gone.
    pub async fn start(
        store: Arc<dyn MetadataStore>,
        shared: Arc<Shared>,
        view: watch::Receiver<Arc<ClusterView>>,
        config: &Config,
    ) -> Result<Keeper> {
        let mut keeper = Keeper {
            store,
            shared,
            ttl: config.lease_ttl,
            forfeit_after: config.permit_grace.saturating_sub(config.permit_margin),
            lease: LeaseId(0),
            renewed: Instant::now(),
            claim: 0,
            view,
            written: BTreeMap::new(),
            state_sender: watch::Sender::new(SessionState::Live),
            written_sender: watch::Sender::new(0),
        };
        // Twice the old lease's time, because the store may be slow to notice.
        let patience = Instant::now() + config.lease_ttl * 2;
        loop {
            match keeper.establish().await {
                Err(Error::WorkerIdTaken { .. }) if Instant::now() < patience => sleep(MOST_PAUSE / 4).await,
                result => return result.map(|()| keeper),
            }
        }
    }

    pub fn watches(&self) -> Watches {
        Watches { state: self.state_sender.subscribe(), written: self.written_sender.subscribe() }
    }

    pub async fn run(mut self, shutdown: CancellationToken) {
        // Cancelled only between two steps: whatever is being written is written before the lease is revoked.
        while !shutdown.is_cancelled() {
            match self.hold(&shutdown).await {
                Ok(()) => break,
                Err(error) => warn!(%error, worker = self.worker_id(), "session lost, it starts anew"),
            }
            if let Err(error) = self.start_over(&shutdown).await {
                // Two processes with one id can never work, and only a person can tell which one is meant.
                error!(%error, "session ends");
                break;
            }
        }
        self.set_state(SessionState::Ended);
        if let Err(error) = self.store.revoke(self.lease).await {
            warn!(%error, "lease could not be revoked, it ends by itself");
        }
    }

    /// Renews and writes until the shutdown, or until the lease is gone.
    async fn hold(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut backoff = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        let mut due = self.renewed + self.ttl / 3;
        loop {
            let wish = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.shared.wake.notified() => true,
                () = sleep_until(due) => false,
                Ok(()) = self.view.changed() => match self.is_in_view() {
                    true => continue,
                    false => return Err(store::Error::LeaseGone(self.lease).into()),
                },
            };
            // A cut session writes only after a renewal, so that each pause brings one attempt and not two.
            let result = if wish && self.is_live() { self.write().await } else { self.renew().await };
            match result {
                Ok(()) => {
                    backoff.reset();
                    self.set_state(SessionState::Live);
                    due = self.renewed + self.ttl / 3;
                }
                Err(Error::Store(error)) if error.is_retryable() => {
                    self.cut(&error);
                    due = Instant::now() + backoff.pause();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// False when the view proves that our record is gone or is another's, though the lease is alive.
    fn is_in_view(&mut self) -> bool {
        let view = self.view.borrow_and_update();
        let worker = self.shared.worker();
        let is_ours = view.workers.get(&worker.id).is_some_and(|record| record.boot_id == worker.boot_id);
        is_ours || view.is_stale() || view.revision < self.claim
    }

    async fn renew(&mut self) -> Result<()> {
        if self.renewed.elapsed() >= self.forfeit_after {
            // Whatever the store says now, the others may have stopped waiting.
            self.set_state(SessionState::Forfeit);
        }
        let sent = Instant::now();
        self.store.keep_alive(self.lease).await?;
        self.renewed = sent;
        self.write().await
    }

    /// A new lease and everything under it, however long it takes.
    async fn start_over(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut backoff = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        self.set_state(self.cut_state());
        loop {
            match self.establish().await {
                Ok(()) => {
                    info!(worker = self.worker_id(), "session is back");
                    self.set_state(SessionState::Live);
                    return Ok(());
                }
                Err(Error::WorkerIdTaken { id, address }) => {
                    self.set_state(SessionState::Forfeit);
                    return Err(Error::WorkerIdTaken { id, address });
                }
                Err(Error::Store(error)) => self.cut(&error),
                // Somebody wrote at the same time: look again.
                Err(_) => {}
            }
            if shutdown.run_until_cancelled(sleep(backoff.pause())).await.is_none() {
                return Ok(());
            }
        }
    }

    async fn establish(&mut self) -> Result<()> {
        let worker = self.shared.worker();
        let key = keys::worker(&worker.id);
        let snapshot = self.store.range(&key).await?;
        let item = snapshot.get(&key);
        if let Some(other) = item.and_then(|item| decode::<WorkerRecord>(&item.value).ok())
            && other.boot_id != worker.boot_id
            // Whoever has been there before gives way to whoever came later.
            && (self.claim > 0 || !other.is_replaced_by(&worker))
        {
            return Err(Error::WorkerIdTaken { id: other.id, address: other.address });
        }
        let sent = Instant::now();
        let lease = self.store.grant(self.ttl).await?;
        self.lease = lease;
        self.written.clear();
        let value = encode(&worker);
        let op = Op::put_leased(key.clone(), value.clone(), lease);
        match self.store.txn(&[Condition::unchanged(&key, item)], &[op]).await? {
            Outcome::Committed { revision } => self.claim = revision,
            Outcome::Refused => return Err(Error::Contended { key, attempts: 1 }),
        }
        self.renewed = sent;
        self.written.insert(key, value);
        self.write().await
    }

    /// Brings the store to what is wished.
    async fn write(&mut self) -> Result<()> {
        let (wishes, generation) = self.shared.wishes();
        for ops in self.batches(&wishes) {
            self.write_batch(&ops).await?;
        }
        self.written_sender.send_replace(generation);
        Ok(())
    }

    async fn write_batch(&mut self, ops: &[Op]) -> Result<()> {
        let key = keys::worker(&self.worker_id());
        let condition = Condition::Revision { key: key.clone(), revision: self.claim };
        let revision = match self.store.txn(&[condition], ops).await? {
            Outcome::Committed { revision } => revision,
            // Our record is not ours any more: the lease is gone, or another process took the id.
            Outcome::Refused => return Err(store::Error::LeaseGone(self.lease).into()),
        };
        for op in ops {
            match op {
                Op::Put { key, value, .. } => self.written.insert(key.clone(), value.clone()),
                Op::Delete { key } => self.written.remove(key),
            };
            if op.key() == key {
                self.claim = revision;
            }
        }
        Ok(())
    }

    /// The difference between what is wished and what is written, in transactions of a size that a store takes.
    fn batches(&self, wishes: &BTreeMap<String, Bytes>) -> Vec<Vec<Op>> {
        let puts = wishes.iter().filter(|(key, value)| self.written.get(*key) != Some(*value));
        let puts = puts.map(|(key, value)| Op::put_leased(key.clone(), value.clone(), self.lease));
        let deletes = self.written.keys().filter(|key| !wishes.contains_key(*key)).cloned().map(Op::delete);
        let mut batches: Vec<Vec<Op>> = Vec::new();
        let mut bytes = 0;
        for op in deletes.chain(puts) {
            let is_full = batches.last().is_none_or(|batch| batch.len() == MAX_TXN_OPS);
            if is_full || bytes + op.bytes() > MAX_TXN_BYTES {
                batches.push(Vec::new());
                bytes = 0;
            }
            bytes += op.bytes();
            batches.last_mut().expect("pushed above").push(op);
        }
        batches
    }

    fn cut(&self, error: &store::Error) {
        if self.is_live() {
            warn!(%error, worker = self.worker_id(), "session is cut off from the metadata store");
        }
        self.set_state(self.cut_state());
    }

    /// Also right for a process that was stopped for a while and finds its lease gone.
    fn cut_state(&self) -> SessionState {
        match self.renewed.elapsed() >= self.forfeit_after {
            true => SessionState::Forfeit,
            false => SessionState::Cut { since: self.renewed },
        }
    }

    fn is_live(&self) -> bool {
        *self.state_sender.borrow() == SessionState::Live
    }

    fn set_state(&self, new: SessionState) {
        let is_new = self.state_sender.send_if_modified(|state| {
            let is_new = *state != new;
            *state = new;
            is_new
        });
        if is_new && new == SessionState::Forfeit {
            error!(worker = self.worker_id(), cut_for = ?self.renewed.elapsed(), "permits are forfeit");
        }
        if is_new && matches!(new, SessionState::Forfeit | SessionState::Ended) {
            self.shared.forfeit();
        }
    }

    fn worker_id(&self) -> String {
        self.shared.worker().id
    }
}

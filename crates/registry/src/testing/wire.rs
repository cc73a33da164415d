//! A metadata store behind a wire that a test can cut: for one process what a partition is, while the others go on.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::{sync::watch, time::sleep};

use crate::store::{Condition, Error, LeaseId, MetadataStore, Op, Outcome, Result, Snapshot, Watch};

/// As long as a request to a silent store takes to be given up.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireState {
    Whole,
    /// Every request fails at once, and running watches end.
    Cut,
    /// Every request fails after a while, and running watches wait.
    Silent,
    /// Transactions are done, and their answers are lost.
    AnswersLost,
}

/// Cheap to clone; clones are the same wire.
#[derive(Clone)]
pub struct Wire {
    store: Arc<dyn MetadataStore>,
    state: watch::Sender<WireState>,
}

// === impl Wire ===

impl Wire {
    pub fn new(store: Arc<dyn MetadataStore>) -> Wire {
        Wire { store, state: watch::Sender::new(WireState::Whole) }
    }

    pub fn set(&self, state: WireState) {
        self.state.send_replace(state);
    }

    async fn pass(&self) -> Result<()> {
        let state = *self.state.borrow();
        match state {
            WireState::Whole | WireState::AnswersLost => Ok(()),
            WireState::Cut => Err(cut()),
            WireState::Silent => {
                sleep(SILENCE).await;
                Err(Error::Timeout(SILENCE))
            }
        }
    }
}

#[async_trait]
impl MetadataStore for Wire {
    async fn range(&self, prefix: &str) -> Result<Snapshot> {
        self.pass().await?;
        self.store.range(prefix).await
    }

    async fn txn(&self, conditions: &[Condition], ops: &[Op]) -> Result<Outcome> {
        self.pass().await?;
        let outcome = self.store.txn(conditions, ops).await;
        if *self.state.borrow() == WireState::AnswersLost { Err(Error::Timeout(SILENCE)) } else { outcome }
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<Watch> {
        self.pass().await?;
        let watch = self.store.watch(prefix, from).await?;
        let state = self.state.subscribe();
        Ok(Watch::new(stream::unfold(Some((watch, state)), next).boxed()))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.pass().await?;
        self.store.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.pass().await?;
        self.store.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.pass().await?;
        self.store.revoke(lease).await
    }
}

type Running = Option<(Watch, watch::Receiver<WireState>)>;

async fn next(running: Running) -> Option<(Result<Vec<crate::store::Change>>, Running)> {
    let (mut watch, mut state) = running?;
    loop {
        let now = *state.borrow_and_update();
        tokio::select! {
            changed = state.changed() => changed.ok()?,
            changes = watch.next(), if now != WireState::Silent && now != WireState::Cut => {
                let changes = changes?;
                return Some((changes, Some((watch, state))));
            }
            () = std::future::ready(()), if now == WireState::Cut => return Some((Err(cut()), None)),
        }
    }
}

fn cut() -> Error {
    Error::Unavailable("the wire is cut".into())
}

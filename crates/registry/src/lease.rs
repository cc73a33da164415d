//! A lease that is kept alive as long as somebody holds it.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::{
    error::{Error, Result},
    store::{self, LeaseId, MetadataStore},
    tasks::Tasks,
};

/// Dropping it ends the lease; [`KeptLease::end`] also waits for that.
#[derive(Debug)]
pub(crate) struct KeptLease {
    id: LeaseId,
    lost: CancellationToken,
    stop: DropGuard,
    task: JoinHandle<()>,
}

struct Keeper {
    store: Arc<dyn MetadataStore>,
    id: LeaseId,
    ttl: Duration,
    /// When the last successful renewal was sent.
    renewed: Instant,
    lost: CancellationToken,
}

// === impl KeptLease ===

impl KeptLease {
    pub async fn grant(store: &Arc<dyn MetadataStore>, tasks: &Tasks, ttl: Duration) -> Result<KeptLease> {
        if tasks.is_closed() {
            return Err(Error::Closed);
        }
        let (store, renewed) = (store.clone(), Instant::now());
        let id = store.grant(ttl).await?;
        let lost = CancellationToken::new();
        let keeper = Keeper { store, id, ttl, renewed, lost: lost.clone() };
        let (stop, task) = tasks.spawn(|stop| keeper.run(stop));
        Ok(KeptLease { id, lost, stop: stop.drop_guard(), task })
    }

    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Cancelled when the lease is gone, or when nobody can tell any more that it is not.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub async fn end(self) {
        drop(self.stop);
        // The task ends within the store's time limit; had it panicked, the lease would end by itself.
        let _ = self.task.await;
    }
}

// === impl Keeper ===

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep()).await;
        self.lost.cancel();
        if let Err(error) = self.store.revoke(self.id).await {
            debug!(%error, "lease could not be revoked, it ends by itself");
        }
    }

    /// Returns when the lease is lost. Two thirds of its time without a renewal count as lost, so that the holder
    /// has the last third to notice before anybody else can have it.
    async fn keep(&mut self) {
        let mut due = self.renewed + self.ttl / 3;
        loop {
            let lost_at = self.renewed + self.ttl * 2 / 3;
            let sent = tokio::select! {
                () = sleep_until(lost_at) => return,
                sent = self.renew_at(due) => sent,
            };
            match sent {
                Ok(sent) => {
                    self.renewed = sent;
                    due = sent + self.ttl / 3;
                }
                Err(store::Error::LeaseGone(_)) => return,
                // A few attempts in the time that is left.
                Err(_) => due = Instant::now() + self.ttl / 15,
            }
        }
    }

    async fn renew_at(&self, due: Instant) -> store::Result<Instant> {
        sleep_until(due).await;
        let sent = Instant::now();
        self.store.keep_alive(self.id).await?;
        Ok(sent)
    }
}

//! Locks over the whole cluster: leased, first come first served, cancelled by dropping the future.
//!
//! The holder must look at [`Lock::lost`], or better make its writes conditional on [`Lock::condition`]: a lease
//! can end while its holder sleeps.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::debug;

use crate::{
    error::{Error, Result},
    keys,
    lease::KeptLease,
    retry::Backoff,
    store::{self, Condition, MetadataStore, Op, Outcome, Snapshot},
    tasks::Tasks,
};

/// A lock that is held. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Lock {
    lease: KeptLease,
    place: String,
    revision: i64,
}

// === impl Lock ===

impl Lock {
    /// Waits in line. The lease is the place in it: a waiter that dies leaves the line within `ttl`.
    pub(crate) async fn acquire(
        store: &Arc<dyn MetadataStore>,
        tasks: &Tasks,
        ttl: Duration,
        name: &str,
    ) -> Result<Lock> {
        let lease = KeptLease::grant(store, tasks, ttl).await?;
        let place = keys::lock_place(name, lease.id());
        let put = Op::put_leased(place.clone(), Vec::new(), lease.id());
        let Outcome::Committed { revision } =
            store.txn(&[Condition::Absent { key: place.clone() }], &[put]).await?
        else {
            return Err(Error::Contended { key: place, attempts: 1 });
        };
        let lost = lease.lost().clone();
        let wait = wait_for_turn(&**store, keys::lock_queue(name), &place, revision);
        match lost.run_until_cancelled(wait).await {
            Some(Ok(())) => Ok(Lock { lease, place, revision }),
            Some(Err(error)) => Err(error),
            None => Err(store::Error::LeaseGone(lease.id()).into()),
        }
    }

    /// Resolves when the lock is not held any more: the lease is gone, or could be.
    pub async fn lost(&self) {
        self.lease.lost().cancelled().await;
    }

    pub fn is_lost(&self) -> bool {
        self.lease.lost().is_cancelled()
    }

    /// Holds exactly as long as the lock is held: put it into the transaction that the lock is to protect.
    pub fn condition(&self) -> Condition {
        Condition::Revision { key: self.place.clone(), revision: self.revision }
    }

    /// Lets the next one in and waits until it can be.
    pub async fn release(self) {
        self.lease.end().await;
    }
}

/// Returns when nobody is in the line before `revision`.
async fn wait_for_turn(store: &dyn MetadataStore, queue: String, place: &str, revision: i64) -> Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        match try_turn(store, &queue, place, revision).await {
            // The lease bounds how long this can go on: without the store it is lost.
            Err(Error::Store(error)) if error.is_retryable() => debug!(%error, place, "lock is waited for"),
            Err(Error::Store(store::Error::Compacted { .. })) => {}
            result => return result,
        }
        sleep(backoff.pause()).await;
    }
}

async fn try_turn(store: &dyn MetadataStore, queue: &str, place: &str, revision: i64) -> Result<()> {
    let snapshot: Snapshot = store.range(queue).await?;
    if snapshot.get(place).is_none_or(|item| item.revision != revision) {
        return Err(Error::Contended { key: place.to_owned(), attempts: 1 });
    }
    let mut before: BTreeSet<String> =
        snapshot.items.into_iter().filter(|item| item.revision < revision).map(|item| item.key).collect();
    if before.is_empty() {
        return Ok(());
    }
    let mut watch = store.watch(queue, snapshot.revision + 1).await?;
    while let Some(changes) = watch.next().await {
        for change in changes? {
            if change.value.is_none() {
                before.remove(&change.key);
            }
        }
        if before.is_empty() {
            return Ok(());
        }
    }
    Err(store::Error::Unavailable("the watch has ended".into()).into())
}

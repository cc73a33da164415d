//! What every metadata store must do. [`all`] runs each law on a store of its own.
//!
//! A law panics where it is broken, as any test does.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use tokio::time::timeout;

use crate::store::{Change, Condition, LeaseId, MetadataStore, Op, Outcome, Result, Watch};

mod leases;
mod transactions;
mod watches;

/// Makes stores to try the laws on.
#[async_trait]
pub trait Factory: Send + Sync {
    /// An empty store that nobody else writes to.
    async fn store(&self) -> Arc<dyn MetadataStore>;

    /// Makes the store that was made last forget every change before `revision`.
    async fn compact(&self, revision: i64);
}

/// Longer than anything takes, even on a machine that does other things. A law that waits so long is broken.
const PATIENCE: Duration = Duration::from_secs(20);

type Law = for<'a> fn(&'a dyn Factory) -> BoxFuture<'a, ()>;

/// Runs every law, one after another.
pub async fn all(factory: &dyn Factory) {
    let laws = transactions::LAWS.iter().chain(watches::LAWS).chain(leases::LAWS);
    for (name, law) in laws {
        let kept = AssertUnwindSafe(law(factory)).catch_unwind().await.is_ok();
        assert!(kept, "the law that {name} does not hold");
    }
}

fn put(key: &str, value: &str) -> Op {
    Op::put(key, value.to_owned())
}

fn put_leased(key: &str, lease: LeaseId) -> Op {
    Op::put_leased(key, "leased", lease)
}

fn absent(key: &str) -> Condition {
    Condition::Absent { key: key.into() }
}

fn exists(key: &str) -> Condition {
    Condition::Exists { key: key.into() }
}

fn at(key: &str, revision: i64) -> Condition {
    Condition::Revision { key: key.into(), revision }
}

/// Commits without conditions and answers the revision.
async fn commit(store: &Arc<dyn MetadataStore>, ops: &[Op]) -> i64 {
    match store.txn(&[], ops).await {
        Ok(Outcome::Committed { revision }) => revision,
        other => panic!("expected a commit, got {other:?}"),
    }
}

/// Keys and values under a prefix.
async fn content(store: &Arc<dyn MetadataStore>, prefix: &str) -> Vec<(String, Bytes)> {
    let snapshot = store.range(prefix).await.unwrap();
    snapshot.items.into_iter().map(|item| (item.key, item.value)).collect()
}

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// The next batch of a watch that must not end.
async fn batch(watch: &mut Watch) -> Vec<Change> {
    soon("a change", watch.next()).await.expect("the watch goes on").expect("the watch is well")
}

/// The first error of a watch, however it comes.
async fn failure(watch: Result<Watch>) -> crate::store::Error {
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    soon("an error", watch.next())
        .await
        .expect("an error before the end")
        .expect_err("the watch cannot go on")
}

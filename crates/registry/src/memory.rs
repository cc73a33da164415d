//! The metadata store of one process: everything `caravan serve` needs, and the fast twin of etcd in tests.
//!
//! It owns no task. A lease that has run out is noticed by whoever looks next, and a watch that waits also waits
//! for the next lease to run out, so with a paused clock everything happens at its exact instant.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::store::{
    Change, Condition, Error, Item, LeaseId, MetadataStore, Op, Outcome, Result, Snapshot, Watch, check_ttl,
    check_txn,
};

/// How many revisions a watch may lag behind. etcd keeps some minutes; in one process a watcher that is this far
/// behind is better served by a snapshot.
const HISTORY_REVISIONS: usize = 10_000;

/// The same bound in bytes of values, for the day on which they are large.
const HISTORY_BYTES: usize = 64 * 1024 * 1024;

/// Cheap to clone; clones share the content.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Tells waiting watches the newest revision. It also moves when a lease appears, because then they may have
    /// to wake earlier.
    moved: watch::Sender<u64>,
}

struct State {
    revision: i64,
    items: BTreeMap<String, Entry>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
    /// The newest revisions' changes, oldest first, each as one batch.
    history: VecDeque<Arc<[Change]>>,
    history_bytes: usize,
    /// The oldest revision that a watch may still ask for.
    oldest: i64,
}

struct Entry {
    value: Bytes,
    revision: i64,
    lease: Option<LeaseId>,
}

struct Lease {
    ttl: Duration,
    ends: Instant,
    keys: BTreeSet<String>,
}

// === impl Memory ===

impl Memory {
    pub fn new() -> Memory {
        let state = State {
            // As etcd: the empty store is at revision 1.
            revision: 1,
            items: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            oldest: 1,
        };
        Memory { shared: Arc::new(Shared { state: Mutex::new(state), moved: watch::Sender::new(0) }) }
    }

    /// Forgets the changes before `revision`.
    pub fn compact(&self, revision: i64) {
        let mut state = self.shared.lock();
        while state.oldest < revision && state.forget_oldest() {}
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

#[async_trait]
impl MetadataStore for Memory {
    async fn range(&self, prefix: &str) -> Result<Snapshot> {
        let state = self.shared.now();
        let under = state.items.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let items = under
            .map(|(key, entry)| Item {
                key: key.clone(),
                value: entry.value.clone(),
                revision: entry.revision,
            })
            .collect();
        Ok(Snapshot { items, revision: state.revision })
    }

    async fn txn(&self, conditions: &[Condition], ops: &[Op]) -> Result<Outcome> {
        check_txn(conditions, ops)?;
        let outcome = self.shared.now().txn(conditions, ops)?;
        self.shared.wake();
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<Watch> {
        let cursor = Cursor { shared: self.shared.clone(), prefix: prefix.to_owned(), from, is_over: false };
        Ok(Watch::new(stream::unfold(cursor, Cursor::next).boxed()))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        check_ttl(ttl)?;
        let mut state = self.shared.now();
        state.last_lease += 1;
        let id = LeaseId(state.last_lease);
        state.leases.insert(id, Lease { ttl, ends: Instant::now() + ttl, keys: BTreeSet::new() });
        drop(state);
        self.shared.wake();
        Ok(id)
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<()> {
        let mut state = self.shared.now();
        let lease = state.leases.get_mut(&id).ok_or(Error::LeaseGone(id))?;
        lease.ends = Instant::now() + lease.ttl;
        Ok(())
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        self.shared.now().end_lease(id);
        self.shared.wake();
        Ok(())
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code under this lock panics")
    }

    /// The state as of this instant: leases that have run out are gone.
    fn now(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.end_leases(Instant::now()) {
            self.wake();
        }
        state
    }

    fn wake(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }
}

// === impl State ===

impl State {
    fn txn(&mut self, conditions: &[Condition], ops: &[Op]) -> Result<Outcome> {
        if !conditions.iter().all(|condition| self.holds(condition)) {
            return Ok(Outcome::Refused);
        }
        for op in ops {
            if let Op::Put { lease: Some(id), .. } = op
                && !self.leases.contains_key(id)
            {
                return Err(Error::LeaseGone(*id));
            }
        }
        let revision = self.revision + 1;
        let changes: Vec<Change> = ops.iter().filter_map(|op| self.write(op, revision)).collect();
        self.commit(changes);
        Ok(Outcome::Committed { revision: self.revision })
    }

    fn holds(&self, condition: &Condition) -> bool {
        let entry = self.items.get(condition.key());
        match condition {
            Condition::Absent { .. } => entry.is_none(),
            Condition::Exists { .. } => entry.is_some(),
            Condition::Revision { revision, .. } => entry.is_some_and(|entry| entry.revision == *revision),
        }
    }

    /// `None` when it changes nothing.
    fn write(&mut self, op: &Op, revision: i64) -> Option<Change> {
        let old = self.items.remove(op.key());
        if let Some(lease) = old.as_ref().and_then(|entry| self.leases.get_mut(&entry.lease?)) {
            lease.keys.remove(op.key());
        }
        match op {
            Op::Delete { key } => old.map(|_| Change { key: key.clone(), value: None, revision }),
            Op::Put { key, value, lease } => {
                if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
                    lease.keys.insert(key.clone());
                }
                self.items.insert(key.clone(), Entry { value: value.clone(), revision, lease: *lease });
                Some(Change { key: key.clone(), value: Some(value.clone()), revision })
            }
        }
    }

    fn commit(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.revision += 1;
        self.history_bytes += bytes(&changes);
        self.history.push_back(changes.into());
        while self.history.len() > HISTORY_REVISIONS || self.history_bytes > HISTORY_BYTES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(changes) = self.history.pop_front() else { return false };
        self.history_bytes -= bytes(&changes);
        self.oldest = changes.first().map_or(self.oldest, |change| change.revision + 1);
        true
    }

    /// True when one ended.
    fn end_leases(&mut self, now: Instant) -> bool {
        let ended: Vec<LeaseId> =
            self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        for id in &ended {
            self.end_lease(*id);
        }
        !ended.is_empty()
    }

    fn end_lease(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        let revision = self.revision + 1;
        let deletes = lease.keys.into_iter().map(|key| Op::Delete { key });
        let changes: Vec<Change> = deletes.filter_map(|op| self.write(&op, revision)).collect();
        self.commit(changes);
    }

    fn next_lease_end(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.ends).min()
    }

    /// The first batch at or after `from` that has something under `prefix`.
    fn batch(&self, prefix: &str, from: i64) -> Option<Vec<Change>> {
        // Each batch is one revision and none is missing between them.
        let first = self.history.front()?.first()?.revision;
        let skip = usize::try_from(from - first).unwrap_or(0);
        self.history.iter().skip(skip).find_map(|changes| {
            let under = changes.iter().filter(|change| change.key.starts_with(prefix));
            let under: Vec<Change> = under.cloned().collect();
            (!under.is_empty()).then_some(under)
        })
    }
}

fn bytes(changes: &[Change]) -> usize {
    changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len)).sum()
}

/// Where a watch stands.
struct Cursor {
    shared: Arc<Shared>,
    prefix: String,
    from: i64,
    is_over: bool,
}

// === impl Cursor ===

impl Cursor {
    async fn next(mut self) -> Option<(Result<Vec<Change>>, Cursor)> {
        if self.is_over {
            return None;
        }
        // Subscribed before looking, so that nothing between looking and waiting is missed.
        let mut moved = self.shared.moved.subscribe();
        loop {
            moved.mark_unchanged();
            let next_lease_end = {
                let state = self.shared.now();
                if self.from < state.oldest {
                    let error = Error::Compacted { from: self.from, oldest: state.oldest };
                    drop(state);
                    self.is_over = true;
                    return Some((Err(error), self));
                }
                if let Some(batch) = state.batch(&self.prefix, self.from) {
                    drop(state);
                    self.from = batch[0].revision + 1;
                    return Some((Ok(batch), self));
                }
                self.from = self.from.max(state.revision + 1);
                state.next_lease_end()
            };
            tokio::select! {
                changed = moved.changed() => changed.expect("the sender lives in `shared`, which we hold"),
                () = wait_until(next_lease_end) => {}
            }
        }
    }
}

async fn wait_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(store: &Memory, value: impl Into<Bytes>) {
        store.txn(&[], &[Op::put("k", value)]).await.unwrap();
    }

    async fn first(store: &Memory, from: i64) -> Result<Vec<Change>> {
        store.watch("", from).await.unwrap().next().await.unwrap()
    }

    #[tokio::test]
    async fn a_watch_may_lag_as_many_revisions_as_are_kept_and_no_more() {
        let store = Memory::new();
        for _ in 0..=HISTORY_REVISIONS {
            write(&store, "v").await;
        }
        // Revision 2 was the first and is forgotten.
        assert_eq!(first(&store, 2).await, Err(Error::Compacted { from: 2, oldest: 3 }));
        assert_eq!(first(&store, 3).await.unwrap()[0].revision, 3);
    }

    #[tokio::test]
    async fn large_values_are_forgotten_sooner() {
        let store = Memory::new();
        let value = Bytes::from(vec![0; 1024 * 1024]);
        for _ in 0..100 {
            write(&store, value.clone()).await;
        }
        assert!(store.shared.lock().history_bytes <= HISTORY_BYTES);
        assert!(matches!(first(&store, 2).await, Err(Error::Compacted { .. })));
    }

    #[tokio::test]
    async fn a_watch_that_falls_behind_while_it_runs_is_told() {
        let store = Memory::new();
        let mut watch = store.watch("", 2).await.unwrap();
        write(&store, "1").await;
        watch.next().await.unwrap().unwrap();
        for _ in 0..3 {
            write(&store, "2").await;
        }
        store.compact(5);
        assert_eq!(watch.next().await, Some(Err(Error::Compacted { from: 3, oldest: 5 })));
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_at_its_instant_though_nobody_touches_the_store() {
        let store = Memory::new();
        let began = Instant::now();
        let lease = store.grant(Duration::from_millis(1500)).await.unwrap();
        store.txn(&[], &[Op::put_leased("k", "v", lease)]).await.unwrap();
        let mut watch = store.watch("", 3).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap()[0].value, None);
        assert_eq!(began.elapsed(), Duration::from_millis(1500));
    }
}

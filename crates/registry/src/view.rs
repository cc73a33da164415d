//! The immutable picture of the whole cluster, and how one change of the metadata store makes the next picture.
//!
//! A view is never wrong about the past: it is what the store held at `revision`. When the store is out of reach
//! the last view stays, and says since when it may be behind.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    keys::{Key, ReplicaId},
    limits::{Limits, LimitsRecord},
    records::{CatalogRecord, PermitRecord, ReplicaRecord, WorkerRecord, decode},
    store::{Change, Snapshot},
};

/// Cheap to clone: the maps are shared until one is changed.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Of the last change that this view shows.
    pub revision: i64,
    /// How often the store was found at an older revision than before: restored from a backup, or emptied.
    pub(crate) setbacks: u32,
    /// Set while the metadata store is out of reach.
    pub stale_since: Option<Instant>,
    /// By id.
    pub workers: Arc<BTreeMap<String, Arc<WorkerRecord>>>,
    pub replicas: Arc<BTreeMap<ReplicaId, Arc<ReplicaRecord>>>,
    pub permits: Arc<BTreeMap<ReplicaId, HeldPermit>>,
    pub limits: Arc<LimitsRecord>,
    /// Grows whenever a model was created, copied or deleted.
    pub catalog: u64,
}

/// A permit in the store.
#[derive(Clone, Debug)]
pub struct HeldPermit {
    /// Of the transaction that granted it.
    pub revision: i64,
    /// `None` when a newer version wrote what this one cannot read. It counts all the same.
    pub record: Option<Arc<PermitRecord>>,
}

// === impl ClusterView ===

impl ClusterView {
    pub fn is_stale(&self) -> bool {
        self.stale_since.is_some()
    }

    pub fn worker(&self, id: &str) -> Option<&Arc<WorkerRecord>> {
        self.workers.get(id)
    }

    pub fn replica(&self, worker: &str, replica_key: &str) -> Option<&Arc<ReplicaRecord>> {
        self.replicas.get(&ReplicaId::new(worker, replica_key))
    }

    pub fn replicas_of(&self, replica_key: &str) -> impl Iterator<Item = &Arc<ReplicaRecord>> {
        self.replicas.iter().filter(move |(id, _)| id.replica_key == replica_key).map(|(_, record)| record)
    }

    pub fn replicas_on(&self, worker: &str) -> impl Iterator<Item = &Arc<ReplicaRecord>> {
        self.replicas.iter().filter(move |(id, _)| id.worker == worker).map(|(_, record)| record)
    }

    /// What holds now: pinned, from the environment, or the default.
    pub fn limits(&self) -> Limits {
        self.limits.effective()
    }

    /// How many models may be in memory, the automatic limit worked out (C1).
    pub fn max_loaded_models(&self) -> u32 {
        self.limits().permits(self.workers.values().map(|worker| worker.devices.len()).sum())
    }

    /// Whether the session that was granted this permit is alive.
    pub(crate) fn has_session_of(&self, permit: &PermitRecord) -> bool {
        self.workers.get(&permit.worker).is_some_and(|worker| worker.boot_id == permit.boot_id)
    }

    pub(crate) fn from_snapshot(snapshot: Snapshot) -> ClusterView {
        let mut view = ClusterView { revision: snapshot.revision, ..ClusterView::default() };
        for item in snapshot.items {
            view.put(&item.key, &item.value, item.revision);
        }
        view
    }

    /// True when something changed that a reader of the view can see.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> bool {
        let mut is_visible = false;
        for change in changes {
            self.revision = self.revision.max(change.revision);
            is_visible |= match &change.value {
                Some(value) => self.put(&change.key, value, change.revision),
                None => self.delete(&change.key),
            };
        }
        is_visible
    }

    fn put(&mut self, key: &str, value: &Bytes, revision: i64) -> bool {
        match Key::parse(key) {
            Key::Worker(id) => insert(&mut self.workers, id, key, value),
            Key::Replica(id) => insert(&mut self.replicas, id, key, value),
            Key::Permit(id) => {
                let permit = HeldPermit { revision, record: read(key, value) };
                Arc::make_mut(&mut self.permits).insert(id, permit);
            }
            // What cannot be read is as if it were not there, for everybody alike.
            Key::Limits => self.limits = read(key, value).unwrap_or_default(),
            Key::Catalog => self.catalog = read::<CatalogRecord>(key, value).unwrap_or_default().count,
            Key::Other => return false,
        }
        true
    }

    fn delete(&mut self, key: &str) -> bool {
        match Key::parse(key) {
            Key::Worker(id) => drop(Arc::make_mut(&mut self.workers).remove(&id)),
            Key::Replica(id) => drop(Arc::make_mut(&mut self.replicas).remove(&id)),
            Key::Permit(id) => drop(Arc::make_mut(&mut self.permits).remove(&id)),
            Key::Limits => self.limits = Arc::default(),
            Key::Catalog => self.catalog = 0,
            Key::Other => return false,
        }
        true
    }
}

/// A value that cannot be read hides what was there before: better nothing than something outdated.
fn insert<K: Ord + Clone, T: DeserializeOwned>(
    map: &mut Arc<BTreeMap<K, Arc<T>>>,
    id: K,
    key: &str,
    value: &Bytes,
) {
    let map = Arc::make_mut(map);
    match read(key, value) {
        Some(record) => drop(map.insert(id, record)),
        None => drop(map.remove(&id)),
    }
}

fn read<T: DeserializeOwned>(key: &str, value: &Bytes) -> Option<Arc<T>> {
    match decode(value) {
        Ok(record) => Some(Arc::new(record)),
        Err(reason) => {
            warn!(key, reason, "record cannot be read, it is left alone");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, test_runner::RngSeed};

    use super::*;
    use crate::{
        keys,
        memory::Memory,
        records::encode,
        store::{MetadataStore, Op},
    };

    const KEYS: [&str; 3] = ["a", "b/c", "%"];

    /// Something that a cluster writes, or something that it should not have written.
    fn any_op() -> impl Strategy<Value = Op> {
        let name = || (0..KEYS.len()).prop_map(|i| KEYS[i]);
        let key = prop_oneof![
            name().prop_map(keys::worker),
            (name(), name()).prop_map(|(worker, key)| keys::replica(worker, key)),
            (name(), name()).prop_map(|(worker, key)| keys::permit(worker, key)),
            Just(keys::LIMITS.to_owned()),
            Just(keys::CATALOG.to_owned()),
            Just(keys::PERMIT_GUARD.to_owned()),
            Just("workers/".to_owned()),
            Just("permits/one-segment".to_owned()),
        ];
        let value = prop_oneof![
            3 => (0..100_u64).prop_map(|count| encode(&serde_json::json!({
                "id": "a", "boot_id": count.to_string(), "address": "", "worker": "a", "replica_key": "b",
                "count": count, "state": if count % 2 == 0 { "ready" } else { "melting" },
            }))),
            1 => vec(any::<u8>(), 0..20).prop_map(Bytes::from),
            1 => Just(Bytes::from_static(br#"{"version":7,"record":{}}"#)),
        ];
        prop_oneof![
            3 => (key.clone(), value).prop_map(|(key, value)| Op::Put { key, value, lease: None }),
            1 => key.prop_map(Op::delete),
        ]
    }

    fn text(view: &ClusterView) -> String {
        format!("{:?}", (&view.workers, &view.replicas, &view.permits, &view.limits, view.catalog))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 300, rng_seed: RngSeed::Fixed(43), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn the_view_by_changes_is_the_view_by_snapshot(ops in vec(any_op(), 0..40), at in 0..40_usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let store = Memory::new();
                let (before, after) = ops.split_at(at.min(ops.len()));
                for op in before {
                    store.txn(&[], std::slice::from_ref(op)).await.unwrap();
                }
                let snapshot = store.range("").await.unwrap();
                let mut watch = store.watch("", snapshot.revision + 1).await.unwrap();
                let mut view = ClusterView::from_snapshot(snapshot);
                for op in after {
                    store.txn(&[], std::slice::from_ref(op)).await.unwrap();
                }
                let end = store.range("").await.unwrap();
                while view.revision < end.revision {
                    view.apply(watch.next().await.unwrap().unwrap());
                }
                assert_eq!(text(&view), text(&ClusterView::from_snapshot(end)));
            });
        }
    }
}

//! What the tests stand on: a store of either kind, and as many registries on it as processes in a cluster.

use std::{future::Future, sync::Arc, time::Duration};

use registry::{
    Config, Device, Memory, MetadataStore, Registry, ReplicaRecord, ReplicaState, Session, WorkerRecord,
    testing::{EtcdServer, Wire},
};
use tokio::time::timeout;

/// Longer than a grace on a paused clock, and than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Of leases: the shortest that etcd grants.
pub const TTL: Duration = Duration::from_secs(1);

/// Where no process listens, and none ever will: a port that was free a moment ago may be another test's by now.
pub const NOBODY: &str = "127.0.0.1:1";

/// One metadata store for a whole cluster.
pub enum Ground {
    Memory(Memory),
    Etcd(EtcdServer),
}

impl Ground {
    pub fn memory() -> Ground {
        Ground::Memory(Memory::new())
    }

    pub async fn etcd() -> Ground {
        Ground::Etcd(EtcdServer::start().await.unwrap())
    }

    /// A connection of its own.
    pub async fn store(&self) -> Arc<dyn MetadataStore> {
        match self {
            Ground::Memory(memory) => Arc::new(memory.clone()),
            Ground::Etcd(server) => Arc::new(server.connect("test").await.unwrap()),
        }
    }

    /// A process of its own.
    pub async fn registry(&self) -> Registry {
        start(self.store().await, config()).await
    }

    /// A process that can be cut off.
    pub async fn registry_on_a_wire(&self) -> (Registry, Wire) {
        let wire = Wire::new(self.store().await);
        (start(Arc::new(wire.clone()), config()).await, wire)
    }
}

pub fn config() -> Config {
    Config { id: "test".into(), lease_ttl: TTL, ..Config::default() }
}

pub async fn start(store: Arc<dyn MetadataStore>, config: Config) -> Registry {
    Registry::start(store, config).await.unwrap()
}

/// A worker with one CPU, in the test's own process: nothing but its session proves that it is alive.
pub fn worker(id: &str) -> WorkerRecord {
    WorkerRecord {
        id: id.into(),
        boot_id: format!("{id}-boot-1"),
        address: WorkerRecord::IN_PROCESS.into(),
        devices: vec![Device { kind: "cpu".into(), ..Device::default() }],
        ..WorkerRecord::default()
    }
}

pub async fn announce(registry: &Registry, id: &str) -> Session {
    registry.announce(worker(id)).await.unwrap()
}

pub fn replica(worker: &str, replica_key: &str, state: ReplicaState) -> ReplicaRecord {
    ReplicaRecord {
        worker: worker.into(),
        replica_key: replica_key.into(),
        state,
        slots: 4,
        ..Default::default()
    }
}

pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Waits until a registry's view is as wanted.
pub async fn view(registry: &Registry, what: &str, is_wanted: impl FnMut(&registry::ClusterView) -> bool) {
    soon(what, registry.wait_for(is_wanted)).await.unwrap();
}

/// Runs a test on both stores: the in-process one with the clock of the test.
#[macro_export]
macro_rules! on_both_stores {
    ($($(#[$doc:meta])* $name:ident)+) => { $(
        mod $name {
            #[tokio::test(start_paused = true)]
            async fn on_memory() {
                super::$name(&$crate::ground::Ground::memory()).await;
            }

            #[tokio::test]
            async fn on_etcd() {
                super::$name(&$crate::ground::Ground::etcd().await).await;
            }
        }
    )+ };
}

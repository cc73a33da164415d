//! One suite of laws over both metadata stores.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use registry::{
    Memory, MetadataStore,
    testing::{
        EtcdServer,
        laws::{self, Factory},
    },
};

#[derive(Default)]
struct MemoryFactory {
    newest: Mutex<Memory>,
}

#[async_trait]
impl Factory for MemoryFactory {
    async fn store(&self) -> Arc<dyn MetadataStore> {
        let store = Memory::new();
        *self.newest.lock().unwrap() = store.clone();
        Arc::new(store)
    }

    async fn compact(&self, revision: i64) {
        self.newest.lock().unwrap().compact(revision);
    }
}

/// One etcd, and for each law a cluster of its own on it.
struct EtcdFactory {
    server: EtcdServer,
    clusters: AtomicU32,
}

#[async_trait]
impl Factory for EtcdFactory {
    async fn store(&self) -> Arc<dyn MetadataStore> {
        let number = self.clusters.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.server.connect(&format!("law-{number}")).await.unwrap())
    }

    async fn compact(&self, revision: i64) {
        self.server.compact(revision).await.unwrap();
    }
}

#[tokio::test]
async fn the_memory_store_keeps_every_law() {
    laws::all(&MemoryFactory::default()).await;
}

#[tokio::test(start_paused = true)]
async fn the_memory_store_keeps_every_law_with_a_paused_clock() {
    laws::all(&MemoryFactory::default()).await;
}

#[tokio::test]
async fn etcd_keeps_every_law() {
    let server = EtcdServer::start().await.unwrap();
    laws::all(&EtcdFactory { server, clusters: AtomicU32::new(0) }).await;
}

//! Contract C1 in the one moment that races rarely hit: between the counting and the grant.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use registry::{
    Error, Limits, MetadataStore, Pins, Registry, Session,
    store::{self, Condition, LeaseId, Op, Outcome, Snapshot, Watch},
};

use crate::ground::{Ground, announce, config, soon, start, view};

/// A store under which something happens just before the next grant, or to it.
struct Interloper {
    store: Arc<dyn MetadataStore>,
    next: Mutex<Option<Deed>>,
    late: Mutex<Option<(Vec<Condition>, Vec<Op>)>>,
}

enum Deed {
    Do(BoxFuture<'static, ()>),
    /// The grant stays on its way, and its sender gives up on it.
    Delay,
}

#[async_trait]
impl MetadataStore for Interloper {
    async fn range(&self, prefix: &str) -> store::Result<Snapshot> {
        self.store.range(prefix).await
    }

    async fn txn(&self, conditions: &[Condition], ops: &[Op]) -> store::Result<Outcome> {
        let is_grant = ops.iter().any(|op| matches!(op, Op::Put { key, .. } if key.starts_with("permits/")));
        let deed = if is_grant { self.next.lock().unwrap().take() } else { None };
        match deed {
            Some(Deed::Do(deed)) => deed.await,
            Some(Deed::Delay) => {
                *self.late.lock().unwrap() = Some((conditions.to_vec(), ops.to_vec()));
                return Err(store::Error::Timeout(Duration::from_secs(2)));
            }
            None => {}
        }
        self.store.txn(conditions, ops).await
    }

    async fn watch(&self, prefix: &str, from: i64) -> store::Result<Watch> {
        self.store.watch(prefix, from).await
    }

    async fn grant(&self, ttl: Duration) -> store::Result<LeaseId> {
        self.store.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> store::Result<()> {
        self.store.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> store::Result<()> {
        self.store.revoke(lease).await
    }
}

/// A worker whose next grant is meddled with, and somebody else in the same cluster.
struct Scene {
    interloper: Arc<Interloper>,
    registry: Registry,
    session: Session,
    other: Registry,
}

async fn scene() -> Scene {
    let ground = Ground::memory();
    let store = ground.store().await;
    let interloper = Arc::new(Interloper { store, next: Mutex::new(None), late: Mutex::new(None) });
    let registry = start(interloper.clone(), config()).await;
    let session = announce(&registry, "w").await;
    Scene { interloper, registry, session, other: ground.registry().await }
}

impl Scene {
    fn meanwhile(&self, deed: impl Future<Output = ()> + Send + 'static) {
        *self.interloper.next.lock().unwrap() = Some(Deed::Do(Box::pin(deed)));
    }

    async fn pin(&self, limit: u32) {
        self.other.pin_limits(pins(limit)).await.unwrap();
    }

    async fn acquire(&self, replica_key: &str) -> Result<registry::Permit, Error> {
        self.registry.acquire_permit(&self.session, replica_key).await
    }
}

fn pins(limit: u32) -> Pins {
    Pins { max_loaded_models: Some(limit), ..Pins::default() }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_shrinks_meanwhile_holds() {
    let scene = scene().await;
    scene.pin(2).await;
    let _held = scene.acquire("a").await.unwrap();
    let other = scene.other.clone();
    scene.meanwhile(async move {
        let _ = other.pin_limits(pins(1)).await.unwrap();
    });
    assert_eq!(scene.acquire("b").await.unwrap_err(), Error::NoPermit { limit: 1, held: 1 });
}

#[tokio::test(start_paused = true)]
async fn the_first_limit_that_is_set_meanwhile_holds() {
    let scene = scene().await;
    let _held = scene.acquire("a").await.unwrap();
    let other = scene.other.clone();
    let one = Limits { max_loaded_models: 1, ..Limits::default() };
    scene.meanwhile(async move {
        let _ = other.set_limits_from_environment(one).await.unwrap();
    });
    assert_eq!(scene.acquire("b").await.unwrap_err(), Error::NoPermit { limit: 1, held: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_another_gets_meanwhile_counts() {
    let scene = scene().await;
    scene.pin(1).await;
    let theirs = Arc::new(announce(&scene.other, "other").await);
    let (other, kept) = (scene.other.clone(), Arc::new(Mutex::new(None)));
    let keep = kept.clone();
    scene.meanwhile(async move {
        let permit = other.acquire_permit(&theirs, "a").await.unwrap();
        *keep.lock().unwrap() = Some((permit, theirs));
    });
    assert_eq!(scene.acquire("b").await.unwrap_err(), Error::NoPermit { limit: 1, held: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_meanwhile_does_not_justify_a_grant() {
    let scene = scene().await;
    let theirs = announce(&scene.other, "other").await;
    let mut held = Vec::new();
    for key in ["a", "b", "c"] {
        held.push(scene.acquire(key).await.unwrap());
    }
    scene.meanwhile(async move { theirs.close().await });
    assert_eq!(scene.acquire("d").await.unwrap_err(), Error::NoPermit { limit: 3, held: 3 });
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_id_is_taken_meanwhile_gets_nothing() {
    let scene = scene().await;
    let store = scene.interloper.store.clone();
    let twin = r#"{"version":1,"record":{"id":"w","boot_id":"two","address":"127.0.0.1:1"}}"#;
    scene.meanwhile(async move {
        store.txn(&[], &[Op::put("workers/w", twin)]).await.unwrap();
    });
    assert_eq!(scene.acquire("a").await.unwrap_err(), Error::Cut { worker: "w".into() });
    assert_eq!(scene.interloper.store.range("permits/").await.unwrap().items, []);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_arrives_late_is_refused() {
    let scene = scene().await;
    *scene.interloper.next.lock().unwrap() = Some(Deed::Delay);
    scene.acquire("a").await.unwrap_err();
    // Nobody waits for it any more: what the worker does next, it does after it has made sure of that.
    let again = scene.acquire("a").await.unwrap();
    again.release().await.unwrap();
    let (conditions, ops) = scene.interloper.late.lock().unwrap().take().unwrap();
    assert_eq!(scene.interloper.store.txn(&conditions, &ops).await, Ok(Outcome::Refused));
    view(&scene.other, "no permit", |view| view.permits.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_arrives_late_is_refused_though_nothing_else_happens() {
    let scene = scene().await;
    *scene.interloper.next.lock().unwrap() = Some(Deed::Delay);
    scene.acquire("a").await.unwrap_err();
    let store = &scene.interloper.store;
    let mut moves = store.watch("permit-guard", 1).await.unwrap();
    soon("the guard", moves.next()).await.unwrap().unwrap();
    let (conditions, ops) = scene.interloper.late.lock().unwrap().take().unwrap();
    assert_eq!(store.txn(&conditions, &ops).await, Ok(Outcome::Refused));
}

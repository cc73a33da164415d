//! Laws of leases.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::time::{Instant, interval};

use super::{Factory, Law, batch, commit, content, put, put_leased};
use crate::store::{Error, LeaseId, Op};

/// The shortest that every store grants.
const TTL: Duration = Duration::from_secs(1);

pub(super) const LAWS: &[(&str, Law)] = &[
    ("a lease that runs out takes its keys along, in one revision", |f| expiry(f).boxed()),
    ("a lease lives for its time", |f| lives(f).boxed()),
    ("a lease that is renewed stays", |f| renewed(f).boxed()),
    ("revoking deletes at once, and twice is no error", |f| revoked(f).boxed()),
    ("nothing is done with a lease that is gone", |f| gone(f).boxed()),
    ("a key belongs to the lease that it was last written under", |f| last_lease(f).boxed()),
    ("a lease without time is refused", |f| no_time(f).boxed()),
];

async fn expiry(factory: &dyn Factory) {
    let store = factory.store().await;
    let lease = store.grant(TTL).await.unwrap();
    let from = commit(&store, &[put_leased("a", lease), put_leased("b", lease), put("c", "plain")]).await + 1;
    let mut watch = store.watch("", from).await.unwrap();
    let changes = batch(&mut watch).await;
    let mut deleted: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    deleted.sort_unstable();
    assert_eq!(deleted, ["a", "b"]);
    assert!(changes.iter().all(|change| change.value.is_none() && change.revision == from));
    assert_eq!(content(&store, "").await, [("c".into(), Bytes::from("plain"))]);
}

async fn lives(factory: &dyn Factory) {
    let store = factory.store().await;
    let granted = Instant::now();
    let lease = store.grant(TTL).await.unwrap();
    let from = commit(&store, &[put_leased("a", lease)]).await + 1;
    let mut watch = store.watch("", from).await.unwrap();
    batch(&mut watch).await;
    assert!(granted.elapsed() >= TTL, "gone after {:?}", granted.elapsed());
}

async fn renewed(factory: &dyn Factory) {
    let store = factory.store().await;
    let lease = store.grant(TTL).await.unwrap();
    let from = commit(&store, &[put_leased("a", lease)]).await + 1;
    let began = Instant::now();
    let mut ticks = interval(TTL / 4);
    while began.elapsed() < TTL * 3 {
        ticks.tick().await;
        store.keep_alive(lease).await.unwrap();
    }
    assert_eq!(content(&store, "").await.len(), 1);
    // And without renewal it goes.
    let mut watch = store.watch("", from).await.unwrap();
    assert!(batch(&mut watch).await[0].value.is_none());
}

async fn revoked(factory: &dyn Factory) {
    let store = factory.store().await;
    let lease = store.grant(TTL * 60).await.unwrap();
    commit(&store, &[put_leased("a", lease), put_leased("b", lease)]).await;
    store.revoke(lease).await.unwrap();
    assert!(content(&store, "").await.is_empty());
    store.revoke(lease).await.unwrap();
}

async fn gone(factory: &dyn Factory) {
    let store = factory.store().await;
    let lease = store.grant(TTL * 60).await.unwrap();
    store.revoke(lease).await.unwrap();
    for lease in [lease, LeaseId(0x7eef_0000_0000_0001)] {
        assert_eq!(store.keep_alive(lease).await, Err(Error::LeaseGone(lease)));
        let error = store.txn(&[], &[put("plain", "x"), put_leased("a", lease)]).await.unwrap_err();
        assert_eq!(error, Error::LeaseGone(lease));
    }
    assert!(content(&store, "").await.is_empty());
}

async fn last_lease(factory: &dyn Factory) {
    let store = factory.store().await;
    let (first, second) = (store.grant(TTL * 60).await.unwrap(), store.grant(TTL * 60).await.unwrap());
    commit(&store, &[put_leased("plain", first), put_leased("moved", first), put_leased("again", first)])
        .await;
    commit(&store, &[put("plain", "x"), put_leased("moved", second), Op::delete("again")]).await;
    commit(&store, &[put("again", "x")]).await;
    store.revoke(first).await.unwrap();
    let keys = |content: Vec<(String, Bytes)>| content.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(content(&store, "").await), ["again", "moved", "plain"]);
    store.revoke(second).await.unwrap();
    assert_eq!(keys(content(&store, "").await), ["again", "plain"]);
}

async fn no_time(factory: &dyn Factory) {
    let store = factory.store().await;
    assert!(matches!(store.grant(Duration::ZERO).await, Err(Error::Invalid(_))));
}

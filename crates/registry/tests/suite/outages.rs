//! etcd goes away and comes back.

use std::{sync::Arc, time::Duration};

use registry::{
    Etcd, EtcdConfig, Registry, ReplicaState, SessionState,
    store::{Error, MetadataStore, Op},
    testing::{EtcdServer, WireState},
};

use tokio::time::Instant;

use crate::ground::{Ground, announce, config, replica, soon, start, view};

async fn on(server: &EtcdServer) -> Registry {
    start(Arc::new(server.connect("test").await.unwrap()), config()).await
}

#[tokio::test]
async fn a_view_survives_a_restart_of_etcd() {
    let mut server = EtcdServer::start().await.unwrap();
    let (one, two) = (on(&server).await, on(&server).await);
    let session = announce(&one, "w").await;
    let permit = one.acquire_permit(&session, "m").await.unwrap();
    session.publish(&replica("w", "m", ReplicaState::Ready)).await.unwrap();
    view(&two, "the replica", |view| view.replica("w", "m").is_some()).await;

    server.stop();
    view(&two, "staleness", |view| view.is_stale()).await;
    // The last view stays.
    let stale = two.view();
    assert!(stale.worker("w").is_some() && stale.replica("w", "m").is_some() && stale.permits.len() == 1);
    assert!(session.publish(&replica("w", "n", ReplicaState::Loading)).await.is_err());
    assert!(one.acquire_permit(&session, "other").await.is_err());

    server.restart().await.unwrap();
    view(&two, "a current view", |view| !view.is_stale() && view.replica("w", "n").is_some()).await;
    assert!(two.view().permits.len() == 1 && !permit.forfeit_token().is_cancelled());
    let mut state = session.watch_state();
    soon("the session", state.wait_for(|state| *state == SessionState::Live)).await.unwrap();
    // And it goes on: changes are seen again.
    permit.release().await.unwrap();
    view(&two, "no permit", |view| view.permits.is_empty()).await;
}

#[tokio::test]
async fn a_silent_etcd_is_noticed_and_forgiven() {
    let server = EtcdServer::start().await.unwrap();
    let registry = on(&server).await;
    let session = announce(&registry, "w").await;
    server.freeze().unwrap();
    let mut state = session.watch_state();
    soon("the cut", state.wait_for(|state| *state != SessionState::Live)).await.unwrap();
    // No request hangs longer than its limit.
    let error = soon("an answer", registry.bump_catalog()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    server.thaw().unwrap();
    soon("the session", state.wait_for(|state| *state == SessionState::Live)).await.unwrap();
    view(&registry, "a current view", |view| !view.is_stale() && view.workers.len() == 1).await;
    soon("a write", registry.bump_catalog()).await.unwrap();
}

#[tokio::test]
async fn locks_and_permits_outlive_many_short_outages() {
    let mut server = EtcdServer::start().await.unwrap();
    let registry = on(&server).await;
    let session = announce(&registry, "w").await;
    let permit = registry.acquire_permit(&session, "m").await.unwrap();
    for _ in 0..3 {
        server.restart().await.unwrap();
    }
    view(&registry, "a current view", |view| !view.is_stale() && view.workers.len() == 1).await;
    assert!(registry.view().permits.len() == 1 && !permit.forfeit_token().is_cancelled());
    soon("a lock", registry.lock("name")).await.unwrap();
}

/// A store that was restored from a backup, or has lost its disk, does not know what was granted since.
#[tokio::test]
async fn permits_that_the_store_has_forgotten_are_forfeit() {
    let mut server = EtcdServer::start().await.unwrap();
    let registry = on(&server).await;
    let session = announce(&registry, "w").await;
    let permit = registry.acquire_permit(&session, "m").await.unwrap();
    view(&registry, "the permit", |view| view.permits.len() == 1).await;
    server.stop();
    server.forget().unwrap();
    server.restart().await.unwrap();
    soon("the news", permit.forfeited()).await;
    view(&registry, "the worker", |view| view.workers.len() == 1 && view.permits.is_empty()).await;
    permit.release().await.unwrap();
    soon("a permit", async { while registry.acquire_permit(&session, "m").await.is_err() {} }).await;
}

#[tokio::test]
async fn a_view_that_fell_behind_a_compaction_is_taken_anew() {
    let server = EtcdServer::start().await.unwrap();
    let ground = Ground::Etcd(server);
    let (registry, wire) = ground.registry_on_a_wire().await;
    let store = ground.store().await;
    wire.set(WireState::Cut);
    view(&registry, "staleness", |view| view.is_stale()).await;
    for i in 0..20 {
        store.txn(&[], &[Op::put("catalog", format!("{{\"record\":{{\"count\":{i}}}}}"))]).await.unwrap();
    }
    let Ground::Etcd(server) = &ground else { unreachable!("made above") };
    server.compact(store.range("").await.unwrap().revision).await.unwrap();
    wire.set(WireState::Whole);
    view(&registry, "the newest", |view| view.catalog == 19 && !view.is_stale()).await;
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_named() {
    let mut config = EtcdConfig::new(vec!["http://127.0.0.1:1".into()], "test");
    config.connect_timeout = Duration::from_millis(300);
    let error = soon("an answer", Etcd::connect(&config)).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_retryable() && text.contains("http://127.0.0.1:1") && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test]
async fn a_wrong_configuration_fails_at_once_and_says_what_is_wrong() {
    let good = EtcdConfig::new(vec!["http://127.0.0.1:1".into()], "test");
    let https = EtcdConfig { endpoints: vec!["https://127.0.0.1:1".into()], ..good.clone() };
    let cases = [
        (EtcdConfig { cluster: "a/b".into(), ..good.clone() }, "`cluster`"),
        (EtcdConfig { cluster: String::new(), ..good.clone() }, "`cluster`"),
        (EtcdConfig { endpoints: vec![], ..good.clone() }, "at least one endpoint"),
        (EtcdConfig { endpoints: vec!["http://a b".into()], ..good.clone() }, "endpoint"),
        (EtcdConfig { user: Some("u".into()), ..good.clone() }, "`password`"),
        (EtcdConfig { ca: Some("/nowhere".into()), ..good.clone() }, "https://"),
        (EtcdConfig { ca: None, ..https.clone() }, "`ca`"),
        (EtcdConfig { ca: Some("/nowhere".into()), ..https.clone() }, "/nowhere"),
    ];
    for (config, expected) in cases {
        let error = soon("an answer", Etcd::connect(&config)).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error} says {expected}");
    }
}

#[tokio::test]
async fn a_registry_waits_for_a_store_that_is_not_there_yet() {
    let ground = Ground::memory();
    let wire = registry::testing::Wire::new(ground.store().await);
    wire.set(WireState::Cut);
    let starting = tokio::spawn(Registry::start(Arc::new(wire.clone()), config()));
    tokio::task::yield_now().await;
    wire.set(WireState::Whole);
    soon("the start", starting).await.unwrap().unwrap();

    wire.set(WireState::Cut);
    let impatient = registry::Config { start_timeout: Duration::from_millis(10), ..config() };
    let error = Registry::start(Arc::new(wire), impatient).await.err().unwrap();
    assert!(error.is_retryable(), "{error}");
}

/// One member lives; one is down, and one takes connections and never answers.
#[tokio::test]
async fn one_member_that_lives_is_enough() {
    let server = EtcdServer::start().await.unwrap();
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = server.config("test");
    config.request_timeout = Duration::from_millis(300);
    config.endpoints.insert(0, "http://127.0.0.1:1".into());
    config.endpoints.insert(0, format!("http://{}", mute.local_addr().unwrap()));
    config.endpoints.push("http://127.0.0.1:2".into());
    let etcd = Etcd::connect(&config).await.unwrap();
    let began = Instant::now();
    for i in 0..50 {
        etcd.range("").await.unwrap();
        etcd.txn(&[], &[Op::put("k", i.to_string())]).await.unwrap();
        let lease = etcd.grant(Duration::from_secs(5)).await.unwrap();
        etcd.keep_alive(lease).await.unwrap();
        etcd.revoke(lease).await.unwrap();
    }
    // Nobody waits for the mute one more than once.
    assert!(began.elapsed() < config.request_timeout * 50, "{:?}", began.elapsed());
    let mut watch = etcd.watch("", 1).await.unwrap();
    soon("a change", watch.next()).await.unwrap().unwrap();
}

/// A transaction that may have been done is not done again.
#[tokio::test]
async fn a_transaction_without_an_answer_is_not_repeated_elsewhere() {
    let server = EtcdServer::start().await.unwrap();
    let mut config = server.config("test");
    config.request_timeout = Duration::from_millis(300);
    let twice = config.endpoints[0].clone();
    config.endpoints.push(twice);
    let etcd = Etcd::connect(&config).await.unwrap();
    server.freeze().unwrap();
    let began = Instant::now();
    let error = etcd.txn(&[], &[Op::put("k", "v")]).await.unwrap_err();
    assert_eq!(error, Error::Timeout(config.request_timeout));
    assert!(began.elapsed() < config.request_timeout * 2, "{:?}", began.elapsed());
    server.thaw().unwrap();
}

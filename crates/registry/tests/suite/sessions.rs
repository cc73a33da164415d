//! What a worker announces is seen by all, as long as it is there and no longer.

use registry::{Error, ReplicaState, Session, SessionState, WorkerRecord, testing::WireState};
use tokio::time::Instant;

use crate::{
    ground::{Ground, NOBODY, TTL, announce, config, replica, soon, start, view, worker},
    on_both_stores,
};

on_both_stores! {
    records_are_seen_by_every_process
    a_closed_session_is_gone_at_once
    a_dropped_session_is_gone_too
    a_session_that_lost_its_lease_publishes_everything_again
    what_is_published_while_cut_off_is_seen_later
    the_id_of_a_live_worker_is_taken
    a_restarted_worker_takes_its_place_at_once
    a_registry_that_is_closed_ends_its_sessions
}

async fn records_are_seen_by_every_process(ground: &Ground) {
    let (one, two) = (ground.registry().await, ground.registry().await);
    let session = announce(&one, "w").await;
    session.publish(&replica("w", "m", ReplicaState::Loading)).await.unwrap();
    view(&two, "the replica", |view| view.replica("w", "m").is_some()).await;
    session.publish(&replica("w", "m", ReplicaState::Ready)).await.unwrap();
    view(&two, "ready", |view| view.replica("w", "m").is_some_and(|r| r.state == ReplicaState::Ready)).await;
    session.update(|worker| worker.draining = true).await.unwrap();
    view(&two, "draining", |view| view.worker("w").is_some_and(|worker| worker.draining)).await;
    session.withdraw("m").await.unwrap();
    view(&two, "withdrawn", |view| view.replicas.is_empty() && view.workers.len() == 1).await;
}

async fn a_closed_session_is_gone_at_once(ground: &Ground) {
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    session.publish(&replica("w", "m", ReplicaState::Ready)).await.unwrap();
    session.close().await;
    assert_eq!(session.state(), SessionState::Ended);
    let store = ground.store().await;
    assert_eq!(store.range("workers/").await.unwrap().items, []);
    assert_eq!(store.range("replicas/").await.unwrap().items, []);
    let error = session.publish(&replica("w", "m", ReplicaState::Ready)).await.unwrap_err();
    assert_eq!(error, Error::Closed);
}

async fn a_dropped_session_is_gone_too(ground: &Ground) {
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    view(&registry, "the worker", |view| view.workers.len() == 1).await;
    drop(session);
    view(&registry, "nobody", |view| view.workers.is_empty()).await;
}

async fn a_session_that_lost_its_lease_publishes_everything_again(ground: &Ground) {
    let other = ground.registry().await;
    let (registry, wire) = ground.registry_on_a_wire().await;
    let session = announce(&registry, "w").await;
    session.publish(&replica("w", "m", ReplicaState::Ready)).await.unwrap();
    wire.set(WireState::Cut);
    view(&other, "the lease's end", |view| view.workers.is_empty() && view.replicas.is_empty()).await;
    assert!(matches!(session.state(), SessionState::Cut { .. }));
    wire.set(WireState::Whole);
    view(&other, "the worker again", |view| view.workers.len() == 1 && view.replicas.len() == 1).await;
    reaches(&session, SessionState::Live).await;
}

async fn what_is_published_while_cut_off_is_seen_later(ground: &Ground) {
    let other = ground.registry().await;
    let (registry, wire) = ground.registry_on_a_wire().await;
    let session = announce(&registry, "w").await;
    session.publish(&replica("w", "old", ReplicaState::Ready)).await.unwrap();
    wire.set(WireState::Cut);
    let error = session.publish(&replica("w", "new", ReplicaState::Ready)).await.unwrap_err();
    assert_eq!(error, Error::Cut { worker: "w".into() });
    assert_eq!(session.withdraw("old").await, Err(Error::Cut { worker: "w".into() }));
    wire.set(WireState::Whole);
    view(&other, "the new one", |view| view.replica("w", "new").is_some()).await;
    view(&other, "the old one gone", |view| view.replica("w", "old").is_none()).await;
}

async fn the_id_of_a_live_worker_is_taken(ground: &Ground) {
    let (one, two) = (ground.registry().await, ground.registry().await);
    let _session = announce(&one, "w").await;
    let twin = WorkerRecord { boot_id: "other".into(), address: NOBODY.into(), ..worker("w") };
    let began = Instant::now();
    let error = two.announce(twin).await.err().unwrap();
    // It was given the time in which a dead worker's lease ends.
    assert!(began.elapsed() >= TTL * 2);
    assert_eq!(error, Error::WorkerIdTaken { id: "w".into(), address: "in-process".into() });
}

async fn a_restarted_worker_takes_its_place_at_once(ground: &Ground) {
    let (one, two) = (ground.registry().await, ground.registry().await);
    let old = one.announce(WorkerRecord { address: NOBODY.into(), ..worker("w") }).await.unwrap();
    let record = WorkerRecord { boot_id: "two".into(), address: NOBODY.into(), ..worker("w") };
    let new = two.announce(record).await.unwrap();
    // The old one, were it alive after all, learns it and does not fight.
    soon("the old session's end", old.forfeited()).await;
    reaches(&old, SessionState::Ended).await;
    view(&one, "the new one", |view| view.worker("w").is_some_and(|worker| worker.boot_id == "two")).await;
    drop(old);
    new.publish(&replica("w", "m", ReplicaState::Ready)).await.unwrap();
    assert_eq!(new.state(), SessionState::Live);
}

async fn a_registry_that_is_closed_ends_its_sessions(ground: &Ground) {
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    registry.close().await;
    assert_eq!(session.state(), SessionState::Ended);
    assert_eq!(ground.store().await.range("").await.unwrap().items, []);
    assert_eq!(registry.announce(worker("w")).await.err(), Some(Error::Closed));
    assert_eq!(registry.lock("l").await.err(), Some(Error::Closed));
}

/// With a margin of 15 s before a grace of 120 s, to the moment.
#[tokio::test(start_paused = true)]
async fn a_worker_that_is_cut_off_forfeits_before_others_reclaim() {
    let ground = Ground::memory();
    let other = ground.registry().await;
    let (registry, wire) = ground.registry_on_a_wire().await;
    let session = announce(&registry, "w").await;
    let permit = registry.acquire_permit(&session, "m").await.unwrap();
    wire.set(WireState::Silent);
    let cut_at = Instant::now();
    let reclaimed = async {
        view(&other, "the permit's end", |view| view.permits.is_empty() && view.workers.is_empty()).await;
        cut_at.elapsed()
    };
    let forfeited = async {
        permit.forfeited().await;
        cut_at.elapsed()
    };
    let (reclaimed, forfeited) = tokio::join!(reclaimed, forfeited);
    let config = config();
    assert!(reclaimed >= config.permit_grace, "reclaimed after {reclaimed:?}");
    // One request that hangs, one pause, and what was left of the lease when the wire was cut.
    let least = config.permit_grace - config.permit_margin - config.lease_ttl;
    let most = config.permit_grace - config.permit_margin / 2;
    assert!(forfeited >= least && forfeited <= most, "forfeited after {forfeited:?}");
    assert_eq!(session.state(), SessionState::Forfeit);
    // Back again, the session lives and the old permit stays forfeit.
    wire.set(WireState::Whole);
    reaches(&session, SessionState::Live).await;
    assert!(permit.forfeit_token().is_cancelled());
    permit.release().await.unwrap();
    registry.acquire_permit(&session, "m").await.unwrap();
}

/// As after a long stop of the whole process: nothing has failed, it is only much later.
#[tokio::test(start_paused = true)]
async fn a_process_that_slept_through_its_grace_trusts_no_old_permit() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    let permit = registry.acquire_permit(&session, "m").await.unwrap();
    tokio::time::advance(config().permit_grace).await;
    soon("the news", permit.forfeited()).await;
    reaches(&session, SessionState::Live).await;
    permit.release().await.unwrap();
    let permit = registry.acquire_permit(&session, "m").await.unwrap();
    assert!(!permit.forfeit_token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_of_a_record_are_kept() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let mut record = worker("w");
    record.extra.insert("colour".into(), "blue".into());
    let session = registry.announce(record).await.unwrap();
    session.update(|worker| worker.draining = true).await.unwrap();
    view(&registry, "the field", |view| {
        view.worker("w").is_some_and(|worker| worker.draining && worker.extra["colour"] == "blue")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_record_above_its_bound_is_refused_and_says_so() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    let mut large = replica("w", "m", ReplicaState::Ready);
    large.name = "x".repeat(1024 * 1024);
    let error = session.publish(&large).await.unwrap_err().to_string();
    assert!(error.contains("replicas/w/m") && error.contains("at most"), "{error}");
    // It spoils nothing.
    session.publish(&replica("w", "small", ReplicaState::Ready)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_records_are_published_in_several_transactions() {
    let ground = Ground::memory();
    let (registry, wire) = ground.registry_on_a_wire().await;
    let session = start(ground.store().await, config()).await.announce(worker("other")).await;
    drop(session);
    let session = announce(&registry, "w").await;
    wire.set(WireState::Cut);
    for i in 0..250 {
        let _ = session.publish(&replica("w", &format!("m{i}"), ReplicaState::Ready)).await;
    }
    wire.set(WireState::Whole);
    view(&registry, "all of them", |view| view.replicas_on("w").count() == 250).await;
}

async fn reaches(session: &Session, wanted: SessionState) {
    let mut state = session.watch_state();
    soon("a state of the session", state.wait_for(|state| *state == wanted)).await.unwrap();
}

//! Contract C1, case by case. The races are in `races`.

use registry::{Error, Limits, Pins, Registry, ReplicaId, SessionState, WorkerRecord, testing::WireState};

use crate::{
    ground::{Ground, announce, soon, view, worker},
    on_both_stores,
};

on_both_stores! {
    no_more_permits_than_the_limit
    a_permit_that_is_given_back_is_free_for_another_worker
    a_dropped_permit_is_given_back
    a_model_has_one_permit_per_worker
    a_smaller_limit_grants_nothing_until_enough_are_back
    the_automatic_limit_is_three_per_device_of_live_workers
    a_grant_whose_answer_is_lost_leaves_no_permit_behind
    a_permit_that_cannot_be_given_back_now_is_given_back_later
    a_session_that_is_cut_off_gets_no_permit
}

async fn pin(registry: &Registry, limit: u32) {
    registry.pin_limits(Pins { max_loaded_models: Some(limit), ..Pins::default() }).await.unwrap();
}

async fn no_more_permits_than_the_limit(ground: &Ground) {
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    pin(&registry, 2).await;
    let _one = registry.acquire_permit(&session, "a").await.unwrap();
    let _two = registry.acquire_permit(&session, "b").await.unwrap();
    let error = registry.acquire_permit(&session, "c").await.unwrap_err();
    assert_eq!(error, Error::NoPermit { limit: 2, held: 2 });
    assert_eq!(api::Error::from(error).code, api::Code::NoPermit);
}

async fn a_permit_that_is_given_back_is_free_for_another_worker(ground: &Ground) {
    let (one, two) = (ground.registry().await, ground.registry().await);
    let (here, there) = (announce(&one, "here").await, announce(&two, "there").await);
    pin(&one, 1).await;
    let permit = one.acquire_permit(&here, "a").await.unwrap();
    assert_eq!((permit.worker(), permit.replica_key()), ("here", "a"));
    assert!(two.acquire_permit(&there, "b").await.is_err());
    permit.release().await.unwrap();
    two.acquire_permit(&there, "b").await.unwrap();
}

async fn a_dropped_permit_is_given_back(ground: &Ground) {
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    let permit = registry.acquire_permit(&session, "a").await.unwrap();
    view(&registry, "the permit", |view| view.permits.contains_key(&ReplicaId::new("w", "a"))).await;
    drop(permit);
    view(&registry, "no permit", |view| view.permits.is_empty()).await;
    assert!(session.worker().id == "w");
}

async fn a_model_has_one_permit_per_worker(ground: &Ground) {
    let registry = ground.registry().await;
    let (one, two) = (announce(&registry, "one").await, announce(&registry, "two").await);
    let permit = registry.acquire_permit(&one, "a").await.unwrap();
    let error = registry.acquire_permit(&one, "a").await.unwrap_err();
    assert_eq!(error, Error::PermitHeld { worker: "one".into(), replica_key: "a".into() });
    // Elsewhere it is another replica.
    let _other = registry.acquire_permit(&two, "a").await.unwrap();
    permit.release().await.unwrap();
    registry.acquire_permit(&one, "a").await.unwrap();
}

async fn a_smaller_limit_grants_nothing_until_enough_are_back(ground: &Ground) {
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    pin(&registry, 3).await;
    let a = registry.acquire_permit(&session, "a").await.unwrap();
    let b = registry.acquire_permit(&session, "b").await.unwrap();
    let _c = registry.acquire_permit(&session, "c").await.unwrap();
    pin(&registry, 1).await;
    a.release().await.unwrap();
    let error = registry.acquire_permit(&session, "d").await.unwrap_err();
    assert_eq!(error, Error::NoPermit { limit: 1, held: 2 });
    b.release().await.unwrap();
    let error = registry.acquire_permit(&session, "d").await.unwrap_err();
    assert_eq!(error, Error::NoPermit { limit: 1, held: 1 });
}

async fn the_automatic_limit_is_three_per_device_of_live_workers(ground: &Ground) {
    let registry = ground.registry().await;
    let small = announce(&registry, "small").await;
    let mut record = worker("large");
    record.devices = vec![record.devices[0].clone(); 2];
    let large = registry.announce(record).await.unwrap();
    assert_eq!(registry.set_limits_from_environment(Limits::default()).await.unwrap().max_loaded_models, 0);
    view(&registry, "both", |view| view.max_loaded_models() == 9).await;
    let mut permits = Vec::new();
    for i in 0..9 {
        permits.push(registry.acquire_permit(&small, &i.to_string()).await.unwrap());
    }
    let error = registry.acquire_permit(&small, "9").await.unwrap_err();
    assert_eq!(error, Error::NoPermit { limit: 9, held: 9 });
    // With the larger worker two thirds of the limit go.
    large.close().await;
    permits.pop().unwrap().release().await.unwrap();
    let error = registry.acquire_permit(&small, "9").await.unwrap_err();
    assert_eq!(error, Error::NoPermit { limit: 3, held: 8 });
    for permit in permits.drain(2..) {
        permit.release().await.unwrap();
    }
    registry.acquire_permit(&small, "9").await.unwrap();
}

async fn a_grant_whose_answer_is_lost_leaves_no_permit_behind(ground: &Ground) {
    let (registry, wire) = ground.registry_on_a_wire().await;
    let session = announce(&registry, "w").await;
    wire.set(WireState::AnswersLost);
    registry.acquire_permit(&session, "a").await.unwrap_err();
    // It was granted, and nobody knows.
    wire.set(WireState::Whole);
    let store = ground.store().await;
    let gone = async {
        let snapshot = store.range("permits/").await.unwrap();
        let mut watch = store.watch("permits/", snapshot.revision + 1).await.unwrap();
        let mut left = snapshot.items.len();
        while left > 0 {
            let changes = watch.next().await.unwrap().unwrap();
            left -= changes.iter().filter(|change| change.value.is_none()).count();
        }
    };
    soon("nothing behind", gone).await;
    registry.acquire_permit(&session, "a").await.unwrap();
}

async fn a_permit_that_cannot_be_given_back_now_is_given_back_later(ground: &Ground) {
    let other = ground.registry().await;
    let (registry, wire) = ground.registry_on_a_wire().await;
    let session = announce(&registry, "w").await;
    let permit = registry.acquire_permit(&session, "a").await.unwrap();
    view(&other, "the permit", |view| view.permits.len() == 1).await;
    wire.set(WireState::Cut);
    permit.release().await.unwrap_err();
    wire.set(WireState::Whole);
    view(&other, "no permit", |view| view.permits.is_empty()).await;
}

async fn a_session_that_is_cut_off_gets_no_permit(ground: &Ground) {
    let (registry, wire) = ground.registry_on_a_wire().await;
    let session = announce(&registry, "w").await;
    wire.set(WireState::Cut);
    let error = registry.acquire_permit(&session, "a").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    wire.set(WireState::Whole);
    let mut state = session.watch_state();
    soon("the session", state.wait_for(|state| *state == SessionState::Live)).await.unwrap();
    registry.acquire_permit(&session, "a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_closed_gets_no_permit() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    let held = registry.acquire_permit(&session, "a").await.unwrap();
    session.close().await;
    assert_eq!(registry.acquire_permit(&session, "b").await.err(), Some(Error::Closed));
    // Whoever holds one still has to unload: nobody keeps the session any more.
    soon("the news", held.forfeited()).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_leaves_no_permit_behind() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    for i in 0..50 {
        let key = i.to_string();
        let mut acquiring = Box::pin(registry.acquire_permit(&session, &key));
        // Polled a few times, and given up at another step each time.
        for _ in 0..i % 10 {
            let polled = futures::poll!(&mut acquiring);
            if polled.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let _last = registry.acquire_permit(&session, "last").await.unwrap();
    view(&registry, "only the last one", |view| {
        view.permits.keys().collect::<Vec<_>>() == [&ReplicaId::new("w", "last")]
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_somebody_deletes_is_forfeit() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    let permit = registry.acquire_permit(&session, "a").await.unwrap();
    let store = ground.store().await;
    store.txn(&[], &[registry::store::Op::delete("permits/w/a")]).await.unwrap();
    soon("the news", permit.forfeited()).await;
}

#[tokio::test(start_paused = true)]
async fn a_permit_from_a_newer_version_counts_and_stays() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let session = announce(&registry, "w").await;
    pin(&registry, 1).await;
    let newer = registry::store::Op::put("permits/gone/a", r#"{"version":2,"new":true}"#);
    ground.store().await.txn(&[], &[newer]).await.unwrap();
    let error = registry.acquire_permit(&session, "b").await.unwrap_err();
    assert_eq!(error, Error::NoPermit { limit: 1, held: 1 });
    tokio::time::advance(std::time::Duration::from_secs(600)).await;
    view(&registry, "the permit", |view| view.permits.len() == 1).await;
    assert!(registry.acquire_permit(&session, "b").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_id_was_taken_gets_no_permit() {
    let ground = Ground::memory();
    let (one, two) = (ground.registry().await, ground.registry().await);
    let old = announce(&one, "w").await;
    let _new = two.announce(WorkerRecord { boot_id: "two".into(), ..worker("w") }).await.unwrap();
    let error = one.acquire_permit(&old, "a").await.unwrap_err();
    assert!(matches!(error, Error::Cut { .. } | Error::Closed), "{error}");
}

//! Permits of the dead come back, and those of the living stay.

use std::time::Duration;

use registry::{Config, Permit, Registry, ReplicaId, Session, WorkerRecord, testing::WireState};
use tokio::{net::TcpListener, time::Instant};

use crate::{
    ground::{Ground, NOBODY, announce, config, soon, start, view, worker},
    on_both_stores,
};

on_both_stores! {
    a_dead_workers_permit_comes_back_when_its_port_refuses
    a_restarted_worker_has_no_old_permits_to_wait_for
}

/// A worker that dies: its process holds a permit and is never heard of again.
async fn dies_with_a_permit(ground: &Ground, record: WorkerRecord) {
    let (registry, wire) = ground.registry_on_a_wire().await;
    let session = registry.announce(record).await.unwrap();
    let permit = registry.acquire_permit(&session, "m").await.unwrap();
    wire.set(WireState::Cut);
    // What a killed process cannot do, these cannot either: the wire is cut.
    drop((permit, session, registry));
}

async fn a_dead_workers_permit_comes_back_when_its_port_refuses(ground: &Ground) {
    let registry = ground.registry().await;
    let began = Instant::now();
    dies_with_a_permit(ground, WorkerRecord { address: NOBODY.into(), ..worker("dead") }).await;
    view(&registry, "the session's end", |view| view.workers.is_empty()).await;
    view(&registry, "the permit's end", |view| view.permits.is_empty()).await;
    assert!(began.elapsed() < config().permit_grace, "after {:?}", began.elapsed());
}

async fn a_restarted_worker_has_no_old_permits_to_wait_for(ground: &Ground) {
    let registry = ground.registry().await;
    // The port is open: the restarted process listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    dies_with_a_permit(ground, WorkerRecord { address: address.clone(), ..worker("old") }).await;
    view(&registry, "the session's end", |view| view.workers.is_empty()).await;
    assert_eq!(registry.view().permits.len(), 1);
    let began = Instant::now();
    let _session = registry.announce(WorkerRecord { address, ..worker("new") }).await.unwrap();
    view(&registry, "the permit's end", |view| view.permits.is_empty()).await;
    assert!(began.elapsed() < config().permit_grace, "after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_permit_behind_an_open_port_stays_for_the_grace() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    dies_with_a_permit(&ground, WorkerRecord { address, ..worker("silent") }).await;
    view(&registry, "the session's end", |view| view.workers.is_empty()).await;
    let gone = Instant::now();
    view(&registry, "the permit's end", |view| view.permits.is_empty()).await;
    assert!(gone.elapsed() >= config().permit_grace, "after {:?}", gone.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_in_time_keeps_its_permit() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    let (cut_off, wire) = ground.registry_on_a_wire().await;
    let session = announce(&cut_off, "w").await;
    let permit = cut_off.acquire_permit(&session, "m").await.unwrap();
    wire.set(WireState::Cut);
    view(&registry, "the session's end", |view| view.workers.is_empty()).await;
    tokio::time::sleep(config().permit_grace / 2).await;
    wire.set(WireState::Whole);
    view(&registry, "the session again", |view| view.workers.len() == 1).await;
    tokio::time::sleep(config().permit_grace * 2).await;
    assert!(registry.view().permits.contains_key(&ReplicaId::new("w", "m")));
    assert!(!permit.forfeit_token().is_cancelled());
    permit.release().await.unwrap();
    view(&registry, "the permit's end", |view| view.permits.is_empty()).await;
}

/// The worst case of C1: the worker lives on behind its cut, and its permit is reclaimed all the same. It must have
/// been told before.
#[tokio::test(start_paused = true)]
async fn a_reclaimed_permit_was_forfeit_before() {
    let ground = Ground::memory();
    let config =
        Config { permit_grace: Duration::from_secs(30), permit_margin: Duration::from_secs(10), ..config() };
    let registry = start(ground.store().await, config.clone()).await;
    for i in 0..5 {
        let wire = registry::testing::Wire::new(ground.store().await);
        let cut_off = start(std::sync::Arc::new(wire.clone()), config.clone()).await;
        let held = hold(&cut_off, &format!("w{i}")).await;
        // At another moment of the lease's life each time.
        tokio::time::sleep(Duration::from_millis(137 * i)).await;
        wire.set(if i % 2 == 0 { WireState::Silent } else { WireState::Cut });
        view(&registry, "the permit's end", |view| view.permits.is_empty()).await;
        assert!(held.1.forfeit_token().is_cancelled(), "worker {i} still trusts its permit");
    }
}

async fn hold(registry: &Registry, id: &str) -> (Session, Permit) {
    let session = announce(registry, id).await;
    let permit = soon("a permit", registry.acquire_permit(&session, "m")).await.unwrap();
    view(registry, "the permit", |view| view.permits.len() == 1).await;
    (session, permit)
}

//! Keep-alive: when an idle replica goes, on a paused clock.

use std::time::Duration;

use protocol::v1::{GenerateRequest, LoadRequest, ReplicaStatus, replica_status::State};
use tokio::time::{Instant, sleep};

use crate::ground::{Setup, Site, ask, frozen, load_request, say};

const SECOND: i64 = 1_000_000_000;

fn keeping(request: GenerateRequest, seconds: i64) -> GenerateRequest {
    GenerateRequest { keep_alive_ns: Some(seconds * SECOND), ..request }
}

/// How long it takes until the replica goes.
async fn lifetime(site: &Site) -> Duration {
    let start = Instant::now();
    site.wait_for(|status| status.replicas.iter().all(|replica| replica.state() == State::Unloading)).await;
    let time = start.elapsed();
    frozen(site.registry.wait_for(|view| view.permits.is_empty())).await.unwrap();
    assert_eq!(site.loader.engines(), 0);
    time
}

async fn answer(site: &Site, request: GenerateRequest) {
    frozen(site.answer(request)).await.unwrap();
}

fn near(time: Duration, seconds: u64) -> bool {
    let expected = Duration::from_secs(seconds);
    (expected..expected + Duration::from_millis(100)).contains(&time)
}

async fn replica(site: &Site) -> ReplicaStatus {
    site.status().await.replicas.remove(0)
}

#[tokio::test(start_paused = true)]
async fn an_idle_replica_goes_after_the_default_time() {
    let site = Site::loaded(1).await;
    answer(&site, say("hi")).await;
    let time = lifetime(&site).await;
    assert!(near(time, 300), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_keep_alive_replaces_it_and_one_without_leaves_it() {
    let site = Site::loaded(1).await;
    answer(&site, keeping(say("hi"), 3_600)).await;
    answer(&site, say("hi")).await;
    let time = lifetime(&site).await;
    assert!(near(time, 3_600), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_load_with_a_keep_alive_sets_it() {
    let site = Site::new().await;
    site.load(LoadRequest { keep_alive_ns: Some(60 * SECOND), ..load_request("model") }).await.unwrap();
    let time = lifetime(&site).await;
    assert!(near(time, 60), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn zero_means_that_it_goes_with_its_answer() {
    let site = Site::loaded(1).await;
    answer(&site, keeping(say("hi"), 0)).await;
    let time = lifetime(&site).await;
    assert!(near(time, 0), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn zero_at_load_still_waits_for_the_request_that_it_was_loaded_for() {
    let site = Site::new().await;
    site.load(LoadRequest { keep_alive_ns: Some(0), ..load_request("model") }).await.unwrap();
    sleep(Duration::from_secs(9)).await;
    answer(&site, say("hi")).await;
    let time = lifetime(&site).await;
    assert!(near(time, 0), "{time:?}");
    site.load(LoadRequest { keep_alive_ns: Some(0), ..load_request("model") }).await.unwrap();
    let time = lifetime(&site).await;
    assert!(near(time, 10), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_negative_time_is_for_ever() {
    let site = Site::loaded(1).await;
    answer(&site, keeping(say("hi"), -1)).await;
    sleep(Duration::from_secs(24 * 3_600)).await;
    answer(&site, say("hi")).await;
    assert_eq!(replica(&site).await.expires_at_ns, i64::MAX);
}

#[tokio::test(start_paused = true)]
async fn a_busy_replica_does_not_go_and_its_time_runs_from_the_end_of_the_answer() {
    let site = Site::loaded(1).await;
    site.loader.steps.close();
    let chunks = frozen(site.generate(keeping(ask("hi"), 30))).await.unwrap();
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(replica(&site).await.slots_used, 1);
    drop(chunks);
    frozen(site.step_until_used(0)).await;
    let time = lifetime(&site).await;
    assert!(near(time, 30), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_when_a_replica_was_used_and_when_it_goes() {
    let site = Site::loaded(1).await;
    answer(&site, keeping(say("hi"), 60)).await;
    let before = replica(&site).await;
    assert_eq!(before.expires_at_ns - before.last_used_ns, 60 * SECOND);
    sleep(Duration::from_secs(20)).await;
    answer(&site, say("hi")).await;
    let after = replica(&site).await;
    assert!(after.last_used_ns - before.last_used_ns >= 20 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_default_is_what_the_operator_says() {
    let mut setup = Setup::default();
    setup.config.keep_alive = worker::KeepAlive::For(Duration::from_secs(42));
    let site = Site::with(setup).await;
    site.load(load_request("model")).await.unwrap();
    answer(&site, say("hi")).await;
    let time = lifetime(&site).await;
    assert!(near(time, 42), "{time:?}");
}

//! The end of a worker, told or cut off, and its gRPC door.

use std::{sync::Arc, time::Duration};

use api::Code;
use futures::StreamExt;
use protocol::{
    from_status,
    v1::{StatusRequest, replica_status::State, worker_client::WorkerClient},
};
use registry::{Memory, Registry, WorkerRecord};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use worker::{Config, ScriptedLoader, Worker, scripted};

use crate::ground::{Setup, Site, ask, frozen, load_request, next_text, say, whole};

#[tokio::test]
async fn a_drain_lets_answers_end_and_admits_nothing_new() {
    let site = Site::loaded(2).await;
    site.loader.steps.close();
    let chunks = site.generate(say("the end")).await.unwrap();
    site.stop();
    assert!(site.wait_for(|status| status.draining).await.draining);
    for refused in [
        site.generate(ask("hi")).await.map(drop),
        site.load(load_request("other")).await.map(drop),
        site.load(load_request("model")).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code, Code::Unavailable);
    }
    site.registry
        .wait_for(|view| view.worker("worker-1").is_some_and(|worker| worker.draining))
        .await
        .unwrap();
    site.loader.steps.open();
    assert_eq!(whole(chunks).await.unwrap().0, "the end");
    let loader = site.loader.clone();
    let registry = site.ended().await;
    assert_eq!(loader.engines(), 0);
    let view = registry.wait_for(|view| view.workers.is_empty()).await.unwrap();
    assert!(view.permits.is_empty() && view.replicas.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_runs_at_the_end_of_the_drain_breaks_off_so_that_it_can_be_resumed() {
    let mut setup = Setup::default();
    setup.config.drain_timeout = Duration::from_secs(20);
    let site = Site::with(setup).await;
    site.load(load_request("model")).await.unwrap();
    site.loader.steps.close();
    let mut chunks = site.generate(ask("hi")).await.unwrap();
    site.loader.steps.allow(1);
    next_text(&mut chunks).await;
    let start = Instant::now();
    site.stop();
    let steps = site.loader.steps.clone();
    let opened = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(21)).await;
        // The step that had begun.
        steps.open();
    });
    let error = whole(chunks).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(start.elapsed() >= Duration::from_secs(20));
    opened.await.unwrap();
    let registry = site.ended().await;
    assert!(registry.view().permits.is_empty());
}

#[tokio::test]
async fn a_load_is_given_up_by_a_drain() {
    let site = Site::new().await;
    site.loader.loads.close();
    let mut progress = site.load_stream(load_request("model")).await.unwrap();
    while progress.next().await.unwrap().unwrap().fraction < 0.5 {}
    site.stop();
    site.wait_for(|status| status.draining).await;
    site.loader.loads.open();
    let end = progress.next().await;
    let error = match end {
        Some(Ok(_)) => from_status(&progress.next().await.unwrap().unwrap_err()),
        Some(Err(status)) => from_status(&status),
        None => panic!("a load ends with an error"),
    };
    assert!(matches!(error.code, Code::NotLoaded | Code::Unavailable), "{error:?}");
    site.ended().await;
}

#[tokio::test]
async fn the_status_comes_at_once_and_at_every_change_and_ends_with_the_worker() {
    let site = Site::loaded(1).await;
    let mut statuses = site.status_stream().await;
    let first = statuses.next().await.unwrap().unwrap();
    assert_eq!((first.worker_id.as_str(), first.boot_id.is_empty()), ("worker-1", false));
    assert_eq!((first.memory_total_bytes, first.replicas[0].slots_used), (1 << 30, 0));
    site.loader.steps.close();
    let chunks = site.generate(ask("hi")).await.unwrap();
    while statuses.next().await.unwrap().unwrap().replicas[0].slots_used != 1 {}
    site.loader.steps.open();
    drop(chunks);
    while statuses.next().await.unwrap().unwrap().replicas[0].slots_used != 0 {}
    site.stop();
    while let Some(Ok(_)) = statuses.next().await {}
    site.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_cut_off_serves_what_it_has_until_its_permits_are_forfeit() {
    let site = Site::loaded(1).await;
    site.cut_wire();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(frozen(site.answer(say("still here"))).await.map(|(text, _)| text), Ok("still here".into()));
    let error = site.load(load_request("other")).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    site.wait_for(|status| status.replicas.iter().all(|replica| replica.state() == State::Unloading)).await;
    // Grace (120 s) less margin (15 s), counted from the last renewal.
    let elapsed = start.elapsed().as_secs();
    assert!((95..=105).contains(&elapsed), "{elapsed} s");
    site.wait_until_empty().await;
    assert_eq!(site.loader.engines(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_load_whose_permit_is_forfeit_is_given_up() {
    let site = Site::new().await;
    site.loader.loads.close();
    let mut progress = site.load_stream(load_request("model")).await.unwrap();
    while progress.next().await.unwrap().unwrap().fraction < 0.5 {}
    site.cut_wire();
    // The clock does not move by itself while a load blocks its thread.
    while site.status().await.replicas[0].state() != State::Unloading {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    site.loader.loads.open();
    site.wait_until_empty().await;
    assert_eq!(
        (site.loader.seen.given_up.load(std::sync::atomic::Ordering::SeqCst), site.loader.engines()),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_id_was_taken_ends_with_an_error() {
    let site = Site::new().await;
    site.cut_wire();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let others = Registry::start(Arc::new(site.memory.clone()), registry::Config::default()).await.unwrap();
    let other = WorkerRecord {
        id: "worker-1".into(),
        boot_id: "another".into(),
        address: "192.0.2.1:1".into(),
        ..WorkerRecord::default()
    };
    let _session = others.announce(other).await.unwrap();
    site.mend_wire();
    assert_eq!(site.died().await.to_string(), "worker `worker-1` has lost its session for good");
}

#[tokio::test]
async fn a_worker_serves_over_tcp_and_in_its_process_at_once() {
    let registry = Registry::start(Arc::new(Memory::new()), registry::Config::default()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config { id: "worker-1".into(), address: address.to_string(), ..Config::default() };
    let loader =
        ScriptedLoader { config: scripted::Config { tokens_per_second: 0.0 }, load_time: Duration::ZERO };
    let worker = Worker::start(config, Arc::new(loader), registry.clone()).await.unwrap();
    let view = registry.wait_for(|view| view.worker("worker-1").is_some()).await.unwrap();
    assert_eq!(view.worker("worker-1").unwrap().address, address.to_string());
    let inside = worker.in_process_channel();
    let stop = CancellationToken::new();
    let served = tokio::spawn(worker.serve(Some(listener), stop.clone()));

    let outside = WorkerClient::connect(format!("http://{address}")).await.unwrap();
    for mut client in [outside, WorkerClient::new(inside)] {
        let mut progress = client.load(load_request("model")).await.unwrap().into_inner();
        while let Some(item) = progress.next().await {
            item.unwrap();
        }
        assert_eq!(
            whole(client.generate(say("hello")).await.unwrap().into_inner()).await.unwrap().0,
            "hello"
        );
        let mut statuses = client.status(StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(statuses.next().await.unwrap().unwrap().replicas.len(), 1);
    }
    stop.cancel();
    served.await.unwrap().unwrap();
    registry.wait_for(|view| view.workers.is_empty()).await.unwrap();
    assert!(WorkerClient::connect(format!("http://{address}")).await.is_err());
}

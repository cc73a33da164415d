//! `Load` and `Unload`: one load for many callers, permits (C1), memory, contexts (C6), and loads that fail.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use api::{Code, Error};
use futures::{StreamExt, future::join_all};
use protocol::v1::{LoadOptions, LoadRequest, replica_status::State};
use registry::{Limits, ReplicaState};
use worker::{
    memory::{Gauge, Memory},
    scripted::{TRAIN_CONTEXT_LENGTH, size_bytes},
};

use crate::ground::{Setup, Site, ask, load_request, next_text, ready, whole, with_context};

fn small_machine(available_bytes: u64) -> Setup {
    let mut setup = Setup::default();
    setup.config.gauge = Gauge::new(move || Memory { total_bytes: 1 << 30, available_bytes });
    setup
}

#[tokio::test]
async fn a_load_reports_progress_and_ends_with_the_replica() {
    let site = Site::new().await;
    site.loader.loads.close();
    let mut progress = site.load_stream(load_request("model")).await.unwrap();
    let mut fractions = Vec::new();
    let ready = loop {
        let item = progress.next().await.unwrap().unwrap();
        match item.ready {
            Some(ready) => break ready,
            None => fractions.push(item.fraction),
        }
        if item.fraction == 0.5 {
            site.loader.loads.open();
        }
    };
    assert!(fractions.is_sorted() && fractions.contains(&0.5), "{fractions:?}");
    assert!(progress.next().await.is_none());
    assert_eq!((ready.state(), ready.slots, ready.context_length), (State::Ready, 4, 4_096));
    assert_eq!((ready.name.as_str(), ready.size_bytes > 0), ("model:latest", true));
}

#[tokio::test]
async fn callers_that_want_the_same_replica_share_one_load() {
    let site = Site::new().await;
    let loads = join_all((0..16).map(|_| site.load(load_request("model")))).await;
    assert!(loads.iter().all(Result::is_ok), "{loads:?}");
    assert_eq!(site.loader.loads_seen(), 1);
    site.load(load_request("model")).await.unwrap();
    assert_eq!(site.loader.loads_seen(), 1);
}

#[tokio::test]
async fn a_load_goes_on_while_somebody_waits_for_it() {
    let site = Site::new().await;
    site.loader.loads.close();
    let mut first = site.load_stream(load_request("model")).await.unwrap();
    let second = site.load_stream(load_request("model")).await.unwrap();
    first.next().await.unwrap().unwrap();
    drop(first);
    site.loader.loads.open();
    assert_eq!(ready(second).await.unwrap().state(), State::Ready);
}

#[tokio::test]
async fn a_load_that_everybody_left_is_given_up_and_its_permit_comes_back() {
    let site = Site::new().await;
    site.loader.loads.close();
    let mut progress = site.load_stream(load_request("model")).await.unwrap();
    while progress.next().await.unwrap().unwrap().fraction < 0.5 {}
    drop(progress);
    site.wait_for(|status| status.replicas.iter().any(|replica| replica.state() == State::Unloading)).await;
    site.loader.loads.open();
    site.wait_until_empty().await;
    assert_eq!((site.loader.seen.given_up.load(Ordering::SeqCst), site.loader.engines()), (1, 0));
    site.registry.wait_for(|view| view.permits.is_empty()).await.unwrap();
    site.load(load_request("model")).await.unwrap();
}

#[tokio::test]
async fn a_load_that_fails_tells_everybody_and_can_be_tried_again() {
    let site = Site::new().await;
    site.loader.loads.close();
    *site.loader.failure.lock().unwrap() = Some(Error::internal("tensor `x` is missing"));
    let callers =
        [site.load_stream(load_request("model")).await, site.load_stream(load_request("model")).await];
    site.loader.loads.open();
    for caller in callers {
        assert_eq!(ready(caller.unwrap()).await.unwrap_err().message, "tensor `x` is missing");
    }
    site.wait_until_empty().await;
    site.registry.wait_for(|view| view.permits.is_empty() && view.replicas.is_empty()).await.unwrap();
    site.load(load_request("model")).await.unwrap();
}

#[tokio::test]
async fn no_load_goes_beyond_the_permits_and_a_permit_comes_back_after_the_memory_is_free() {
    let limits = Limits { max_loaded_models: 2, ..Limits::default() };
    let site = Site::with(Setup { limits, ..Setup::default() }).await;
    site.load(load_request("a")).await.unwrap();
    site.load(load_request("b")).await.unwrap();
    assert_eq!(site.load(load_request("c")).await.unwrap_err().code, Code::NoPermit);
    assert_eq!((site.loader.engines(), site.permits()), (2, 2));
    assert!(site.unload("a").await);
    site.registry.wait_for(|view| view.permits.len() == 1).await.unwrap();
    assert_eq!(site.loader.engines(), 1);
    site.load(load_request("c")).await.unwrap();
}

#[tokio::test]
async fn the_cluster_sees_what_is_loaded() {
    let site = Site::loaded(2).await;
    let view = site
        .registry
        .wait_for(|view| {
            view.replica("worker-1", "model").is_some_and(|record| record.state == ReplicaState::Ready)
        })
        .await
        .unwrap();
    let record = view.replica("worker-1", "model").unwrap();
    let trained = TRAIN_CONTEXT_LENGTH as u32;
    assert_eq!((record.slots, record.context_length, record.train_context_length), (2, 4_096, trained));
    site.unload("model").await;
    site.registry.wait_for(|view| view.replicas.is_empty() && view.permits.is_empty()).await.unwrap();
}

#[tokio::test]
async fn a_model_that_does_not_fit_is_refused_with_both_numbers() {
    let site = Site::with(small_machine(size_bytes(1, 4_096) - 1)).await;
    let error = site.load(load_request("model")).await.unwrap_err();
    assert_eq!(error.code, Code::OutOfMemory);
    let bytes = size_bytes(1, 4_096);
    assert_eq!(error, Error::out_of_memory(bytes, bytes - 1));
    assert_eq!(site.loader.loads_seen(), 0);
}

#[tokio::test]
async fn the_automatic_number_of_slots_follows_the_memory_and_one_that_was_set_does_not() {
    let site = Site::with(small_machine(size_bytes(3, 4_096))).await;
    let exact = LoadRequest { num_parallel: 4, ..load_request("exact") };
    assert_eq!(site.load(exact).await.unwrap_err().code, Code::OutOfMemory);
    assert_eq!(site.load(load_request("automatic")).await.unwrap().slots, 3);
}

#[tokio::test]
async fn loads_at_the_same_time_do_not_count_on_the_same_memory() {
    let site = Site::with(small_machine(size_bytes(4, 4_096) + size_bytes(1, 4_096) - 1)).await;
    site.loader.loads.close();
    let mut first = site.load_stream(load_request("first")).await.unwrap();
    while first.next().await.unwrap().unwrap().fraction < 0.5 {}
    assert_eq!(site.load(load_request("second")).await.unwrap_err().code, Code::OutOfMemory);
    site.loader.loads.open();
    ready(first).await.unwrap();
}

#[tokio::test]
async fn a_smaller_context_is_served_by_the_present_replica() {
    let site = Site::new().await;
    site.load(with_context(8_192)).await.unwrap();
    for num_ctx in [0, 4, 2_048, 8_192] {
        assert_eq!(site.load(with_context(num_ctx)).await.unwrap().context_length, 8_192);
    }
    assert_eq!(site.loader.loads_seen(), 1);
}

#[tokio::test]
async fn no_context_is_larger_than_the_model_was_trained_for() {
    let site = Site::new().await;
    assert_eq!(site.load(with_context(1_000_000)).await.unwrap().context_length, TRAIN_CONTEXT_LENGTH as u32);
    // And who asks again for too much is served.
    site.load(with_context(2_000_000)).await.unwrap();
    assert_eq!(site.loader.loads_seen(), 1);
}

#[tokio::test]
async fn a_larger_context_reloads_after_the_last_answer_and_breaks_none() {
    let site = Site::loaded(1).await;
    site.loader.steps.close();
    let mut chunks = site.generate(ask("hi")).await.unwrap();
    site.loader.steps.allow(1);
    next_text(&mut chunks).await;
    let larger = site.load_stream(with_context(8_192)).await.unwrap();
    site.wait_for(|status| status.replicas.iter().any(|replica| replica.state() == State::Unloading)).await;
    assert_eq!(site.generate(ask("hi")).await.unwrap_err().code, Code::NotLoaded);
    site.loader.steps.open();
    assert!(whole(chunks).await.is_ok());
    assert_eq!(ready(larger).await.unwrap().context_length, 8_192);
    assert_eq!((site.loader.loads_seen(), site.loader.engines()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reload_waits_only_so_long_for_answers_to_end() {
    let mut setup = Setup::default();
    setup.config.reload_wait = Duration::from_secs(7);
    let site = Site::with(setup).await;
    site.load(load_request("model")).await.unwrap();
    site.loader.steps.close();
    let _chunks = site.generate(ask("hi")).await.unwrap();
    let error = site.load(with_context(8_192)).await.unwrap_err();
    assert_eq!(error.code, Code::Timeout);
    assert!(error.message.contains("7 s"), "{error}");
    site.loader.steps.open();
}

#[tokio::test]
async fn a_larger_context_that_does_not_fit_leaves_the_present_replica() {
    let free = std::sync::Arc::new(AtomicU64::new(size_bytes(4, 4_096)));
    let mut setup = Setup::default();
    let gauge = free.clone();
    setup.config.gauge =
        Gauge::new(move || Memory { total_bytes: 1 << 30, available_bytes: gauge.load(Ordering::SeqCst) });
    let site = Site::with(setup).await;
    let four = |num_ctx| LoadRequest { num_parallel: 4, ..with_context(num_ctx) };
    site.load(four(4_096)).await.unwrap();
    free.store(0, Ordering::SeqCst);
    assert_eq!(site.load(four(8_192)).await.unwrap_err().code, Code::OutOfMemory);
    assert!(site.answer(ask("hi")).await.is_ok());
    assert_eq!(site.loader.loads_seen(), 1);
}

#[tokio::test]
async fn a_replica_whose_engine_died_goes_and_can_be_loaded_again() {
    let site = Site::loaded(1).await;
    *site.loader.fault.lock().unwrap() = Some(engine::Error::Compute("the device is gone".into()));
    let error = site.answer(ask("hi")).await.unwrap_err();
    assert_eq!(error.code, Code::Internal);
    assert!(error.message.starts_with("model runner has unexpectedly stopped"), "{error}");
    site.wait_until_empty().await;
    site.registry.wait_for(|view| view.permits.is_empty()).await.unwrap();
    site.load(load_request("model")).await.unwrap();
    assert!(site.answer(ask("hi")).await.is_ok());
}

#[tokio::test]
async fn an_unload_of_an_idle_replica_ends_it_and_of_none_finds_none() {
    let site = Site::loaded(1).await;
    assert!(site.unload("model").await);
    site.wait_until_empty().await;
    assert!(!site.unload("model").await);
}

#[tokio::test]
async fn an_unload_of_a_busy_replica_lets_its_answer_end() {
    let site = Site::loaded(2).await;
    site.loader.steps.close();
    let chunks = site.generate(ask("hi")).await.unwrap();
    assert!(site.unload("model").await);
    assert_eq!(site.generate(ask("hi")).await.unwrap_err().code, Code::NotLoaded);
    assert_eq!(site.loader.engines(), 1);
    site.loader.steps.open();
    assert!(whole(chunks).await.is_ok());
    site.wait_until_empty().await;
    assert_eq!(site.loader.engines(), 0);
}

#[tokio::test]
async fn a_load_waits_for_the_unload_of_the_same_replica() {
    let site = Site::loaded(1).await;
    for _ in 0..10 {
        site.unload("model").await;
        site.load(load_request("model")).await.unwrap();
        assert_eq!(site.loader.engines(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_without_progress_is_not_waited_for_for_ever() {
    let mut setup = Setup::default();
    setup.config.load_timeout = Duration::from_secs(5);
    let site = Site::with(setup).await;
    site.loader.loads.close();
    let opener = site.loader.loads.clone();
    let mut load = site.load_stream(load_request("model")).await.unwrap();
    while load.next().await.unwrap().unwrap().fraction < 0.5 {}
    // The clock does not move by itself while a load blocks its thread.
    let clock = async {
        loop {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    };
    let error = tokio::select! {
        result = ready(load) => result.unwrap_err(),
        () = clock => unreachable!("it never ends"),
    };
    assert_eq!(error.code, Code::Timeout);
    assert!(error.message.contains("5 s"), "{error}");
    opener.open();
}

#[tokio::test]
async fn a_load_that_says_the_same_again_and_again_makes_no_progress() {
    let mut setup = Setup::default();
    setup.config.load_timeout = Duration::from_millis(300);
    let site = Site::with(setup).await;
    site.loader.loads.close();
    let load = site.load_stream(load_request("model")).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), ready(load)).await;
    site.loader.loads.open();
    assert_eq!(ended.expect("it was waited for").unwrap_err().code, Code::Timeout);
}

#[tokio::test]
async fn a_load_that_makes_no_sense_is_refused() {
    let site = Site::new().await;
    let error = site.load(load_request("")).await.unwrap_err();
    assert_eq!(error, Error::invalid("`replica_key` must not be empty"));
    let error = site.load(LoadRequest { model: None, ..load_request("") }).await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    let error = site.load(LoadRequest { num_parallel: 1_025, ..load_request("model") }).await.unwrap_err();
    assert_eq!(error.message, "`num_parallel` must be at most 1024, got 1025");
    let options = Some(LoadOptions { num_ctx: u32::MAX, ..LoadOptions::default() });
    assert_eq!(
        site.load(LoadRequest { options, ..load_request("model") }).await.unwrap().context_length,
        TRAIN_CONTEXT_LENGTH as u32
    );
}

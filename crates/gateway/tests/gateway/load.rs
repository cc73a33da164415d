//! Loading on demand, evicting, and what happens when neither works.

use std::time::Duration;

use api::{Code, Error};
use registry::Limits;
use serde_json::json;

use crate::fake::{Fake, Machine, text};
use crate::rig::{Rig, Setup, hello, not_stuck, said};

#[tokio::test]
async fn a_model_is_loaded_when_it_is_first_asked_for_and_only_then() {
    let rig = Rig::start().await;
    for _ in 0..3 {
        assert_eq!(said(&rig.post("/api/chat", hello("m")).await.lines()), text(1, 5));
    }
    let loads = rig.worker().seen().load;
    assert_eq!(loads.len(), 1);
    let model = loads[0].model.clone().unwrap();
    let stored = rig.store.get(&"m".parse().unwrap()).await.unwrap();
    assert_eq!((model.name.as_str(), &model.manifest_digest), ("m:latest", &stored.digest));
    assert_eq!(model.weights, stored.weights.as_ref().unwrap().to_string());
}

#[tokio::test]
async fn whether_a_model_is_loaded_can_be_asked_without_loading_it() {
    let rig = Rig::start().await;
    let asked = async |model: &str| rig.handle.check_loaded(model).await.map_err(|error| error.message);
    assert_eq!(asked("m").await, Err("model 'm' is not loaded".to_owned()));
    assert_eq!(asked("nope").await, Err("model 'nope' not found".to_owned()));
    assert_eq!(asked("a b").await, Err("invalid model name".to_owned()));
    assert!(rig.worker().seen().load.is_empty());
    rig.post("/api/chat", hello("m")).await;
    assert_eq!((asked("m").await, asked("M:latest").await), (Ok(()), Ok(())));
}

#[tokio::test]
async fn many_requests_for_a_cold_model_load_it_once() {
    let rig = Rig::with_queue(4, 100).await;
    rig.worker().hold_loads();
    let burst: Vec<_> = (0..20).map(|_| rig.spawn("/api/chat", hello("m"))).collect();
    // One drives the load, the others wait for it.
    rig.until_waiting(19).await;
    rig.worker().allow_loads(1);
    for reply in burst {
        assert_eq!(said(&not_stuck(reply).await.unwrap().lines()), text(1, 5));
    }
    assert_eq!(rig.worker().seen().load.len(), 1);
}

#[tokio::test]
async fn the_limits_of_the_cluster_go_with_the_load() {
    let limits = Limits { num_parallel: 3, ..Limits::default() };
    let mut setup = Setup { limits, ..Setup::default() };
    setup.config.context_length = 1024;
    setup.config.keep_alive = Some(api::KeepAlive::FOREVER);
    let rig = Rig::with(setup).await;
    rig.post("/api/generate", json!({ "model": "m", "options": { "num_gpu": 0, "num_thread": 2 } })).await;
    let load = rig.worker().seen().load[0].clone();
    let options = load.options.unwrap();
    assert_eq!((load.num_parallel, load.keep_alive_ns), (3, Some(-1)));
    assert_eq!((options.num_ctx, options.num_gpu, options.num_thread), (1024, 0, 2));
}

#[tokio::test]
async fn a_model_that_fails_to_load_is_500_with_the_reason_and_may_be_tried_again() {
    let rig = Rig::start().await;
    for code in [Code::Internal, Code::OutOfMemory] {
        rig.worker().fail_loads(Some(Error::new(code, "tensor `x` is missing")));
        assert_eq!(rig.post("/api/chat", hello("m")).await.refused(500), "tensor `x` is missing");
    }
    rig.worker().fail_loads(None);
    assert_eq!(rig.post("/api/chat", hello("m")).await.status, 200);
}

#[tokio::test]
async fn a_full_cluster_evicts_an_idle_model() {
    let limits = Limits { max_loaded_models: 1, ..Limits::default() };
    let rig = Rig::with(Setup { limits, ..Setup::default() }).await;
    rig.create("n", json!({})).await;
    for model in ["m", "n", "m"] {
        let reply = rig.post("/api/chat", hello(model)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(rig.worker().loaded(), [format!("{model}:latest")]);
    }
    assert_eq!(rig.worker().seen().unload.len(), 2);
}

#[tokio::test]
async fn a_busy_model_is_not_evicted_but_waited_for() {
    let limits = Limits { max_loaded_models: 1, ..Limits::default() };
    let rig = Rig::with(Setup { limits, ..Setup::default() }).await;
    rig.create("n", json!({})).await;
    rig.warm().await;
    rig.worker().hold_tokens();
    let running = rig.spawn("/api/chat", hello("m"));
    rig.until(|rig| rig.worker().slots_used() == 1).await;
    let waiting = rig.spawn("/api/chat", hello("n"));
    rig.until_waiting(1).await;
    assert!(rig.worker().seen().unload.is_empty());
    rig.worker().allow_tokens(99);
    assert_eq!(said(&not_stuck(running).await.unwrap().lines()), text(1, 5));
    assert_eq!(not_stuck(waiting).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_model_that_is_always_busy_makes_room_for_one_that_has_waited_long() {
    let limits = Limits { max_loaded_models: 1, ..Limits::default() };
    let mut setup = Setup { limits, ..Setup::default() };
    setup.config.patience = Duration::ZERO;
    let rig = Rig::with(setup).await;
    rig.create("n", json!({})).await;
    rig.warm().await;
    rig.worker().hold_tokens();
    let running = rig.spawn("/api/chat", hello("m"));
    rig.until(|rig| rig.worker().slots_used() == 1).await;
    let long_waiting = rig.spawn("/api/chat", hello("n"));
    // It is told to go, and takes nothing new although it has free slots.
    rig.until(|rig| rig.worker().seen().unload.len() == 1).await;
    let newcomer = rig.spawn("/api/chat", hello("m"));
    rig.until_waiting(2).await;
    assert_eq!(rig.worker().slots_used(), 1, "what runs goes on");
    rig.worker().allow_tokens(999);
    for reply in [running, long_waiting, newcomer] {
        assert_eq!(said(&not_stuck(reply).await.unwrap().lines()), text(1, 5));
    }
    let order: Vec<String> =
        rig.worker().seen().generate.iter().map(|request| request.model.clone().unwrap().name).collect();
    assert_eq!(order[order.len() - 3..], ["m:latest", "n:latest", "m:latest"]);
}

#[tokio::test]
async fn a_smaller_context_never_reloads_and_a_larger_one_does() {
    let rig = Rig::start().await;
    let with = |num_ctx: u32| {
        let mut request = hello("m");
        request["options"]["num_ctx"] = json!(num_ctx);
        request
    };
    for (num_ctx, loads) in [(1000, 1), (512, 1), (1000, 1), (2000, 2), (1000, 2)] {
        assert_eq!(rig.post("/api/chat", with(num_ctx)).await.status, 200);
        assert_eq!(rig.worker().seen().load.len(), loads, "num_ctx {num_ctx}");
    }
    assert_eq!(rig.get("/api/ps").await.json()["models"][0]["context_length"], 2000);
}

#[tokio::test]
async fn a_small_context_is_not_forced_on_who_names_none() {
    let rig = Rig::start().await;
    let mut small = hello("m");
    small["options"]["num_ctx"] = json!(256);
    for (request, loads, window) in
        [(&small, 1, 256), (&hello("m"), 2, 0), (&hello("m"), 2, 0), (&small, 2, 256)]
    {
        assert_eq!(rig.post("/api/chat", request.clone()).await.status, 200);
        let seen = rig.worker().seen();
        assert_eq!(seen.load.len(), loads);
        // The answer does not depend on who came before.
        assert_eq!(seen.generate.last().unwrap().context_length, window);
    }
    assert_eq!(rig.get("/api/ps").await.json()["models"][0]["context_length"], 2048);
}

#[tokio::test]
async fn a_load_call_for_a_loaded_model_sets_its_keep_alive_and_leaves_the_rest() {
    let rig = Rig::start().await;
    rig.post("/api/generate", json!({ "model": "m", "options": { "num_ctx": 3000 } })).await;
    rig.post("/api/generate", json!({ "model": "m", "keep_alive": -1 })).await;
    let load = rig.worker().seen().load.last().cloned().unwrap();
    assert_eq!((load.options.unwrap().num_ctx, load.keep_alive_ns), (3000, Some(-1)));
    let loaded = rig.get("/api/ps").await.json()["models"][0].clone();
    assert_eq!(loaded["context_length"], 3000);
    // The worker says so on its status stream only when something changes there, so ask it.
    assert_eq!(rig.worker().replica(&rig.replica_key("m").await).unwrap().expires_at_ns, i64::MAX);
}

#[tokio::test]
async fn a_context_that_no_load_can_give_is_served_with_the_most_there_is() {
    let rig = Rig::start().await;
    let mut request = hello("m");
    // The fake worker caps at 8192.
    request["options"]["num_ctx"] = json!(100_000);
    assert_eq!(rig.post("/api/chat", request).await.status, 200);
    assert_eq!(rig.worker().seen().load.len(), 1);
}

#[tokio::test]
async fn a_second_worker_is_used_when_the_first_is_full_and_enough_wait() {
    let rig = Rig::with_slots(&[1, 1]).await;
    rig.warm().await;
    for worker in &rig.workers {
        worker.hold_tokens();
    }
    let pair: Vec<_> = (0..2).map(|_| rig.spawn("/api/chat", hello("m"))).collect();
    rig.until(|rig| rig.workers.iter().all(|worker| worker.slots_used() == 1)).await;
    for worker in &rig.workers {
        worker.allow_tokens(99);
    }
    for reply in pair {
        assert_eq!(not_stuck(reply).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn without_any_worker_the_answer_says_what_to_do() {
    let rig = Rig::with_slots(&[]).await;
    let reply = rig.post("/api/chat", hello("m")).await;
    let text = reply.refused(503);
    assert!(text.contains("no worker is available") && text.contains("caravan worker"), "{text}");
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(rig.post("/api/generate", json!({ "model": "m" })).await.status, 503);
    assert_eq!(rig.get("/api/tags").await.status, 200);
    assert_eq!(rig.get("/api/ps").await.json(), json!({ "models": [] }));
}

#[tokio::test]
async fn a_worker_that_cannot_be_reached_is_given_up_after_a_while() {
    let rig = Rig::start().await;
    rig.worker().kill();
    rig.until(|rig| rig.handle.workers() == 0).await;
    tokio::time::pause();
    let text = rig.post("/api/chat", hello("m")).await.refused(503);
    assert!(text.contains("no worker is available"), "{text}");
    assert_eq!(rig.handle.waiting(), 0);
    assert_eq!(rig.get("/api/tags").await.status, 200, "what needs no worker is served");
}

#[tokio::test]
async fn a_model_larger_than_every_worker_is_told_so_at_once() {
    let machine = Machine { memory_bytes: 8, ..Machine::default() };
    let rig = Rig::with(Setup { machine, ..Setup::default() }).await;
    let text = rig.post("/api/chat", hello("m")).await.refused(500);
    assert!(text.starts_with("model requires more system memory ("), "{text}");
    assert!(text.ends_with(" B) than is available (8 B)"), "{text}");
    assert!(rig.worker().seen().load.is_empty());
}

#[tokio::test]
async fn a_load_that_makes_no_progress_is_given_up() {
    let rig = Rig::start().await;
    rig.worker().hold_loads();
    let asking = rig.spawn("/api/chat", hello("m"));
    rig.until(|rig| !rig.worker().loaded().is_empty()).await;
    tokio::time::pause();
    let reply = not_stuck_for_long(asking).await;
    let text = reply.refused(500);
    assert!(text.starts_with("timed out waiting for worker `w0` to load model `m:latest`"), "{text}");
}

#[tokio::test]
async fn two_gateways_load_a_model_once() {
    let rig = Rig::with_slots(&[4]).await;
    let channels = [(rig.worker().address(), rig.worker().channel())].into_iter().collect();
    let config = gateway::Config { channels, ..gateway::Config::new(|_| true) };
    let other = gateway::Gateway::new(config, rig.registry.clone(), rig.store.clone()).unwrap();
    let router = other.router("127.0.0.1:1".parse().unwrap()).unwrap();
    let handle = other.handle();
    let following = tokio::spawn(async move { other.follow(Default::default()).await });
    rig.until(|_| handle.workers() == 1).await;
    rig.worker().hold_loads();
    let here = rig.spawn("/api/chat", hello("m"));
    let request =
        http::Request::post("/api/chat").body(axum::body::Body::from(hello("m").to_string())).unwrap();
    let there = tokio::spawn(tower::ServiceExt::oneshot(router, request));
    rig.until(|rig| !rig.worker().loaded().is_empty()).await;
    rig.worker().allow_loads(9);
    assert_eq!(not_stuck(here).await.unwrap().status, 200);
    assert_eq!(not_stuck(there).await.unwrap().unwrap().status(), 200);
    assert_eq!(rig.worker().seen().load.len(), 1);
    following.abort();
}

async fn not_stuck_for_long(asking: tokio::task::JoinHandle<crate::rig::Reply>) -> crate::rig::Reply {
    asking.await.unwrap()
}

#[tokio::test]
async fn a_worker_that_joins_serves_those_who_could_not_be_served() {
    let rig = Rig::with_slots(&[]).await;
    assert_eq!(rig.post("/api/chat", hello("m")).await.status, 503);
    let late = Fake::start(&rig.registry, "late", 1).await;
    rig.until(|rig| !rig.registry.view().workers.is_empty()).await;
    let channels = [(late.address(), late.channel())].into_iter().collect();
    let config = gateway::Config { channels, ..gateway::Config::new(|_| true) };
    let gateway = gateway::Gateway::new(config, rig.registry.clone(), rig.store.clone()).unwrap();
    let router = gateway.router("127.0.0.1:1".parse().unwrap()).unwrap();
    let following = tokio::spawn(async move { gateway.follow(Default::default()).await });
    let request =
        http::Request::post("/api/chat").body(axum::body::Body::from(hello("m").to_string())).unwrap();
    // The gateway has just started and has not heard from the worker yet: it waits for a moment.
    let reply = not_stuck(tower::ServiceExt::oneshot(router, request)).await.unwrap();
    assert_eq!(reply.status(), 200);
    following.abort();
}

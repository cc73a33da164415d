//! Who waits, in which order, and who is turned away.

use api::ollama::QUEUE_FULL;
use api::{Code, Error};
use serde_json::json;

use crate::fake::text;
use crate::rig::{Rig, hello, not_stuck, said};

#[tokio::test]
async fn a_full_queue_answers_503_also_for_a_model_that_is_loaded() {
    let rig = Rig::with_queue(1, 2).await;
    rig.warm().await;
    rig.worker().hold_tokens();
    let running = rig.spawn("/api/chat", hello("m"));
    rig.until(|rig| rig.worker().slots_used() == 1).await;
    let waiting: Vec<_> = (0..2).map(|_| rig.spawn("/api/chat", hello("m"))).collect();
    rig.until_waiting(2).await;

    let refused = rig.post("/api/chat", hello("m")).await;
    assert_eq!(refused.refused(503), QUEUE_FULL);
    assert_eq!(refused.header("retry-after"), "1");
    let openai = rig.post("/v1/chat/completions", hello("m")).await;
    assert_eq!(openai.json()["error"]["message"], QUEUE_FULL);
    assert_eq!((openai.status.as_u16(), openai.header("retry-after")), (503, "1"));
    let embed = rig.post("/api/embed", json!({ "model": "m", "input": "x" })).await;
    assert_eq!(embed.refused(503), QUEUE_FULL);

    rig.worker().allow_tokens(99);
    for reply in waiting.into_iter().chain([running]) {
        let reply = not_stuck(reply).await.unwrap();
        assert_eq!(said(&reply.lines()), text(1, 5));
    }
    assert_eq!(rig.handle.waiting(), 0);
}

#[tokio::test]
async fn the_queue_holds_requests_of_all_models_together() {
    let rig = Rig::with_queue(1, 1).await;
    rig.create("n", json!({})).await;
    rig.warm().await;
    rig.post("/api/generate", json!({ "model": "n" })).await;
    rig.worker().hold_tokens();
    let _running = [rig.spawn("/api/chat", hello("m")), rig.spawn("/api/chat", hello("n"))];
    rig.until(|rig| rig.worker().slots_used() == 2).await;
    let _waiting = rig.spawn("/api/chat", hello("m"));
    rig.until_waiting(1).await;
    assert_eq!(rig.post("/api/chat", hello("n")).await.refused(503), QUEUE_FULL);
}

#[tokio::test]
async fn with_a_queue_of_none_nobody_waits_but_free_slots_serve() {
    let rig = Rig::with_queue(2, 0).await;
    rig.warm().await;
    rig.worker().hold_tokens();
    let running: Vec<_> = (0..2).map(|_| rig.spawn("/api/chat", hello("m"))).collect();
    rig.until(|rig| rig.worker().slots_used() == 2).await;
    assert_eq!(rig.post("/api/chat", hello("m")).await.refused(503), QUEUE_FULL);
    assert_eq!(rig.handle.waiting(), 0);
    rig.worker().allow_tokens(99);
    for reply in running {
        assert_eq!(not_stuck(reply).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    let rig = Rig::with_queue(1, 9).await;
    rig.warm().await;
    rig.worker().hold_tokens();
    let mut replies = vec![rig.spawn("/api/chat", hello("m"))];
    rig.until(|rig| rig.worker().slots_used() == 1).await;
    for position in 1..=4u32 {
        let mut request = hello("m");
        request["options"]["seed"] = json!(100 + position);
        replies.push(rig.spawn("/api/chat", request));
        rig.until_waiting(position).await;
    }
    rig.worker().allow_tokens(99);
    for reply in replies {
        not_stuck(reply).await.unwrap();
    }
    let seeds: Vec<u64> =
        rig.worker().seen().generate.iter().map(|one| one.options.clone().unwrap().seed).collect();
    assert_eq!(seeds, [1, 101, 102, 103, 104]);
}

#[tokio::test]
async fn a_busy_worker_sends_the_request_to_another() {
    let rig = Rig::with_slots(&[1, 1]).await;
    load_on_both(&rig).await;
    for worker in &rig.workers {
        worker.refuse(vec![Error::new(Code::Busy, "somebody was faster")]);
    }
    // Both refuse once; the first to be asked again serves it.
    let reply = rig.post("/api/chat", hello("m")).await;
    assert_eq!(said(&reply.lines()), text(1, 5));
    let asked: Vec<usize> = rig.workers.iter().map(|worker| worker.seen().generate.len()).collect();
    assert!(asked.iter().all(|times| *times >= 1), "{asked:?}");
}

#[tokio::test]
async fn a_worker_that_lost_the_model_is_left_for_one_that_has_it() {
    let rig = Rig::with_slots(&[1, 1]).await;
    let key = load_on_both(&rig).await;
    rig.workers[0].forget_silently(&key);
    for _ in 0..3 {
        let reply = rig.post("/api/chat", hello("m")).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-caravan-worker")), (200, "w1"));
    }
}

#[tokio::test]
async fn a_slot_that_another_gateway_gives_back_wakes_a_waiter() {
    let rig = Rig::with_queue(1, 9).await;
    let key = rig.warm().await;
    rig.worker().occupy(&key, 1);
    rig.until(|rig| rig.worker().slots_used() == 1).await;
    let waiting = rig.spawn("/api/chat", hello("m"));
    rig.until_waiting(1).await;
    rig.worker().occupy(&key, 0);
    assert_eq!(not_stuck(waiting).await.unwrap().status, 200);
}

/// Fills the first worker, so that the next request is worth a second replica.
async fn load_on_both(rig: &Rig) -> String {
    let key = rig.warm().await;
    let first = rig.workers.iter().position(|worker| worker.replica(&key).is_some()).unwrap();
    rig.workers[first].occupy(&key, 1);
    let reply = rig.post("/api/chat", hello("m")).await;
    assert_eq!(reply.status, 200);
    rig.workers[first].occupy(&key, 0);
    rig.until(|rig| rig.is_ready(0, &key) && rig.is_ready(1, &key)).await;
    rig.until_idle().await;
    key
}

//! A client that leaves takes everything with it: its place, its slot, its load.

use serde_json::json;

use crate::rig::{Rig, hello, not_stuck};

#[tokio::test]
async fn a_waiting_client_that_leaves_gives_its_ticket_back() {
    let rig = Rig::with_queue(1, 1).await;
    rig.warm().await;
    rig.worker().hold_tokens();
    let _running = rig.spawn("/api/chat", hello("m"));
    rig.until(|rig| rig.worker().slots_used() == 1).await;
    let waiting = rig.spawn("/api/chat", hello("m"));
    rig.until_waiting(1).await;
    waiting.abort();
    rig.until_waiting(0).await;
    let next = rig.spawn("/api/chat", hello("m"));
    rig.until_waiting(1).await;
    rig.worker().allow_tokens(99);
    assert_eq!(not_stuck(next).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_frees_the_slot() {
    let rig = Rig::start().await;
    rig.warm().await;
    rig.worker().hold_tokens();
    rig.worker().allow_tokens(2);
    let mut reading = rig.open("/api/chat", hello("m")).await;
    reading.line().await;
    assert_eq!(rig.worker().slots_used(), 1);
    drop(reading);
    rig.until_idle().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_frees_the_slot() {
    let rig = Rig::start().await;
    rig.warm().await;
    rig.worker().hold_tokens();
    for stream in [true, false] {
        let mut request = hello("m");
        request["stream"] = json!(stream);
        let asking = rig.spawn("/api/chat", request);
        rig.until(|rig| rig.worker().slots_used() == 1).await;
        asking.abort();
        rig.until_idle().await;
    }
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_is_given_up() {
    let rig = Rig::start().await;
    let key = rig.replica_key("m").await;
    rig.worker().hold_loads();
    let asking = rig.spawn("/api/chat", hello("m"));
    rig.until(|rig| rig.worker().replica(&key).is_some()).await;
    asking.abort();
    rig.until(|rig| rig.worker().replica(&key).is_none()).await;
    rig.worker().allow_loads(1);
    let reply = rig.post("/api/chat", hello("m")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_load_goes_on_for_those_who_still_wait_for_it() {
    let rig = Rig::start().await;
    let key = rig.replica_key("m").await;
    rig.worker().hold_loads();
    let first = rig.spawn("/api/chat", hello("m"));
    rig.until(|rig| rig.worker().replica(&key).is_some()).await;
    let second = rig.spawn("/api/chat", hello("m"));
    rig.until_waiting(1).await;
    first.abort();
    // The second has become the head and drives the load.
    assert!(not_stuck(first).await.unwrap_err().is_cancelled());
    rig.worker().allow_loads(1);
    assert_eq!(not_stuck(second).await.unwrap().status, 200);
    assert_eq!(rig.worker().seen().load.len(), 1, "one load served both");
}

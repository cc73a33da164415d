//! Workers that die in the middle of an answer (contract C4).

use serde_json::{Value, json};

use crate::fake::{Fake, text};
use crate::rig::{Reading, Rig, hello, not_stuck, said};

fn long(count: u64) -> Value {
    let mut request = hello("m");
    request["options"]["num_predict"] = json!(count);
    request
}

/// The worker that runs the one sequence.
fn busy(rig: &Rig) -> usize {
    rig.workers.iter().position(|worker| worker.slots_used() > 0).unwrap()
}

/// Begins an answer and takes its first `count` tokens, of which no more can come from that worker.
async fn interrupted(rig: &Rig, request: Value, count: usize) -> (Reading, Vec<Value>, usize) {
    for worker in &rig.workers {
        worker.hold_tokens();
        worker.allow_tokens(count);
    }
    let mut reading = rig.open("/api/chat", request).await;
    let mut lines = Vec::new();
    for _ in 0..count {
        lines.push(reading.line().await);
    }
    (reading, lines, busy(rig))
}

#[tokio::test]
async fn the_client_of_a_worker_that_dies_sees_one_uninterrupted_answer() {
    let rig = Rig::with_slots(&[1, 1]).await;
    let (reading, mut lines, dying) = interrupted(&rig, long(8), 3).await;
    rig.workers[dying].kill();
    let heir = &rig.workers[1 - dying];
    heir.allow_tokens(99);
    lines.extend(reading.read().await.lines());
    assert_eq!(said(&lines), text(1, 8), "no token is lost or repeated");
    assert_eq!(lines.last().unwrap()["done"], true);
    assert!(lines.iter().all(|line| line["model"] == "m" && line.get("error").is_none()));
    let resume = heir.seen().generate[0].resume.clone().unwrap();
    assert_eq!((resume.emitted_ids.len(), resume.delivered as usize), (3, text(1, 3).len()));
}

#[tokio::test]
async fn a_drawn_seed_survives_the_worker_that_began_with_it() {
    let rig = Rig::with_slots(&[1, 1]).await;
    let request = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }] });
    let (reading, mut lines, dying) = interrupted(&rig, request, 2).await;
    rig.workers[dying].kill();
    rig.workers[1 - dying].allow_tokens(99);
    lines.extend(reading.read().await.lines());
    let seed = rig.workers[dying].seen().generate[0].options.clone().unwrap().seed;
    assert_eq!(said(&lines), text(seed, 5));
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_resumed_as_well() {
    let rig = Rig::with_slots(&[1, 1]).await;
    for worker in &rig.workers {
        worker.hold_tokens();
        worker.allow_tokens(2);
    }
    let mut request = long(6);
    request["stream"] = json!(false);
    let asking = rig.spawn("/api/chat", request);
    rig.until(|rig| rig.workers.iter().any(|worker| worker.slots_used() == 1)).await;
    let dying = busy(&rig);
    rig.workers[dying].kill();
    rig.workers[1 - dying].allow_tokens(99);
    let answer = not_stuck(asking).await.unwrap().json();
    assert_eq!(answer["message"]["content"], text(1, 6));
}

#[tokio::test]
async fn a_worker_that_dies_before_the_first_token_costs_nothing_but_time() {
    let rig = Rig::with_slots(&[1, 1]).await;
    for worker in &rig.workers {
        worker.hold_tokens();
    }
    let asking = rig.spawn("/api/chat", long(3));
    rig.until(|rig| rig.workers.iter().any(|worker| worker.slots_used() == 1)).await;
    let dying = busy(&rig);
    rig.workers[dying].kill();
    rig.workers[1 - dying].allow_tokens(99);
    assert_eq!(said(&not_stuck(asking).await.unwrap().lines()), text(1, 3));
    assert!(rig.workers[1 - dying].seen().generate[0].resume.is_none());
}

#[tokio::test]
async fn an_answer_survives_two_deaths() {
    let rig = Rig::with_slots(&[1, 1, 1]).await;
    let (mut reading, mut lines, first) = interrupted(&rig, long(9), 2).await;
    rig.workers[first].kill();
    // The heir has two tokens to give as well, and stops.
    lines.extend([reading.line().await, reading.line().await]);
    let second = (0..3).find(|index| *index != first && rig.workers[*index].slots_used() > 0).unwrap();
    rig.workers[second].kill();
    rig.workers[3 - first - second].allow_tokens(99);
    lines.extend(reading.read().await.lines());
    assert_eq!(said(&lines), text(1, 9));
}

#[tokio::test]
async fn when_nobody_can_take_over_the_client_gets_one_error_line() {
    let rig = Rig::with_slots(&[1]).await;
    let (reading, _, _) = interrupted(&rig, long(8), 3).await;
    tokio::time::pause();
    rig.worker().kill();
    let lines = reading.read().await.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0]["error"].as_str().unwrap().contains("no worker is available"), "{lines:?}");
}

#[tokio::test]
async fn a_worker_that_comes_back_resumes_its_own_answers() {
    let rig = Rig::with_slots(&[1]).await;
    let (reading, mut lines, _) = interrupted(&rig, long(8), 3).await;
    rig.worker().kill();
    rig.until(|rig| rig.handle.workers() == 0).await;
    rig.worker().allow_tokens(99);
    rig.worker().reconnect();
    lines.extend(reading.read().await.lines());
    assert_eq!(said(&lines), text(1, 8));
}

#[tokio::test]
async fn an_interrupted_answer_goes_before_those_who_wait() {
    let rig = Rig::with_slots(&[1, 1]).await;
    let key = rig.warm().await;
    let (reading, mut lines, dying) = interrupted(&rig, long(4), 2).await;
    let heir = &rig.workers[1 - dying];
    // The heir is full as well, and somebody waits already.
    heir.allow_tokens(2);
    let other = rig.spawn("/api/chat", long(60));
    rig.until(|rig| rig.workers[1 - dying].slots_used() == 1).await;
    let mut last = hello("m");
    last["options"]["seed"] = json!(77);
    let waiting = rig.spawn("/api/chat", last);
    rig.until_waiting(1).await;
    rig.workers[dying].kill();
    rig.until(|rig| rig.handle.workers() == 1).await;
    other.abort();
    heir.allow_tokens(99);
    lines.extend(reading.read().await.lines());
    assert_eq!(said(&lines), text(1, 4));
    assert_eq!(not_stuck(waiting).await.unwrap().status, 200);
    let order: Vec<bool> = heir.seen().generate.iter().skip(1).map(|one| one.resume.is_some()).collect();
    assert_eq!(order, [true, false], "{key}");
}

#[tokio::test]
async fn a_restarted_worker_with_the_same_name_is_a_new_one() {
    let rig = Rig::with_slots(&[1]).await;
    rig.warm().await;
    rig.worker().kill();
    let asking = rig.spawn("/api/chat", long(3));
    rig.until(|rig| rig.handle.workers() == 0).await;
    // Another process announces itself under another id at an address that the gateway does not know: unreachable,
    // so the request goes on waiting for the first one.
    let stranger = Fake::start(&rig.registry, "stranger", 1).await;
    rig.worker().reconnect();
    assert_eq!(said(&not_stuck(asking).await.unwrap().lines()), text(1, 3));
    assert!(stranger.seen().generate.is_empty());
}

//! Everything at once: many clients, several models, fewer places than models, clients that leave, workers that die
//! and come back. Whatever happens, an answer is complete or refused, and in the end nothing is held.

use std::time::Duration;

use api::ollama::QUEUE_FULL;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use registry::Limits;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use crate::fake::{Fake, text};
use crate::rig::{Reply, Rig, Setup, hello, not_stuck, said};

const SEED: u64 = 4;
const CLIENTS: u64 = 300;
const MAX_QUEUE: u32 = 200;
const MODELS: [&str; 4] = ["m", "a", "b", "c"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_leaves_no_answer_broken_and_nothing_held() {
    println!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let limits = Limits { max_loaded_models: 3, max_queue: MAX_QUEUE, num_parallel: 0 };
    let rig = Rig::with(Setup { slots: vec![2, 3, 1], limits, ..Setup::default() }).await;
    for model in &MODELS[1..] {
        rig.create(model, json!({})).await;
    }
    // Tokens come slowly, so that there is always an answer to interrupt.
    let taps: Vec<_> = rig.workers.iter().map(Fake::tap).collect();
    let mut feeding = JoinSet::new();
    feeding.spawn(async move {
        loop {
            taps.iter().for_each(|tap| tap(2));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut clients: Vec<(u64, JoinHandle<Reply>)> = Vec::new();
    let mut left = 0;
    for seed in 0..CLIENTS {
        let mut request = hello(MODELS[rng.random_range(0..MODELS.len())]);
        request["options"] = json!({ "seed": seed, "num_predict": rng.random_range(1..20u32) });
        let client = rig.spawn("/api/chat", request);
        match rng.random_range(0..20) {
            0 => {
                tokio::task::yield_now().await;
                client.abort();
                left += 1;
            }
            _ => clients.push((seed, client)),
        }
        assert!(rig.handle.waiting() <= MAX_QUEUE);
        match rng.random_range(0..100) {
            0 => rig.workers[rng.random_range(0..3)].kill(),
            1..10 => rig.workers.iter().for_each(|worker| worker.reconnect()),
            10..60 => tokio::task::yield_now().await,
            _ => {}
        }
    }
    let mut served = 0;
    for (index, (seed, client)) in clients.into_iter().enumerate() {
        match index % 40 {
            0 => rig.workers[rng.random_range(0..3)].kill(),
            10 => rig.workers.iter().for_each(|worker| worker.reconnect()),
            _ => {}
        }
        let reply = not_stuck(client).await.unwrap();
        if reply.status == 503 {
            assert_eq!(reply.refused(503), QUEUE_FULL);
            continue;
        }
        let lines = reply.lines();
        let last = lines.last().unwrap();
        assert_eq!(last["done"], true, "client {seed}: {lines:?}");
        assert_eq!(said(&lines), text(seed, last["eval_count"].as_u64().unwrap()), "client {seed}");
        served += 1;
    }
    println!("served {served}, left {left}");
    assert!(served > 0);
    rig.until_waiting(0).await;
    rig.until_idle().await;
}

//! A real etcd, two workers and two gateways: what a cluster promises when parts of it die.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tests::cluster::{Cluster, Plan, SMOLLM2, until};

fn plan(engine: &'static str) -> Plan {
    Plan { workers: 2, gateways: 2, engine, environment: Vec::new() }
}

/// Opens a streamed chat and yields its lines.
async fn stream(base: &str, model: &str, options: Value) -> impl futures::Stream<Item = Value> + use<> {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "Tell me a story."}], "options": options});
    let answer = tests::http().post(format!("{base}/api/chat")).json(&body).send().await.unwrap();
    let status = answer.status();
    assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap());
    let chunks = answer.bytes_stream().boxed();
    futures::stream::unfold((chunks, Vec::new()), |(mut chunks, mut pending): (_, Vec<u8>)| async move {
        loop {
            if let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let rest = pending.split_off(end + 1);
                return Some((serde_json::from_slice(&pending).unwrap(), (chunks, rest)));
            }
            pending.extend_from_slice(&chunks.next().await?.unwrap());
        }
    })
}

fn text(lines: &[Value]) -> String {
    lines.iter().filter_map(|line| line.pointer("/message/content")?.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_model_answers_through_every_gateway_and_survives_a_dead_worker() {
    let mut cluster = Cluster::start_on_etcd(&plan("candle")).await.unwrap();
    cluster.create("smollm2", SMOLLM2).await.unwrap();
    let options = json!({"temperature": 0, "num_predict": 16});
    let mut answers = Vec::new();
    for number in 0..2 {
        let lines: Vec<Value> =
            stream(&cluster.base(number).unwrap(), "smollm2", options.clone()).await.collect().await;
        assert_eq!(lines.last().unwrap()["done"], true);
        answers.push(text(&lines));
    }
    assert_eq!(answers[0], answers[1], "both gateways serve the same model");

    let serving = cluster.serving_worker(0, "smollm2:latest").await.unwrap();
    cluster.workers[serving].kill().unwrap();
    let answer =
        cluster.chat(1, "smollm2", "What is the capital of France? Answer in one sentence.").await.unwrap();
    assert!(answer["message"]["content"].as_str().unwrap().contains("Paris"), "{answer}");
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_mid_stream_costs_the_client_nothing() {
    let mut plan = plan("scripted");
    plan.environment.push(("CARAVAN_SCRIPTED_TOKENS_PER_SECOND", "50".to_owned()));
    let mut cluster = Cluster::start_on_etcd(&plan).await.unwrap();
    cluster.create("story", SMOLLM2).await.unwrap();
    let options = json!({"seed": 7, "num_predict": 60});
    let base = cluster.base(0).unwrap();
    let whole: Vec<Value> = stream(&base, "story", options.clone()).await.collect().await;
    let serving = cluster.serving_worker(0, "story:latest").await.unwrap();

    let mut lines = std::pin::pin!(stream(&base, "story", options).await);
    let mut seen = Vec::new();
    while seen.len() < 10 {
        seen.push(lines.next().await.expect("the stream goes on"));
    }
    cluster.workers[serving].kill().unwrap();
    while let Some(line) = lines.next().await {
        seen.push(line);
    }
    assert_eq!(text(&seen), text(&whole), "no token lost, none repeated");
    assert_eq!(seen.last().unwrap()["done"], true);
    assert_eq!(seen.last().unwrap()["eval_count"], whole.last().unwrap()["eval_count"]);
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn loaded_models_are_served_while_etcd_is_away_and_after_its_return() {
    let mut cluster = Cluster::start_on_etcd(&plan("scripted")).await.unwrap();
    cluster.create("story", SMOLLM2).await.unwrap();
    cluster.chat(0, "story", "hello").await.unwrap();
    cluster.chat(1, "story", "hello").await.unwrap();

    cluster.etcd.as_mut().unwrap().stop();
    for number in [0, 1] {
        cluster.chat(number, "story", "are you there").await.unwrap();
    }
    cluster.etcd.as_mut().unwrap().restart().await.unwrap();
    cluster.chat(0, "story", "and now").await.unwrap();

    // The cluster takes new work, too: a second model gets a permit from the etcd that came back.
    cluster.create("other", SMOLLM2).await.unwrap();
    cluster.chat(1, "other", "hello").await.unwrap();
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_creates_and_deletes_the_other_sees() {
    let cluster = Cluster::start_on_etcd(&plan("scripted")).await.unwrap();
    cluster.create("shared", SMOLLM2).await.unwrap();
    let tags = format!("{}/api/tags", cluster.base(1).unwrap());
    until(&tags, |_, body| body.contains("shared:latest")).await.unwrap();
    let url = format!("{}/api/delete", cluster.base(1).unwrap());
    let deleted = tests::http().delete(url).json(&json!({"model": "shared"})).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    until(&format!("{}/api/tags", cluster.base(0).unwrap()), |_, body| !body.contains("shared"))
        .await
        .unwrap();
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_finishes_its_streams() {
    let mut plan = plan("scripted");
    plan.workers = 1;
    plan.environment.push(("CARAVAN_SCRIPTED_TOKENS_PER_SECOND", "50".to_owned()));
    let mut cluster = Cluster::start_on_etcd(&plan).await.unwrap();
    let base = cluster.base(0).unwrap();
    let mut lines = std::pin::pin!(stream(&base, "story", json!({"num_predict": 40})).await);
    lines.next().await.expect("the stream began");
    let (ended, rest) = tokio::join!(cluster.workers[0].terminate(), lines.collect::<Vec<Value>>());
    assert!(ended.unwrap(), "the worker ended with success");
    assert_eq!(rest.last().unwrap()["done"], true);
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_503_with_ollamas_text() {
    let mut plan = plan("scripted");
    plan.workers = 1;
    let more = [
        ("CARAVAN_SCRIPTED_TOKENS_PER_SECOND", "20"),
        ("OLLAMA_NUM_PARALLEL", "1"),
        ("OLLAMA_MAX_QUEUE", "1"),
    ];
    plan.environment.extend(more.map(|(name, value)| (name, value.to_owned())));
    let cluster = Cluster::start_on_etcd(&plan).await.unwrap();
    cluster.create("story", SMOLLM2).await.unwrap();
    let base = cluster.base(0).unwrap();
    let mut running = std::pin::pin!(stream(&base, "story", json!({"num_predict": 2000})).await);
    running.next().await.expect("the slot is taken");
    let (http, url) = (tests::http(), format!("{base}/api/chat"));
    let body = json!({"model": "story", "stream": false, "messages": [{"role": "user", "content": "hi"}]});
    // One of the two waits for the slot until its client gives up; the queue has no room for the other.
    let ask = || http.post(&url).json(&body).timeout(Duration::from_secs(20)).send();
    let (first, second) = (std::pin::pin!(ask()), std::pin::pin!(ask()));
    let refused = match futures::future::select(first, second).await {
        futures::future::Either::Left((answer, _)) | futures::future::Either::Right((answer, _)) => {
            answer.unwrap()
        }
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let text = refused.text().await.unwrap();
    assert_eq!(text, r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#);
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_shrinks_unloads_what_is_idle() {
    let mut cluster = Cluster::start_on_etcd(&plan("scripted")).await.unwrap();
    for model in ["one", "two", "three"] {
        cluster.chat(0, model, "hello").await.unwrap();
    }
    let ps = format!("{}/api/ps", cluster.base(0).unwrap());
    let loaded =
        |body: &str| serde_json::from_str::<Value>(body).unwrap()["models"].as_array().unwrap().len();
    until(&ps, |_, body| loaded(body) == 3).await.unwrap();
    let number = cluster.add_gateway(&[("OLLAMA_MAX_LOADED_MODELS", "1".to_owned())]).await.unwrap();
    until(&ps, |_, body| loaded(body) == 1).await.unwrap();
    // The next model takes the one place that is left.
    cluster.chat(number, "four", "hello").await.unwrap();
    until(&ps, |_, body| loaded(body) == 1 && body.contains("four:latest")).await.unwrap();
    cluster.check_logs(&[]).unwrap();
}

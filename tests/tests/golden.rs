//! What real clients have been seen to trip over, where showing it takes processes that are slow, full or dead. The
//! numbers are those of the chapter "Clients" in docs/compatibility.md; the other golden tests are scenarios.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Plan, SMOLLM2, until};

fn plan(workers: usize, environment: &[(&'static str, &str)]) -> Plan {
    let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Plan { workers, gateways: 1, engine: "scripted", environment }
}

async fn serve(environment: &[(&'static str, &str)]) -> Cluster {
    let mut all = plan(0, environment).environment;
    all.push(("CARAVAN_ENGINE", "scripted".to_owned()));
    Cluster::serve(&all).await.unwrap()
}

fn chat(model: &str, options: Value) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Tell me a story."}], "options": options})
}

fn models(body: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(body).unwrap()["models"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_1_models_are_listed_at_once_while_a_worker_is_dead() {
    let mut cluster = Cluster::start_on_etcd(&plan(2, &[])).await.unwrap();
    cluster.create("m", SMOLLM2).await.unwrap();
    cluster.chat(0, "m", "hello").await.unwrap();
    for worker in &mut cluster.workers {
        worker.kill().unwrap();
    }
    let base = cluster.base(0).unwrap();
    for path in ["/api/tags", "/api/ps", "/api/version", "/"] {
        // What MaxKB waits before it says that the address is wrong.
        let request = tests::http().get(format!("{base}{path}")).timeout(Duration::from_secs(5));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let body = answer.text().await.unwrap();
        assert!(path != "/api/tags" || body.contains("\"m:latest\""), "{body}");
    }
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_6_a_cold_load_sends_no_line_before_the_answer() {
    let cluster = serve(&[("CARAVAN_SCRIPTED_LOAD_MS", "3000")]).await;
    let url = format!("{}/api/chat", cluster.base(0).unwrap());
    let began = Instant::now();
    let answer = tests::http().post(&url).json(&chat("m", json!({"num_predict": 3}))).send().await.unwrap();
    let waited: u64 = answer.headers()["x-caravan-load-ms"].to_str().unwrap().parse().unwrap();
    let body = answer.text().await.unwrap();
    assert!(waited >= 3000 && began.elapsed() >= Duration::from_secs(3), "{waited} ms");
    let lines: Vec<&str> = body.split_inclusive('\n').collect();
    assert!(lines.len() >= 3, "{body}");
    for line in lines {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert!(line.ends_with("}\n") && value["model"] == "m", "{line:?}");
    }
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_load_is_given_up_when_its_last_client_leaves() {
    let cluster = serve(&[("CARAVAN_SCRIPTED_LOAD_MS", "2000")]).await;
    let (http, base) = (tests::http(), cluster.base(0).unwrap());
    let ask = |model| http.post(format!("{base}/api/chat")).json(&chat(model, json!({"num_predict": 1})));
    assert!(ask("left").timeout(Duration::from_millis(500)).send().await.unwrap_err().is_timeout());
    // When this load is over, the other one would be over, too.
    assert_eq!(ask("stayed").send().await.unwrap().status(), 200);
    let listed = http.get(format!("{base}/api/ps")).send().await.unwrap().text().await.unwrap();
    let names: Vec<Value> = models(&listed).iter().map(|model| model["name"].clone()).collect();
    assert_eq!(names, ["stayed:latest"]);
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_8_the_death_of_the_last_worker_is_one_line_with_an_error() {
    let environment = [("CARAVAN_SCRIPTED_TOKENS_PER_SECOND", "20"), ("OLLAMA_LOAD_TIMEOUT", "5s")];
    let mut cluster = Cluster::start_on_etcd(&plan(1, &environment)).await.unwrap();
    let url = format!("{}/api/chat", cluster.base(0).unwrap());
    let request = tests::http().post(&url).json(&chat("m", json!({"num_predict": 2000})));
    let answer = request.timeout(Duration::from_secs(60)).send().await.unwrap();
    let mut chunks = answer.bytes_stream();
    let mut body = chunks.next().await.unwrap().unwrap().to_vec();
    cluster.workers[0].kill().unwrap();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.expect("the stream is closed cleanly"));
    }
    let text = String::from_utf8(body).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, rest) = lines.split_last().unwrap();
    assert!(last["error"].is_string() && last.as_object().unwrap().len() == 1, "{last}");
    assert!(rest.iter().all(|line| line["done"] == false), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_14_an_unload_empties_every_replica() {
    let environment = [("CARAVAN_SCRIPTED_TOKENS_PER_SECOND", "20"), ("OLLAMA_NUM_PARALLEL", "1")];
    let cluster = Cluster::start_on_etcd(&plan(2, &environment)).await.unwrap();
    cluster.create("m", SMOLLM2).await.unwrap();
    let base = cluster.base(0).unwrap();
    let (http, url) = (tests::http(), format!("{base}/api/chat"));
    let body = chat("m", json!({"num_predict": 2000}));
    // Two endless answers, one slot on each worker: they run side by side only on two replicas.
    let ask = || async { http.post(&url).json(&body).send().await.unwrap() };
    let (first, second) = tokio::join!(ask(), ask());
    let worker =
        |answer: &reqwest::Response| answer.headers()["x-caravan-worker"].to_str().unwrap().to_owned();
    assert_ne!(worker(&first), worker(&second), "both workers have a replica");
    drop((first, second));
    let unload = json!({"model": "m", "keep_alive": 0, "prompt": ""});
    let answer = http.post(format!("{base}/api/generate")).json(&unload).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["done_reason"], "unload");
    until(&format!("{base}/api/ps"), |_, body| models(body).is_empty()).await.unwrap();
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_16_a_burst_of_two_hundred_embeddings_is_answered() {
    let cluster = serve(&[]).await;
    let (http, url) = (tests::http(), format!("{}/api/embeddings", cluster.base(0).unwrap()));
    let ask = async |number: usize| {
        let body = json!({"model": "m", "prompt": format!("text {number}")});
        let answer = http.post(&url).json(&body).timeout(Duration::from_secs(60)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{number}");
        let answer: Value = answer.json().await.unwrap();
        answer["embedding"].clone()
    };
    let vectors = join_all((0..200).map(ask)).await;
    assert!(vectors.iter().all(|vector| vector.as_array().unwrap().len() == 64));
    // Everybody has the vector of his own text.
    assert_eq!(vectors[117], ask(117).await);
    assert_ne!(vectors[0], vectors[1]);
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_17_a_client_that_leaves_in_prefill_frees_its_slot() {
    // The first token of this engine comes after a second, an answer takes half an hour.
    let environment = [("CARAVAN_SCRIPTED_TOKENS_PER_SECOND", "1"), ("OLLAMA_NUM_PARALLEL", "1")];
    let cluster = serve(&environment).await;
    let (http, url) = (tests::http(), format!("{}/api/chat", cluster.base(0).unwrap()));
    let load = json!({"model": "m", "messages": []});
    assert_eq!(http.post(&url).json(&load).send().await.unwrap().status(), 200);
    for stream in [true, false] {
        let mut body = chat("m", json!({"num_predict": 2000}));
        body["stream"] = stream.into();
        let request = http.post(&url).json(&body).timeout(Duration::from_millis(300));
        assert!(request.send().await.unwrap_err().is_timeout(), "no token is there yet");
        let next = http.post(&url).json(&chat("m", json!({"num_predict": 1})));
        let answer = next.timeout(Duration::from_secs(20)).send().await.expect("the slot is free again");
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap().contains("\"done\":true"));
    }
    cluster.check_logs(&[]).unwrap();
}

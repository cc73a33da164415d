//! A real etcd, two gateways and a worker whose models are in a bucket of a real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use store::testing::S3Server;
use tests::{
    cluster::{Cluster, Plan, RERANKER, SMOLLM2, digest, models},
    docker_registry::DockerRegistry,
    process::binary,
};

fn environment(server: &S3Server, prefix: &str) -> Vec<(&'static str, String)> {
    let store = format!("s3://{}/{prefix}", S3Server::BUCKET);
    let mut environment = server.environment().to_vec();
    environment.push(("CARAVAN_STORE", store));
    environment
}

async fn post(base: &str, path: &str, body: Value) -> String {
    let answer = tests::http().post(format!("{base}{path}")).json(&body).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{path}: {status}: {text}");
    text
}

/// What a gateway lists: its very next answer knows what another one has told to be done.
async fn tags(base: &str) -> String {
    tests::http().get(format!("{base}/api/tags")).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_makes_the_other_serves_and_removes() {
    let server = S3Server::start().await.unwrap();
    let plan =
        Plan { workers: 1, gateways: 2, engine: "candle", environment: environment(&server, "team/models") };
    let cluster = Cluster::start_on_etcd(&plan).await.unwrap();
    let (one, two) = (cluster.base(0).unwrap(), cluster.base(1).unwrap());
    cluster.create("m", SMOLLM2).await.unwrap();
    let keys = server.keys("team/models/").await.unwrap();
    assert!(
        keys.contains(&"team/models/manifests/registry.ollama.ai/library/m/latest".to_owned()),
        "{keys:?}"
    );
    assert!(tags(&two).await.contains("\"m:latest\""));
    let answer =
        cluster.chat(1, "m", "What is the capital of France? Answer in one sentence.").await.unwrap();
    assert!(answer["message"]["content"].as_str().unwrap().contains("Paris"), "{answer}");

    // The worker converts what is in the bucket, and puts what it has made there.
    cluster.create("ranks", RERANKER).await.unwrap();
    post(&one, "/api/create", json!({"model": "half", "from": "ranks", "quantize": "f16"})).await;
    let shown: Value =
        serde_json::from_str(&post(&two, "/api/show", json!({"model": "half"})).await).unwrap();
    assert_eq!(shown["details"]["quantization_level"], "F16");
    let from = shown["modelfile"].as_str().unwrap().lines().find(|line| line.starts_with("FROM ")).unwrap();
    let key = from.strip_prefix("FROM s3://models/").unwrap();
    assert!(!server.get(key).await.unwrap().is_empty());

    post(&two, "/api/copy", json!({"source": "m", "destination": "copy"})).await;
    assert!(tags(&one).await.contains("\"copy:latest\""));
    let deleted = tests::http().delete(format!("{one}/api/delete")).json(&json!({"model": "m"}));
    assert_eq!(deleted.send().await.unwrap().status(), 200);
    let left = tags(&two).await;
    assert!(left.contains("\"copy:latest\"") && !left.contains("\"m:latest\""), "{left}");
    let answer = cluster.chat(0, "copy", "hello").await.unwrap();
    assert!(answer["eval_count"].as_u64().unwrap() > 0, "{answer}");
    cluster.check_logs(&[]).unwrap();
}

/// How much of its blob the worker says that it has.
fn completed(state: &Path) -> u64 {
    let text = std::fs::read_to_string(state).unwrap_or_default();
    let state: Value = serde_json::from_str(&text).unwrap_or_default();
    state["Completed"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_it_fills_its_cache_goes_on_where_it_stopped() {
    let server = S3Server::start().await.unwrap();
    let environment = environment(&server, "models");
    let plan = Plan { workers: 1, gateways: 1, engine: "candle", environment: environment.clone() };
    let mut cluster = Cluster::start_on_etcd(&plan).await.unwrap();
    cluster.create("m", SMOLLM2).await.unwrap();
    let weights = models().unwrap().join(SMOLLM2);
    let name = digest(&weights).unwrap().replace(':', "-");
    let state = cluster.cache("worker-0").join(format!("blobs/{name}-partial-0"));

    let (base, body) = (cluster.base(0).unwrap(), json!({"model": "m", "prompt": "hi", "stream": false}));
    let asking = tests::http().post(format!("{base}/api/generate")).json(&body);
    let asked = tokio::spawn(async move { drop(asking.send().await) });
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    while completed(&state) == 0 {
        tick.tick().await;
    }
    server.signal("STOP");
    cluster.workers[0].kill().unwrap();
    server.signal("CONT");
    asked.abort();
    let had = completed(&state);
    let mut bytes = std::fs::read(&weights).unwrap();
    assert!(had > 3 << 20 && had < bytes.len() as u64, "{had} of {} bytes", bytes.len());

    // Behind the header what the worker has already is damaged: who asks for it again cannot end with the right digest.
    bytes[3 << 20..had as usize].fill(0);
    server.put(&format!("models/blobs/{name}"), bytes).await.unwrap();
    cluster.restart_worker(0, &environment).await.unwrap();
    let answer =
        cluster.chat(0, "m", "What is the capital of France? Answer in one sentence.").await.unwrap();
    assert!(answer["message"]["content"].as_str().unwrap().contains("Paris"), "{answer}");
    let blob = cluster.cache("worker-0").join("blobs").join(&name);
    assert_eq!(digest(&blob).unwrap().replace(':', "-"), name);
    assert!(!state.exists());
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_pulls_into_a_bucket_and_pushes_from_it() {
    let (server, registry) = (S3Server::start().await.unwrap(), DockerRegistry::start().unwrap());
    let cluster = Cluster::serve(&environment(&server, "serve")).await.unwrap();
    let base = cluster.base(0).unwrap();
    let weights = models().unwrap().join(SMOLLM2);
    registry.publish("library/m", &weights).await.unwrap();
    let name = format!("{}/library/m", registry.address());
    let told = post(&base, "/api/pull", json!({"model": name, "insecure": true})).await;
    assert!(
        told.contains("\"status\":\"storing ") && told.trim_end().ends_with("{\"status\":\"success\"}"),
        "{told}"
    );
    let stored = server.get(&format!("serve/blobs/{}", digest(&weights).unwrap().replace(':', "-"))).await;
    assert!(stored.unwrap() == std::fs::read(&weights).unwrap());

    let copy = format!("{}/library/copy", registry.address());
    post(&base, "/api/copy", json!({"source": name, "destination": copy})).await;
    let told = post(&base, "/api/push", json!({"model": copy, "insecure": true, "stream": false})).await;
    assert_eq!(told, "{\"status\":\"success\"}");
    assert!(registry.get("library/copy/manifests/latest").await.is_ok());
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_is_told_by_its_key_and_no_secret_is() {
    let server = S3Server::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(binary().unwrap());
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).env_clear();
        command.envs(server.environment()).env("HOME", folder.path());
        command.env("CARAVAN_STORE", "s3://no-such-bucket").output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains("open the store s3://no-such-bucket (`CARAVAN_STORE`, environment)"), "{text}");
    assert!(text.contains("there is no such bucket, make it or name another"), "{text}");
    assert!(!text.contains("test-secret"), "{text}");
}

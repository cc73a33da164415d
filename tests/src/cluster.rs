//! A whole installation on this machine: a single `serve`, or etcd with gateways and workers, in a folder of its own.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use registry::testing::EtcdServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;

/// A small reranker that lies in the repository; see `make_reranker.py` beside it.
pub const RERANKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/reranker.gguf");
/// The three real models, fetched by `make models`.
pub const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
pub const GEMMA3: &str = "gemma-3-270m-q4_k_m.gguf";
pub const MINILM: &str = "all-MiniLM-L6-v2.f32.gguf";

/// How long a state of the cluster may take to be seen by all on two busy cores.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The folder of the real models: `CARAVAN_TEST_MODELS`, or `target/models` of the workspace.
pub fn models() -> Result<PathBuf> {
    let folder = match std::env::var_os("CARAVAN_TEST_MODELS") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/models"),
    };
    for file in [SMOLLM2, GEMMA3, MINILM] {
        ensure!(
            folder.join(file).exists(),
            "{file} is not in {}; fetch it with: make models",
            folder.display()
        );
    }
    Ok(folder.canonicalize()?)
}

/// Processes that share one models folder.
pub struct Cluster {
    pub etcd: Option<EtcdServer>,
    pub workers: Vec<Process>,
    pub gateways: Vec<Process>,
    /// Kept until the end, and gone with it.
    folder: TempDir,
}

/// What to start.
pub struct Plan {
    pub workers: usize,
    pub gateways: usize,
    /// `candle` or `scripted`.
    pub engine: &'static str,
    /// More of the environment of every process.
    pub environment: Vec<(&'static str, String)>,
}

impl Cluster {
    /// One `caravan serve` on a free port.
    pub async fn serve(environment: &[(&str, String)]) -> Result<Cluster> {
        let folder = TempDir::new()?;
        let mut cluster = Cluster { etcd: None, workers: Vec::new(), gateways: Vec::new(), folder };
        let process = cluster.start("serve", "serve", environment).await?;
        cluster.gateways.push(process);
        Ok(cluster)
    }

    /// A real etcd, and the planned workers and gateways.
    pub async fn start_on_etcd(plan: &Plan) -> Result<Cluster> {
        let etcd = EtcdServer::start().await?;
        let endpoint = etcd.endpoint();
        let folder = TempDir::new()?;
        let mut cluster = Cluster { etcd: Some(etcd), workers: Vec::new(), gateways: Vec::new(), folder };
        let mut environment = plan.environment.clone();
        environment.push(("CARAVAN_ETCD", endpoint));
        environment.push(("CARAVAN_ENGINE", plan.engine.to_owned()));
        for number in 0..plan.workers {
            let process = cluster.start("worker", &format!("worker-{number}"), &environment).await?;
            cluster.workers.push(process);
        }
        for number in 0..plan.gateways {
            let process = cluster.start("gateway", &format!("gateway-{number}"), &environment).await?;
            cluster.gateways.push(process);
        }
        for number in 0..plan.gateways {
            cluster.wait_until_ready(number).await?;
        }
        Ok(cluster)
    }

    /// One more gateway, with an environment of its own: the newest start writes the limits.
    pub async fn add_gateway(&mut self, environment: &[(&'static str, String)]) -> Result<usize> {
        let number = self.gateways.len();
        let mut all = environment.to_vec();
        all.push(("CARAVAN_ETCD", self.etcd.as_ref().context("the cluster is on etcd")?.endpoint()));
        let process = self.start("gateway", &format!("gateway-{number}"), &all).await?;
        self.gateways.push(process);
        self.wait_until_ready(number).await?;
        Ok(number)
    }

    /// One more worker.
    pub async fn add_worker(&mut self, environment: &[(&'static str, String)]) -> Result<usize> {
        let number = self.workers.len();
        let mut all = environment.to_vec();
        all.push(("CARAVAN_ETCD", self.etcd.as_ref().context("the cluster is on etcd")?.endpoint()));
        let process = self.start("worker", &format!("worker-{number}"), &all).await?;
        self.workers.push(process);
        Ok(number)
    }

    /// `serve` again in place of one that was killed, on the same folder.
    pub async fn restart_serve(&mut self, environment: &[(&str, String)]) -> Result<()> {
        self.gateways[0] = self.start("serve", "serve", environment).await?;
        Ok(())
    }

    /// A worker again in place of one that was killed, with what it has in its cache.
    pub async fn restart_worker(
        &mut self,
        number: usize,
        environment: &[(&'static str, String)],
    ) -> Result<()> {
        let mut all = environment.to_vec();
        all.push(("CARAVAN_ETCD", self.etcd.as_ref().context("the cluster is on etcd")?.endpoint()));
        self.workers[number] = self.start("worker", &format!("worker-{number}"), &all).await?;
        Ok(())
    }

    /// Where a process keeps the blobs of a bucket.
    pub fn cache(&self, id: &str) -> PathBuf {
        self.folder.path().join("caches").join(id)
    }

    async fn start(&self, role: &str, id: &str, environment: &[(&str, String)]) -> Result<Process> {
        let folder = self.folder.path().to_str().context("the folder has a plain name")?;
        let cache = self.cache(id);
        let mut all = vec![
            ("HOME", folder),
            ("OLLAMA_MODELS", folder),
            ("CARAVAN_CACHE", cache.to_str().context("the cache has a plain name")?),
            ("CARAVAN_ID", id),
            ("CARAVAN_ADMIN_LISTEN", "127.0.0.1:0"),
            ("CARAVAN_WORKER_LISTEN", "127.0.0.1:0"),
            ("OLLAMA_HOST", "127.0.0.1:0"),
        ];
        all.extend(environment.iter().map(|(name, value)| (*name, value.as_str())));
        // Flags, because port 0 is out of the range of OLLAMA_HOST.
        let arguments: &[&str] = &[role, "--listen", "127.0.0.1:0"];
        Process::start(id, arguments, &all).await
    }

    /// The URL of a gateway.
    pub fn base(&self, number: usize) -> Result<String> {
        Ok(format!("http://{}", self.gateways[number].told("listen")?))
    }

    /// The models folder.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Waits until the gateway's /readyz says yes: it sees a worker.
    pub async fn wait_until_ready(&self, number: usize) -> Result<()> {
        let admin = self.gateways[number].told("admin")?;
        until(&format!("http://{admin}/readyz"), |status, _| status == 200).await
    }

    /// Makes a model through the first gateway.
    pub async fn create(&self, name: &str, file: &str) -> Result<()> {
        create(&self.base(0)?, name, file).await
    }

    /// One greedy answer of at most 16 tokens through a gateway.
    pub async fn chat(&self, number: usize, model: &str, prompt: &str) -> Result<Value> {
        let body = json!({
            "model": model, "stream": false, "messages": [{"role": "user", "content": prompt}],
            "options": {"temperature": 0, "num_predict": 16},
        });
        let answer =
            crate::http().post(format!("{}/api/chat", self.base(number)?)).json(&body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Which worker serves a model now: the one that the answer's header names.
    pub async fn serving_worker(&self, number: usize, model: &str) -> Result<usize> {
        let body = json!({"model": model, "stream": false, "prompt": "hi", "options": {"num_predict": 1}});
        let url = format!("{}/api/generate", self.base(number)?);
        let answer = crate::http().post(url).json(&body).send().await?;
        let header = answer.headers().get("x-caravan-worker").context("the answer names no worker")?;
        let id = header.to_str()?.strip_prefix("worker-").context("the workers are numbered")?;
        Ok(id.parse()?)
    }

    /// No process may have logged an ERROR that is not expected.
    pub fn check_logs(&self, expected: &[&str]) -> Result<()> {
        self.workers.iter().chain(&self.gateways).try_for_each(|process| process.check_log(expected))
    }
}

/// Makes a model named `name` from a file of the real models, over the API as any client would.
pub async fn create(base: &str, name: &str, file: &str) -> Result<()> {
    let http = crate::http();
    let path = models()?.join(file);
    let digest = digest(&path)?;
    let bytes = tokio::fs::read(path).await?;
    let answer = http.post(format!("{base}/api/blobs/{digest}")).body(bytes).send().await?;
    ensure!(answer.status().is_success(), "upload: {}", answer.text().await?);
    // Of a path only the name: a file of a model lies in no folder.
    let file = file.rsplit('/').next().unwrap_or(file);
    let body = json!({"model": name, "files": {file: digest}, "stream": false});
    let answer = http.post(format!("{base}/api/create")).json(&body).send().await?;
    ensure!(answer.status().is_success(), "create: {}", answer.text().await?);
    Ok(())
}

/// Asks `url` again and again, each time waiting for the answer, until it is `right`.
pub async fn until(url: &str, right: impl Fn(u16, &str) -> bool) -> Result<()> {
    let http = crate::http();
    let started = tokio::time::Instant::now();
    let mut last = String::new();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while started.elapsed() < MAX_WAIT {
        tick.tick().await;
        let Ok(answer) = http.get(url).send().await else { continue };
        let status = answer.status().as_u16();
        last = answer.text().await.unwrap_or_default();
        if right(status, &last) {
            return Ok(());
        }
    }
    bail!("{url} did not come to the wished state within {MAX_WAIT:?}: {last}")
}

/// `sha256:<hex>` of a file, from the system's own tool: the test shall not trust our code for it.
pub fn digest(path: &std::path::Path) -> Result<String> {
    let output = std::process::Command::new("sha256sum").arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(format!("sha256:{}", text.split_whitespace().next().context("sha256sum printed nothing")?))
}

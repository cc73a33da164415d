//! A real registry, Debian's `docker-registry`, on a free port with its data in a temporary folder.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::digest;

const MODEL: &str = "application/vnd.ollama.image.model";
const SYSTEM: &str = "application/vnd.ollama.image.system";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Killed when dropped.
pub struct DockerRegistry {
    child: Child,
    address: String,
    log: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

impl DockerRegistry {
    pub fn start() -> Result<DockerRegistry> {
        let folder = TempDir::new()?;
        let config = folder.path().join("config.yml");
        let data = folder.path().join("data");
        // JSON is YAML.
        let text = json!({
            "version": 0.1, "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": data}}, "http": {"addr": "127.0.0.1:0"},
        });
        std::fs::write(&config, text.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child =
            command.spawn().context("start docker-registry; find or install it with: make tools")?;
        let mut lines = BufReader::new(child.stderr.take().context("the log was piped")?).lines();
        let address = loop {
            let line = lines.next().context("docker-registry ended before it listened")??;
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.split(['"', ' ']).next().unwrap_or_default().to_owned();
            }
        };
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        // Ends with the process: its end closes the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().expect("no reader panics").push(line);
            }
        });
        Ok(DockerRegistry { child, address, log, _folder: folder })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A model with `file` as its weights and a system message, put there without any code of ours. Answers the bytes
    /// of its manifest.
    pub async fn publish(&self, repository: &str, file: &Path) -> Result<String> {
        let weights = tokio::fs::read(file).await?;
        let config = json!({"model_format": "gguf", "model_family": "llama", "os": "linux"}).to_string();
        let layer = |kind: &str, digest: String, size: usize| json!({"mediaType": kind, "digest": digest, "size": size});
        let weights_layer = layer(MODEL, digest(file)?, weights.len());
        self.put_blob(repository, &weights_layer, weights).await?;
        let folder = TempDir::new()?;
        let mut small = Vec::new();
        for (kind, text) in
            [(SYSTEM, "Be brief."), ("application/vnd.docker.container.image.v1+json", config.as_str())]
        {
            let path = folder.path().join("blob");
            std::fs::write(&path, text)?;
            let layer = layer(kind, digest(&path)?, text.len());
            self.put_blob(repository, &layer, text.as_bytes().to_vec()).await?;
            small.push(layer);
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": small[1], "layers": [weights_layer, small[0]],
        });
        let text = serde_json::to_string_pretty(&manifest)? + "\n";
        let url = format!("{}/v2/{repository}/manifests/latest", self.url());
        let answer =
            crate::http().put(url).header("content-type", MANIFEST).body(text.clone()).send().await?;
        ensure!(answer.status().is_success(), "manifest: {}", answer.text().await?);
        Ok(text)
    }

    async fn put_blob(&self, repository: &str, layer: &Value, bytes: Vec<u8>) -> Result<()> {
        let http = crate::http();
        let begun = http.post(format!("{}/v2/{repository}/blobs/uploads/", self.url())).send().await?;
        let location = begun.headers().get("location").context("an upload has a location")?.to_str()?;
        let digest = layer["digest"].as_str().context("a layer has a digest")?;
        let url = format!("{location}&digest={digest}");
        let answer = http.put(url).body(bytes).send().await?;
        ensure!(answer.status().is_success(), "blob: {}", answer.text().await?);
        Ok(())
    }

    /// Bytes as the registry has them.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let answer = crate::http().get(format!("{}/v2/{path}", self.url())).header("accept", MANIFEST);
        let answer = answer.send().await?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        Ok(answer.bytes().await?.to_vec())
    }

    /// How often the registry answered a request whose log line has all of `texts`.
    pub fn answered(&self, texts: &[&str]) -> usize {
        let log = self.log.lock().expect("no writer panics");
        let lines = log.iter().filter(|line| line.contains("response completed"));
        lines.filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }

    /// SIGSTOP or SIGCONT: a registry that hangs, and one that has come back.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "could not signal the registry");
        Ok(())
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

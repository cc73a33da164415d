//! A store in a temporary folder, and what pulls into it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::ollama::Progress;
use store::transfer::{Config, Tell, Transfer, Tuning, Wish};
use store::{Digest, Layer, LayerKind, Manifest, Name, Result, Store};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::server::Server;

/// No test waits this long for anything; one that would is stuck.
const STUCK: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Rig {
    folder: Arc<TempDir>,
    pub store: Store,
    pub transfer: Transfer,
}

/// The lines of a pull, and how it ended.
pub struct Pull {
    pub lines: Vec<Progress>,
    pub outcome: Result<()>,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Rig {
        Rig::on(Arc::new(tempfile::tempdir().unwrap()), change)
    }

    /// Another process on the same folder.
    pub fn twin(&self) -> Rig {
        Rig::on(Arc::clone(&self.folder), |_| {})
    }

    fn on(folder: Arc<TempDir>, change: impl FnOnce(&mut Config)) -> Rig {
        let store = Store::open(folder.path().join("models")).unwrap();
        let mut config = Config { tuning: tuning(), ..Config::new(folder.path().join("id_ed25519")) };
        change(&mut config);
        let transfer = Transfer::new(&store, config);
        Rig { folder, store, transfer }
    }

    /// The models folder.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("id_ed25519")
    }

    /// Pulls as a gateway does.
    pub async fn pull(&self, name: &str) -> Pull {
        let (tell, mut told) = teller();
        let wish = Wish::parse(name, true).unwrap();
        let work = async {
            let pulled = self.transfer.fetch(&wish, &tell).await?;
            self.transfer.settle(pulled, &tell).await
        };
        let outcome = tokio::time::timeout(STUCK, work).await.expect("the pull is stuck");
        drop(tell);
        let mut lines = Vec::new();
        while let Some(line) = told.recv().await {
            lines.push(line);
        }
        Pull { lines, outcome }
    }

    /// A model that is here already, under the name that `server` has for it.
    pub async fn stock(&self, server: &Server, weights: &[u8]) -> Digest {
        let (digest, _) = publish(server, weights);
        self.pull(&server.name("m")).await.outcome.unwrap();
        digest
    }

    pub async fn push(&self, name: &str) -> Pull {
        let (tell, mut told) = teller();
        let wish = Wish::parse(name, true).unwrap();
        let work = self.transfer.push(&wish, &tell);
        let outcome = tokio::time::timeout(STUCK, work).await.expect("the push is stuck");
        drop(tell);
        let mut lines = Vec::new();
        while let Some(line) = told.recv().await {
            lines.push(line);
        }
        Pull { lines, outcome }
    }

    /// That a pull fails, and with which text.
    pub async fn refused(&self, name: &str) -> String {
        let error = api::Error::from(self.pull(name).await.outcome.unwrap_err());
        assert_eq!(error.code.http_status(), 500, "{error}");
        error.message
    }

    /// Every file of the models folder.
    pub fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let relative = path.strip_prefix(self.root()).unwrap();
                    found.insert(relative.to_str().unwrap().to_owned());
                }
            }
        }
        found
    }

    pub fn bytes(&self, digest: &Digest) -> Vec<u8> {
        std::fs::read(self.store.blob_path(digest)).unwrap()
    }

    pub async fn get(&self, server: &Server, model: &str) -> Arc<store::Model> {
        let name = Name::parse(&server.name(model)).unwrap();
        self.store.get(&name).await.unwrap()
    }
}

impl Pull {
    pub fn statuses(&self) -> Vec<String> {
        let mut statuses: Vec<String> = self.lines.iter().map(|line| line.status.clone()).collect();
        statuses.dedup();
        statuses
    }
}

/// Small parts, short pauses, Ollama's counts.
fn tuning() -> Tuning {
    Tuning {
        min_part_bytes: 1000,
        max_part_bytes: 10_000,
        pause: Duration::from_millis(1),
        stall: Duration::from_millis(300),
        answer: Duration::from_millis(300),
        commit: Duration::from_millis(300),
        tick: Duration::from_millis(5),
        ..Tuning::default()
    }
}

/// Both ends of a channel for progress.
pub fn teller() -> (Tell, mpsc::Receiver<Progress>) {
    let (lines, told) = mpsc::channel(1024);
    (Tell::new(lines), told)
}

/// Bytes that no other seed gives.
pub fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

/// A model named `m` in the registry: weights, a system message, a config. Answers its weights and manifest.
pub fn publish(server: &Server, weights: &[u8]) -> (Digest, Vec<u8>) {
    let config = br#"{"model_format":"gguf","model_family":"llama"}"#;
    let (digest, system, config_digest) =
        (server.blob(weights), server.blob(b"Be brief."), server.blob(config));
    let layers = vec![
        Layer::new(LayerKind::Model, digest.clone(), weights.len() as u64),
        Layer::new(LayerKind::System, system, 9),
    ];
    let manifest = Manifest::new(Layer::config(config_digest, config.len() as u64), layers);
    (digest, announce(server, &manifest))
}

/// Puts a manifest there as no program of ours would write it: byte for byte is what counts.
pub fn announce(server: &Server, manifest: &Manifest) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(manifest).unwrap();
    bytes.extend_from_slice(b"\n\n");
    server.put("/v2/library/m/manifests/latest", &bytes);
    bytes
}

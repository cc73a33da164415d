//! A store somewhere, as often opened as a test wants: each opening is another process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::ollama::{CreateRequest, Progress};
use gguf::{TensorType, Writer};
use serde_json::{Value, json};
use store::testing::S3Server;
use store::transfer::Tuning;
use store::{Access, CreateSpec, Digest, Location, Model, Name, Result, Store, StoreConfig};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// One for all tests of this process: it takes some seconds to start.
static SERVER: OnceCell<S3Server> = OnceCell::const_new();

pub struct Place {
    /// The store, or the caches of its processes.
    folder: TempDir,
    /// The prefix of a bucket, and how to come in.
    bucket: Option<(String, Access)>,
}

pub async fn server() -> &'static S3Server {
    SERVER.get_or_init(async || S3Server::start().await.unwrap()).await
}

impl Place {
    pub fn folder() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), bucket: None }
    }

    pub async fn bucket(prefix: &str) -> Place {
        Place::on(server().await, prefix)
    }

    pub fn on(server: &S3Server, prefix: &str) -> Place {
        Place { folder: tempfile::tempdir().unwrap(), bucket: Some((prefix.to_owned(), server.access())) }
    }

    /// Nothing is spared for its youth, and nothing takes long.
    pub fn config(&self, process: &str) -> StoreConfig {
        let location = match &self.bucket {
            None => Location::Folder(self.folder.path().join("models")),
            Some((prefix, _)) => {
                Location::Bucket { name: S3Server::BUCKET.to_owned(), prefix: prefix.clone() }
            }
        };
        let access = self.bucket.as_ref().map(|(_, access)| access.clone()).unwrap_or_default();
        StoreConfig {
            cache: self.folder.path().join(process),
            grace: Duration::ZERO,
            tuning: Tuning { tries: 2, pause: Duration::from_millis(10), ..Tuning::default() },
            access,
            ..StoreConfig::from(location)
        }
    }

    /// A process with a cache of its own.
    pub async fn open(&self, process: &str) -> Store {
        self.open_with(process, |_| {}).await
    }

    pub async fn open_with(&self, process: &str, change: impl FnOnce(&mut StoreConfig)) -> Store {
        let mut config = self.config(process);
        change(&mut config);
        Store::connect(config).await.unwrap()
    }

    /// Puts bytes where the store keeps them, without any code of the store.
    pub async fn put(&self, relative: &str, bytes: &[u8]) {
        match &self.bucket {
            Some((prefix, _)) => server().await.put(&format!("{prefix}/{relative}"), bytes).await.unwrap(),
            None => {
                let path = self.folder.path().join("models").join(relative);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }

    /// The blobs that the store has.
    pub async fn blobs(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.bucket {
            Some((prefix, _)) => {
                let keys = server().await.keys(&format!("{prefix}/blobs/")).await.unwrap();
                keys.iter().map(|key| key.rsplit('/').next().unwrap().to_owned()).collect()
            }
            None => files(&self.folder.path().join("models/blobs")),
        };
        names.sort();
        names
    }

    /// The files of a process's cache.
    pub fn cached(&self, process: &str) -> Vec<String> {
        files(&self.folder.path().join(process).join("blobs"))
    }
}

fn files(folder: &std::path::Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A header and one small tensor. The same seed gives the same bytes.
pub fn gguf(seed: &str) -> Vec<u8> {
    writer(seed).to_bytes().unwrap()
}

pub fn writer(seed: &str) -> Writer {
    let mut writer = Writer::new();
    writer.metadata("general.architecture", "llama").unwrap();
    writer.metadata("general.name", seed).unwrap();
    writer.metadata("llama.context_length", 2048u32).unwrap();
    writer.tensor("token_embd.weight", &[32, 4], TensorType::F32, vec![0; 32 * 4 * 4]).unwrap();
    writer
}

/// Bytes that compress badly and repeat never.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

pub async fn upload(store: &Store, bytes: impl Into<Vec<u8>>) -> Digest {
    let bytes = bytes.into();
    let digest = Digest::of(&bytes);
    let mut upload = store.upload(digest.clone()).await.unwrap();
    upload.write(bytes.into()).await.unwrap();
    upload.commit().await.unwrap();
    digest
}

pub async fn create(store: &Store, request: Value) -> Result<Vec<Progress>> {
    let request: CreateRequest = serde_json::from_value(request).unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let spec = CreateSpec::new(request, |architecture| architecture == "llama")?;
    store.create(spec, move |line| sink.lock().unwrap().push(line)).await?;
    Ok(std::mem::take(&mut lines.lock().unwrap()))
}

/// A model with weights of its own and a system message.
pub async fn model(store: &Store, text: &str, system: &str) -> Arc<Model> {
    let digest = upload(store, gguf(text)).await;
    let files = json!({"model.gguf": digest.to_string()});
    create(store, json!({"model": text, "files": files, "system": system})).await.unwrap();
    store.get(&name(text)).await.unwrap()
}

pub async fn listed(store: &Store) -> Vec<String> {
    let mut names: Vec<String> =
        store.list().await.unwrap().iter().map(|model| model.name.shortest()).collect();
    names.sort();
    names
}

/// Brings a blob to this machine, as a load does.
pub async fn fetch(store: &Store, digest: &Digest) -> Result<store::BlobFile> {
    let (store, digest) = (store.clone(), digest.clone());
    let fetching = tokio::task::spawn_blocking(move || {
        store.fetch(&digest, &mut |_, _| std::ops::ControlFlow::Continue(()))
    });
    fetching.await.unwrap()
}

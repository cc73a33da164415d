//! A models folder in a temporary directory, and small GGUF files to put into it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use api::ollama::{CreateRequest, Progress, ShowRequest, ShowResponse};
use gguf::{TensorType, Writer};
use serde_json::{Value, json};
use store::{CreateSpec, Digest, Error, Model, Name, Result, Store, StoreConfig};
use tempfile::TempDir;

pub const JINJA: &str = "{% for message in messages %}{{ message.content }}{% endfor %}";

pub struct Folder {
    directory: TempDir,
    pub store: Store,
}

// === impl Folder ===

impl Folder {
    pub fn new() -> Folder {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Folder { directory, store }
    }

    pub fn without_pruning() -> Folder {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig { prune: false, ..StoreConfig::from(directory.path()) }).unwrap();
        Folder { directory, store }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// Another process that looks at the same folder: nothing is cached.
    pub fn reopened(&self) -> Store {
        Store::open(self.directory.path()).unwrap()
    }

    /// Every file, relative to the folder.
    pub fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        collect(self.directory.path(), self.directory.path(), &mut found);
        found
    }

    pub fn blobs(&self) -> BTreeSet<String> {
        self.files().into_iter().filter_map(|file| file.strip_prefix("blobs/").map(str::to_owned)).collect()
    }

    pub fn write(&self, relative: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Makes a file look as if it had been written two hours ago, past the grace of pruning.
    pub fn age(&self, relative: &str) {
        self.age_by(relative, Duration::from_secs(2 * 60 * 60));
    }

    pub fn age_by(&self, relative: &str, age: Duration) {
        let time = SystemTime::now() - age;
        fs::File::open(self.path(relative)).unwrap().set_modified(time).unwrap();
    }

    pub async fn upload(&self, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let mut upload = self.store.upload(digest.clone()).await.unwrap();
        upload.write(bytes.into()).await.unwrap();
        upload.commit().await.unwrap();
        digest
    }

    /// Runs a create request and returns the lines that a client would read.
    pub async fn create(&self, request: Value) -> Result<Vec<Progress>> {
        let request: CreateRequest = serde_json::from_value(request).unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let spec = CreateSpec::new(request, supported)?;
        self.store.create(spec, move |line| sink.lock().unwrap().push(line)).await?;
        Ok(std::mem::take(&mut lines.lock().unwrap()))
    }

    /// A model made from a GGUF of its own, with `fields` over the request.
    pub async fn model(&self, name: &str, fields: Value) -> Arc<Model> {
        let digest = self.upload(gguf(name)).await;
        let mut request = json!({"model": name, "files": {"model.gguf": digest.to_string()}});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.create(request).await.unwrap();
        self.get(name).await.unwrap()
    }

    pub async fn get(&self, text: &str) -> Result<Arc<Model>> {
        self.store.get(&name(text)).await
    }

    pub async fn show(&self, text: &str, request: Value) -> ShowResponse {
        let request: ShowRequest = serde_json::from_value(request).unwrap();
        self.store.show(&name(text), &request).await.unwrap()
    }

    pub async fn copy(&self, source: &str, destination: &str) -> Result<()> {
        self.store.copy(&name(source), &name(destination)).await
    }

    pub async fn delete(&self, text: &str) -> Result<()> {
        self.store.delete(&name(text)).await
    }

    /// The names of a listing.
    pub async fn listed(&self) -> Vec<String> {
        self.store.list().await.unwrap().iter().map(|model| model.name.shortest()).collect()
    }
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A header and one small tensor. The same seed gives the same bytes.
pub fn gguf(seed: &str) -> Vec<u8> {
    writer("llama", seed).to_bytes().unwrap()
}

pub fn writer(architecture: &str, seed: &str) -> Writer {
    let mut writer = Writer::new();
    writer.metadata("general.architecture", architecture).unwrap();
    writer.metadata("general.name", seed).unwrap();
    writer.metadata("general.file_type", 15u32).unwrap();
    writer.metadata(format!("{architecture}.context_length"), 2048u32).unwrap();
    writer.metadata(format!("{architecture}.embedding_length"), 32u32).unwrap();
    writer.tensor("token_embd.weight", &[32, 4], TensorType::F32, vec![0; 32 * 4 * 4]).unwrap();
    writer
}

/// What a client reads of an error.
pub fn message<T: std::fmt::Debug>(result: Result<T>) -> (u16, String) {
    answer(result.unwrap_err())
}

pub fn answer(error: Error) -> (u16, String) {
    let error = api::Error::from(error);
    (error.code.http_status(), error.message)
}

fn supported(architecture: &str) -> bool {
    matches!(architecture, "llama" | "gemma3")
}

fn collect(root: &Path, directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

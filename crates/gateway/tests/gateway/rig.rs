//! A gateway with its workers, and a client that reads as a sentence.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use gateway::{Config, Gateway, Handle};
use gguf::{TensorType, Writer};
use http::{HeaderMap, Method, Request, StatusCode};
use protocol::v1::replica_status::State;
use registry::{Limits, Memory, Registry};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use store::Store;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::fake::{Fake, Machine};

/// No test waits this long for anything; one that would is stuck.
const STUCK: Duration = Duration::from_secs(20);

pub struct Rig {
    pub handle: Handle,
    pub registry: Registry,
    pub store: Store,
    pub workers: Vec<Fake>,
    pub folder: TempDir,
    router: Router,
    _tasks: JoinSet<()>,
}

/// What differs from test to test.
pub struct Setup {
    pub slots: Vec<u32>,
    pub limits: Limits,
    pub config: Config,
    pub machine: Machine,
}

/// A gateway with a port.
pub struct Served {
    pub address: SocketAddr,
    pub serving: JoinHandle<Result<(), gateway::Error>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer that is still coming.
pub struct Reading {
    pub status: StatusCode,
    pub headers: HeaderMap,
    frames: std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>>,
}

impl Default for Setup {
    fn default() -> Setup {
        let mut config =
            Config { max_body_bytes: 1 << 20, ..Config::new(|architecture| architecture == "llama") };
        // No test leaves this machine: nobody listens there.
        config.transfer.mirrors = "http://127.0.0.1:9".parse().unwrap();
        Setup { slots: vec![2], limits: Limits::default(), config, machine: Machine::default() }
    }
}

// === impl Rig ===

impl Rig {
    /// One worker with two slots, and the model `m`.
    pub async fn start() -> Rig {
        Rig::with(Setup::default()).await
    }

    pub async fn with_slots(slots: &[u32]) -> Rig {
        Rig::with(Setup { slots: slots.to_vec(), ..Setup::default() }).await
    }

    /// One worker with that many slots, and a queue of that length.
    pub async fn with_queue(slots: u32, max_queue: u32) -> Rig {
        let limits = Limits { max_queue, ..Limits::default() };
        Rig::with(Setup { slots: vec![slots], limits, ..Setup::default() }).await
    }

    pub async fn with(setup: Setup) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let registry = Registry::start(Arc::new(Memory::new()), registry::Config::default()).await.unwrap();
        registry.set_limits_from_environment(setup.limits).await.unwrap();
        let mut workers = Vec::new();
        for (index, slots) in setup.slots.iter().enumerate() {
            workers.push(Fake::start_as(&registry, &format!("w{index}"), *slots, setup.machine).await);
        }
        let channels: HashMap<_, _> =
            workers.iter().map(|worker| (worker.address(), worker.channel())).collect();
        let gateway =
            Gateway::new(Config { channels, ..setup.config }, registry.clone(), store.clone()).unwrap();
        let (handle, router) = (gateway.handle(), gateway.router("127.0.0.1:1".parse().unwrap()).unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { gateway.follow(CancellationToken::new()).await });
        let rig = Rig { handle, registry, store, workers, folder, router, _tasks: tasks };
        rig.until(|rig| rig.handle.workers() == rig.workers.len()).await;
        rig.create("m", json!({})).await;
        rig
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    pub fn worker(&self) -> &Fake {
        &self.workers[0]
    }

    /// Makes a model out of a small GGUF of its own, with what else the create request says.
    pub async fn create(&self, name: &str, more: Value) {
        let digest = self.upload(small_gguf(name)).await;
        let mut request = json!({ "model": name, "files": { "m.gguf": digest }, "stream": false });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = self.post("/api/create", request).await;
        assert_eq!(reply.json(), json!({ "status": "success" }));
    }

    pub async fn upload(&self, bytes: Vec<u8>) -> String {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let reply = self.call(Method::POST, &format!("/api/blobs/{digest}"), bytes).await;
        assert!(reply.status.is_success(), "{reply:?}");
        digest
    }

    pub async fn replica_key(&self, name: &str) -> String {
        self.store.get(&name.parse().unwrap()).await.unwrap().replica_key()
    }

    /// Has `m` loaded on the first worker, however many there are.
    pub async fn warm(&self) -> String {
        let reply = self.post("/api/generate", json!({ "model": "m" })).await;
        assert_eq!(reply.json()["done_reason"], "load", "{reply:?}");
        self.replica_key("m").await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, "").await
    }

    pub async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Reply {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        self.send(request).await
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let reading = not_stuck(Reading::begin(self.router.clone(), request)).await;
        let Reading { status, headers, frames } = reading;
        let body = not_stuck(frames.collect::<Vec<Bytes>>()).await.concat().into();
        Reply { status, headers, body }
    }

    /// Sends a request and comes back when the answer begins.
    pub async fn open(&self, path: &str, body: Value) -> Reading {
        not_stuck(self.begin(path, body)).await
    }

    /// A request that nobody waits for yet. Dropping it is a client that leaves.
    pub fn begin(&self, path: &str, body: Value) -> impl Future<Output = Reading> + Send + use<> {
        let request =
            Request::builder().method(Method::POST).uri(path).body(body.to_string().into()).unwrap();
        Reading::begin(self.router.clone(), request)
    }

    /// Runs a request beside the test.
    pub fn spawn(&self, path: &str, body: Value) -> JoinHandle<Reply> {
        let begin = self.begin(path, body);
        tokio::spawn(async move { begin.await.read().await })
    }

    /// A second gateway on the same cluster, behind a real port of this machine.
    pub async fn serve(&self, shutdown: CancellationToken) -> Served {
        let channels = self.workers.iter().map(|worker| (worker.address(), worker.channel())).collect();
        let config = Config { channels, ..Config::new(|_| true) };
        let gateway = Gateway::new(config, self.registry.clone(), self.store.clone()).unwrap();
        let handle = gateway.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(gateway.serve(listener, shutdown));
        self.until(|rig| handle.workers() == rig.workers.len()).await;
        Served { address, serving }
    }

    /// Waits until it is so, looking again whenever something else has had its turn.
    pub async fn until(&self, mut is_so: impl FnMut(&Rig) -> bool) {
        not_stuck(async {
            while !is_so(self) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub async fn until_waiting(&self, count: u32) {
        self.until(|rig| rig.handle.waiting() == count).await;
    }

    pub async fn until_idle(&self) {
        self.until(|rig| rig.workers.iter().all(|worker| worker.slots_used() == 0)).await;
    }

    pub fn is_ready(&self, worker: usize, key: &str) -> bool {
        self.workers[worker].replica(key).is_some_and(|replica| replica.state() == State::Ready)
    }

    /// Every file of the store, to see that nothing was left behind.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => files.push(entry.path().display().to_string()),
                }
            }
        }
        files.sort();
        files
    }
}

// === impl Reply ===

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Of an NDJSON answer.
    pub fn lines(&self) -> Vec<Value> {
        assert!(self.text().ends_with('\n'), "every line ends with a line end: {self:?}");
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The payloads of an answer of server-sent events.
    pub fn events(&self) -> Vec<String> {
        let frames = self.text().split_terminator("\n\n");
        frames.map(|frame| frame.strip_prefix("data: ").unwrap().to_owned()).collect()
    }

    /// That it is an error, and its text.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json; charset=utf-8");
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

// === impl Reading ===

impl Reading {
    async fn begin(router: Router, request: Request<Body>) -> Reading {
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let frames = body.into_data_stream().map(|frame| frame.unwrap());
        Reading { status: parts.status, headers: parts.headers, frames: Box::pin(frames) }
    }

    /// The next frame as it leaves.
    pub async fn next(&mut self) -> Option<Bytes> {
        not_stuck(self.frames.next()).await
    }

    pub async fn line(&mut self) -> Value {
        let frame = self.next().await.expect("the stream goes on");
        serde_json::from_slice(&frame).unwrap()
    }

    pub async fn read(self) -> Reply {
        let body = not_stuck(self.frames.collect::<Vec<Bytes>>()).await.concat().into();
        Reply { status: self.status, headers: self.headers, body }
    }
}

pub async fn not_stuck<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(STUCK, future).await.expect("the test is stuck")
}

/// Bytes that no other name gives.
pub fn small_gguf(name: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.metadata("general.architecture", "llama").unwrap();
    writer.metadata("general.name", name).unwrap();
    writer.metadata("llama.context_length", 2048u32).unwrap();
    writer.metadata("llama.embedding_length", 32u32).unwrap();
    writer.tensor("token_embd.weight", &[32, 4], TensorType::F32, vec![0; 32 * 4 * 4]).unwrap();
    writer.to_bytes().unwrap()
}

/// The texts of a chat or generate stream, one after the other.
pub fn said(lines: &[Value]) -> String {
    let text = |line: &Value| {
        let text = line["response"].as_str().or(line["message"]["content"].as_str());
        text.unwrap_or_default().to_owned()
    };
    lines.iter().map(text).collect()
}

pub fn hello(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hello" }], "options": { "seed": 1 } })
}

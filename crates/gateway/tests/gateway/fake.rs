//! A worker that answers by script. It keeps the contract of a real one: slots, `busy`, `not_loaded`, permits, the
//! status stream, resume; and tests can hold its tokens and loads, kill it, and see what it was asked.

mod script;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use api::{Code, Error};
use futures::{Stream, StreamExt, stream};
use hyper_util::rt::TokioIo;
use protocol::to_status;
use protocol::v1::worker_server::{Worker, WorkerServer};
use protocol::v1::{
    ConvertProgress, ConvertRequest, EmbedRequest, EmbedResponse, GenerateChunk, GenerateRequest,
    LoadProgress, LoadRequest, ReplicaStatus, RerankRequest, RerankResponse, StatusRequest, UnloadRequest,
    UnloadResponse, Vector, WorkerStatus, replica_status::State,
};
use registry::{Device, Permit, Registry, Session, WorkerRecord};
use tokio::io::DuplexStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

pub use script::{Machine, ended, said, text};
use script::{USUAL_CONTEXT, context_length, expires};

/// Enough to never run out.
const ENDLESS: usize = 1 << 20;

type Script = Arc<dyn Fn(&GenerateRequest) -> Vec<Result<GenerateChunk, Error>> + Send + Sync>;

pub struct Fake {
    pub id: String,
    shared: Arc<Shared>,
    wires: Arc<Wires>,
    _server: JoinSet<()>,
}

/// The connections, which break when the worker dies.
struct Wires {
    is_dead: AtomicBool,
    accept: mpsc::UnboundedSender<DuplexStream>,
    pumps: Mutex<JoinSet<()>>,
}

struct Shared {
    id: String,
    boot_id: String,
    registry: Registry,
    session: Session,
    slots: u32,
    memory_bytes: u64,
    replicas: Mutex<BTreeMap<String, Replica>>,
    seen: Mutex<Seen>,
    script: Mutex<Option<Script>>,
    refusals: Mutex<Vec<Error>>,
    load_error: Mutex<Option<Error>>,
    /// What a conversion says.
    lines: Mutex<Vec<Result<ConvertProgress, Error>>>,
    /// Shared with every conversion that runs.
    converting: Arc<()>,
    /// One permit per token that may be sent, and per load that may end.
    tokens: Semaphore,
    loads: Semaphore,
    changes: watch::Sender<u64>,
}

struct Replica {
    status: ReplicaStatus,
    /// Goes back when dropped.
    _permit: Permit,
}

/// What the worker was asked.
#[derive(Clone, Default)]
pub struct Seen {
    pub generate: Vec<GenerateRequest>,
    pub embed: Vec<EmbedRequest>,
    pub rerank: Vec<RerankRequest>,
    pub load: Vec<LoadRequest>,
    pub convert: Vec<ConvertRequest>,
    pub unload: Vec<String>,
}

impl Fake {
    pub async fn start(registry: &Registry, id: &str, slots: u32) -> Fake {
        Fake::start_as(registry, id, slots, Machine::default()).await
    }

    pub async fn start_as(registry: &Registry, id: &str, slots: u32, machine: Machine) -> Fake {
        let boot_id = format!("{id}-boot-{}", script::rand_like(id));
        let record = WorkerRecord {
            id: id.into(),
            boot_id: boot_id.clone(),
            address: format!("fake-{id}"),
            devices: vec![Device { kind: machine.device.into(), ..Device::default() }],
            memory_bytes: machine.memory_bytes,
            context_length: USUAL_CONTEXT,
            ..WorkerRecord::default()
        };
        let session = registry.announce(record).await.unwrap();
        let shared = Arc::new(Shared {
            id: id.into(),
            boot_id,
            registry: registry.clone(),
            session,
            slots,
            memory_bytes: machine.memory_bytes,
            replicas: Mutex::default(),
            seen: Mutex::default(),
            script: Mutex::default(),
            refusals: Mutex::default(),
            load_error: Mutex::default(),
            lines: Mutex::default(),
            converting: Arc::default(),
            tokens: Semaphore::new(ENDLESS),
            loads: Semaphore::new(ENDLESS),
            changes: watch::Sender::new(0),
        });
        let (accept, accepted) = mpsc::unbounded_channel();
        let incoming = stream::unfold(accepted, |mut accepted| async move {
            accepted.recv().await.map(|io| (Ok::<_, io::Error>(io), accepted))
        });
        let mut server = JoinSet::new();
        let service = WorkerServer::new(Service(shared.clone()));
        server.spawn(async move {
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        let wires = Wires { is_dead: AtomicBool::new(false), accept, pumps: Mutex::default() };
        Fake { id: id.into(), shared, wires: Arc::new(wires), _server: server }
    }

    pub fn address(&self) -> String {
        format!("fake-{}", self.id)
    }

    pub fn channel(&self) -> Channel {
        let wires = self.wires.clone();
        Endpoint::from_static("http://fake").connect_with_connector_lazy(tower::service_fn(move |_| {
            let wires = wires.clone();
            async move { wires.connect().map(TokioIo::new) }
        }))
    }

    /// SIGKILL: every connection breaks, nobody answers any more, the lease lives on for a while.
    pub fn kill(&self) {
        self.wires.is_dead.store(true, Ordering::SeqCst);
        self.wires.pumps.lock().unwrap().abort_all();
    }

    /// The network is back; the process had never died.
    pub fn reconnect(&self) {
        self.wires.is_dead.store(false, Ordering::SeqCst);
    }

    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap().clone()
    }

    /// From now on only as many tokens as [`Fake::allow_tokens`] says.
    pub fn hold_tokens(&self) {
        self.shared.tokens.forget_permits(ENDLESS);
    }

    pub fn allow_tokens(&self, count: usize) {
        self.shared.tokens.add_permits(count);
    }

    /// Holds the tokens; the function lets some through.
    pub fn tap(&self) -> impl Fn(usize) + Send + use<> {
        self.hold_tokens();
        let shared = self.shared.clone();
        move |count| shared.tokens.add_permits(count)
    }

    pub fn hold_loads(&self) {
        self.shared.loads.forget_permits(ENDLESS);
    }

    pub fn allow_loads(&self, count: usize) {
        self.shared.loads.add_permits(count);
    }

    /// Answers with these chunks instead.
    pub fn script(
        &self,
        script: impl Fn(&GenerateRequest) -> Vec<Result<GenerateChunk, Error>> + Send + Sync + 'static,
    ) {
        *self.shared.script.lock().unwrap() = Some(Arc::new(script));
    }

    /// The next generate calls are refused with these, last first, whatever is free.
    pub fn refuse(&self, errors: Vec<Error>) {
        *self.shared.refusals.lock().unwrap() = errors;
    }

    /// What each conversion says. Its lines are held as tokens are.
    pub fn convert(&self, lines: Vec<Result<ConvertProgress, Error>>) {
        *self.shared.lines.lock().unwrap() = lines;
    }

    pub fn converting(&self) -> usize {
        Arc::strong_count(&self.shared.converting) - 1
    }

    pub fn fail_loads(&self, error: Option<Error>) {
        *self.shared.load_error.lock().unwrap() = error;
    }

    pub fn replica(&self, key: &str) -> Option<ReplicaStatus> {
        self.shared.replicas.lock().unwrap().get(key).map(|replica| replica.status.clone())
    }

    pub fn slots_used(&self) -> u32 {
        self.shared.replicas.lock().unwrap().values().map(|replica| replica.status.slots_used).sum()
    }

    pub fn loaded(&self) -> Vec<String> {
        let replicas = self.shared.replicas.lock().unwrap();
        replicas.values().map(|replica| replica.status.name.clone()).collect()
    }

    /// Loses a replica without a word, as if the picture of the gateway were old.
    pub fn forget_silently(&self, key: &str) {
        self.shared.replicas.lock().unwrap().remove(key);
    }

    /// Takes a slot for somebody else, and says so.
    pub fn occupy(&self, key: &str, count: u32) {
        if let Some(replica) = self.shared.replicas.lock().unwrap().get_mut(key) {
            replica.status.slots_used = count;
        }
        self.shared.changed();
    }
}

impl Wires {
    fn connect(&self) -> io::Result<DuplexStream> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, mut near) = tokio::io::duplex(64 << 10);
        let (mut far, theirs) = tokio::io::duplex(64 << 10);
        self.accept.send(theirs).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        self.pumps.lock().unwrap().spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        Ok(ours)
    }
}

impl Shared {
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn status(&self) -> WorkerStatus {
        let replicas = self.replicas.lock().unwrap();
        WorkerStatus {
            worker_id: self.id.clone(),
            boot_id: self.boot_id.clone(),
            replicas: replicas.values().map(|replica| replica.status.clone()).collect(),
            memory_total_bytes: self.memory_bytes,
            memory_free_bytes: self.memory_bytes,
            draining: false,
        }
    }

    fn take_slot(self: &Arc<Self>, key: &str) -> Result<Running, Error> {
        let mut replicas = self.replicas.lock().unwrap();
        let Some(replica) = replicas.get_mut(key).filter(|replica| replica.status.state() == State::Ready)
        else {
            return Err(Error::new(Code::NotLoaded, "not here"));
        };
        if replica.status.slots_used >= replica.status.slots {
            return Err(Error::new(Code::Busy, "no slot"));
        }
        replica.status.slots_used += 1;
        drop(replicas);
        self.changed();
        Ok(Running { shared: self.clone(), key: key.to_owned() })
    }

    /// It goes at once if it is idle, else with its last sequence. The permit goes back a moment later.
    fn unload(&self, key: &str) -> bool {
        let mut replicas = self.replicas.lock().unwrap();
        let Some(replica) = replicas.get_mut(key) else { return false };
        replica.status.state = State::Unloading as i32;
        let gone = if replica.status.slots_used == 0 { replicas.remove(key) } else { None };
        drop((replicas, gone));
        self.changed();
        true
    }
}

/// One sequence.
struct Running {
    shared: Arc<Shared>,
    key: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut replicas = self.shared.replicas.lock().unwrap();
        let mut is_over = false;
        if let Some(replica) = replicas.get_mut(&self.key) {
            let status = &mut replica.status;
            status.slots_used = status.slots_used.saturating_sub(1);
            is_over = status.slots_used == 0 && status.state() == State::Unloading;
        }
        drop(replicas);
        match is_over {
            true => drop(self.shared.unload(&self.key)),
            false => self.shared.changed(),
        }
    }
}

struct Service(Arc<Shared>);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Worker for Service {
    type GenerateStream = Streamed<GenerateChunk>;
    type LoadStream = Streamed<LoadProgress>;
    type StatusStream = Streamed<WorkerStatus>;
    type ConvertStream = Streamed<ConvertProgress>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = request.into_inner();
        self.0.seen.lock().unwrap().generate.push(request.clone());
        if let Some(error) = self.0.refusals.lock().unwrap().pop() {
            // Whoever was faster is gone again already.
            self.0.changed();
            return Err(to_status(error));
        }
        let key = request.model.clone().unwrap_or_default().replica_key;
        let running = self.0.take_slot(&key).map_err(to_status)?;
        let script = self.0.script.lock().unwrap().clone();
        let chunks = match script {
            Some(script) => script(&request),
            None => script::answer(&request),
        };
        let shared = self.0.clone();
        let stream = stream::iter(chunks).then(move |chunk| {
            let (shared, _running) = (shared.clone(), &running);
            async move {
                shared.tokens.acquire().await.unwrap().forget();
                chunk.map_err(to_status)
            }
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let request = request.into_inner();
        self.0.seen.lock().unwrap().embed.push(request.clone());
        let key = request.model.clone().unwrap_or_default().replica_key;
        let _running = self.0.take_slot(&key).map_err(to_status)?;
        if request.inputs.iter().any(|input| input == "poison") {
            return Err(to_status(Error::internal("cannot embed this")));
        }
        let scale = if request.normalize { 1.0 } else { 2.0 };
        let vector = |input: &String| Vector { values: vec![input.len() as f32 * scale, scale] };
        let tokens = request.inputs.iter().map(|input| input.split_whitespace().count() as u64).sum();
        let embeddings = request.inputs.iter().map(vector).collect();
        Ok(Response::new(EmbedResponse { embeddings, prompt_tokens: tokens }))
    }

    async fn rerank(&self, request: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        let request = request.into_inner();
        self.0.seen.lock().unwrap().rerank.push(request.clone());
        let key = request.model.clone().unwrap_or_default().replica_key;
        let _running = self.0.take_slot(&key).map_err(to_status)?;
        if request.query == "poison" {
            return Err(to_status(Error::internal("cannot rank this")));
        }
        // The longer, the better.
        let scores = request.documents.iter().map(|document| document.len() as f64 / 100.0).collect();
        Ok(Response::new(RerankResponse { scores, prompt_tokens: 9 }))
    }

    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<Self::LoadStream>, Status> {
        let request = request.into_inner();
        self.0.seen.lock().unwrap().load.push(request.clone());
        self.0.changed();
        let shared = self.0.clone();
        let load = async move { shared.load(request).await.map_err(to_status) };
        let begun = stream::once(async { Ok(LoadProgress { fraction: 0.5, ready: None }) });
        Ok(Response::new(begun.chain(stream::once(load)).boxed()))
    }

    async fn convert(
        &self,
        request: Request<ConvertRequest>,
    ) -> Result<Response<Self::ConvertStream>, Status> {
        self.0.seen.lock().unwrap().convert.push(request.into_inner());
        let (shared, running) = (self.0.clone(), self.0.converting.clone());
        let lines = self.0.lines.lock().unwrap().clone();
        let stream = stream::iter(lines).then(move |line| {
            let (shared, _running) = (shared.clone(), &running);
            async move {
                shared.tokens.acquire().await.unwrap().forget();
                line.map_err(to_status)
            }
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn unload(&self, request: Request<UnloadRequest>) -> Result<Response<UnloadResponse>, Status> {
        let key = request.into_inner().replica_key;
        self.0.seen.lock().unwrap().unload.push(key.clone());
        let found = self.0.unload(&key);
        Ok(Response::new(UnloadResponse { found }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let mut changes = self.0.changes.subscribe();
        changes.mark_changed();
        let state = (self.0.clone(), changes);
        let statuses = stream::unfold(state, |(shared, mut changes)| async move {
            changes.changed().await.ok()?;
            Some((Ok(shared.status()), (shared, changes)))
        });
        Ok(Response::new(statuses.boxed()))
    }
}

impl Shared {
    async fn load(&self, request: LoadRequest) -> Result<LoadProgress, Error> {
        let model = request.model.unwrap_or_default();
        let key = model.replica_key.clone();
        if let Some(replica) = self.replicas.lock().unwrap().get_mut(&key) {
            if let Some(keep_alive) = request.keep_alive_ns {
                replica.status.expires_at_ns = expires(keep_alive);
            }
            return Ok(LoadProgress { fraction: 1.0, ready: Some(replica.status.clone()) });
        }
        let permit = self.registry.acquire_permit(&self.session, &key).await?;
        let status = ReplicaStatus {
            replica_key: key.clone(),
            name: model.name,
            manifest_digest: model.manifest_digest,
            state: State::Loading as i32,
            size_bytes: 1000,
            size_vram_bytes: 400,
            expires_at_ns: expires(request.keep_alive_ns.unwrap_or(300_000_000_000)),
            ..ReplicaStatus::default()
        };
        let replica = Replica { status, _permit: permit };
        self.replicas.lock().unwrap().insert(key.clone(), replica);
        self.changed();
        // A caller that leaves aborts the load.
        let mut abort = Abort { shared: self, key: Some(key.clone()) };
        self.loads.acquire().await.unwrap().forget();
        let failure = self.load_error.lock().unwrap().clone();
        if let Some(error) = failure {
            self.unload(&key);
            return Err(error);
        }
        abort.key = None;
        let options = request.options.unwrap_or_default();
        let ready = {
            let mut replicas = self.replicas.lock().unwrap();
            let status = &mut replicas.get_mut(&key).unwrap().status;
            status.state = State::Ready as i32;
            status.slots = if request.num_parallel == 0 { self.slots } else { request.num_parallel };
            status.context_length = context_length(options.num_ctx);
            status.clone()
        };
        self.changed();
        Ok(LoadProgress { fraction: 1.0, ready: Some(ready) })
    }
}

struct Abort<'a> {
    shared: &'a Shared,
    key: Option<String>,
}

impl Drop for Abort<'_> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            // The permit goes back with the replica.
            self.shared.replicas.lock().unwrap().remove(key);
            self.shared.changed();
        }
    }
}

//! A worker with a client, and a loader that does what the test tells it.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::Error;
use engine::{Engine, Event, Info, Sequence, SequenceId, Tokenizer};
use futures::StreamExt;
use protocol::{
    from_status,
    v1::{
        Conversation, Done, GenerateChunk, GenerateRequest, LoadOptions, LoadProgress, LoadRequest, Message,
        Model, Options, ReplicaStatus, StatusRequest, UnloadRequest, WorkerStatus, generate_request::Input,
        worker_client::WorkerClient,
    },
};
use registry::{
    Limits, Memory, MetadataStore, Registry,
    testing::{Wire, WireState},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};
use worker::{
    Built, Config, Loader, Opened, Report, Shape, Worker,
    memory::{Gauge, Memory as MachineMemory},
    scripted::{self, Pace, Scripted},
};

/// A running worker.
pub struct Site {
    pub client: WorkerClient<Channel>,
    pub registry: Registry,
    pub loader: TestLoader,
    /// At the other end of the wire.
    pub memory: Memory,
    wire: Wire,
    stop: CancellationToken,
    served: JoinHandle<Result<(), worker::Error>>,
}

/// The scripted engine, but every load and every step waits until its gate lets it.
#[derive(Clone)]
pub struct TestLoader {
    pub loads: Gate,
    pub steps: Gate,
    pub seen: Arc<Seen>,
    /// What the next load fails with.
    pub failure: Arc<Mutex<Option<Error>>>,
    /// What the next step fails with.
    pub fault: Arc<Mutex<Option<engine::Error>>>,
}

#[derive(Default)]
pub struct Seen {
    pub loads: AtomicUsize,
    /// Engines whose memory is taken.
    pub engines: AtomicUsize,
    pub given_up: AtomicUsize,
    pub cancels: AtomicUsize,
    pub most_running: AtomicUsize,
}

/// Open at first.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<Option<usize>>, Condvar)>);

// === impl Gate ===

impl Gate {
    fn new() -> Gate {
        Gate(Arc::new((Mutex::new(None), Condvar::new())))
    }

    pub fn close(&self) {
        *self.0.0.lock().unwrap() = Some(0);
    }

    /// Lets so many through.
    pub fn allow(&self, count: usize) {
        if let Some(allowed) = self.0.0.lock().unwrap().as_mut() {
            *allowed += count;
        }
        self.0.1.notify_all();
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = None;
        self.0.1.notify_all();
    }

    /// Like [`Gate::pass`], heard of while it waits.
    fn pass_telling(&self, mut tell: impl FnMut()) {
        let is_shut = |allowed: &mut Option<usize>| *allowed == Some(0);
        let mut allowed = self.0.0.lock().unwrap();
        loop {
            tell();
            let pause = Duration::from_millis(1);
            let (waited, time) = self.0.1.wait_timeout_while(allowed, pause, is_shut).unwrap();
            allowed = waited;
            if !time.timed_out() {
                break;
            }
        }
        if let Some(allowed) = allowed.as_mut() {
            *allowed -= 1;
        }
    }

    fn pass(&self) {
        let allowed = self.0.0.lock().unwrap();
        let mut allowed = self.0.1.wait_while(allowed, |allowed| *allowed == Some(0)).unwrap();
        if let Some(allowed) = allowed.as_mut() {
            *allowed -= 1;
        }
    }
}

impl Pace for Gate {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep_until(&mut self, _: Duration) {
        self.pass();
    }
}

// === impl TestLoader ===

impl TestLoader {
    fn new() -> TestLoader {
        TestLoader {
            loads: Gate::new(),
            steps: Gate::new(),
            seen: Arc::default(),
            failure: Arc::default(),
            fault: Arc::default(),
        }
    }

    pub fn loads_seen(&self) -> usize {
        self.seen.loads.load(Ordering::SeqCst)
    }

    pub fn cancels(&self) -> usize {
        self.seen.cancels.load(Ordering::SeqCst)
    }

    pub fn engines(&self) -> usize {
        self.seen.engines.load(Ordering::SeqCst)
    }
}

impl Loader for TestLoader {
    fn open(&self, _: &Model, _: &LoadOptions) -> Result<Box<dyn Opened>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn automatic_slots(&self) -> usize {
        4
    }
}

impl Opened for TestLoader {
    fn train_context_length(&self) -> usize {
        scripted::TRAIN_CONTEXT_LENGTH
    }

    fn size_bytes(&self, shape: Shape) -> u64 {
        scripted::size_bytes(shape.slots, shape.context_length)
    }

    fn load(self: Box<Self>, shape: Shape, progress: Report<'_>) -> Result<Built, Error> {
        self.seen.loads.fetch_add(1, Ordering::SeqCst);
        // A load that tells the same again and again has no progress.
        self.loads.pass_telling(|| {
            let _ = progress(0.5);
        });
        if progress(0.75) == ControlFlow::Break(()) {
            self.seen.given_up.fetch_add(1, Ordering::SeqCst);
            return Err(Error::internal("given up"));
        }
        if let Some(error) = self.failure.lock().unwrap().take() {
            return Err(error);
        }
        let config = scripted::Config { tokens_per_second: 1.0 };
        let inner = Scripted::new(shape.slots, shape.context_length, &config, Box::new(self.steps.clone()));
        self.seen.engines.fetch_add(1, Ordering::SeqCst);
        let engine: Box<dyn Engine> = Box::new(Watched { inner, loader: *self, running: 0 });
        Ok(engine.into())
    }
}

/// Counts what the engine is asked for.
struct Watched {
    inner: Scripted,
    loader: TestLoader,
    running: usize,
}

impl Engine for Watched {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    fn tokenizer(&self) -> Arc<Tokenizer> {
        self.inner.tokenizer()
    }

    fn admit(&mut self, sequence: Sequence) -> Result<(), engine::Error> {
        self.inner.admit(sequence)?;
        self.running += 1;
        self.loader.seen.most_running.fetch_max(self.running, Ordering::SeqCst);
        Ok(())
    }

    fn step(&mut self) -> Result<Vec<Event>, engine::Error> {
        let events = self.inner.step()?;
        let ended =
            events.iter().filter(|event| matches!(event, Event::Finished { .. } | Event::Failed { .. }));
        self.running -= ended.count();
        match self.loader.fault.lock().unwrap().take() {
            Some(fault) => Err(fault),
            None => Ok(events),
        }
    }

    fn cancel(&mut self, id: SequenceId) {
        self.inner.cancel(id);
        self.running -= 1;
        self.loader.seen.cancels.fetch_add(1, Ordering::SeqCst);
    }

    fn is_idle(&self) -> bool {
        self.inner.is_idle()
    }

    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, engine::Error> {
        self.inner.embed(inputs)
    }

    fn rank(&mut self, pairs: &[Vec<u32>]) -> Result<Vec<f32>, engine::Error> {
        self.inner.rank(pairs)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.loader.seen.engines.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl Site ===

/// What the test wants a worker to be.
pub struct Setup {
    pub config: Config,
    pub limits: Limits,
}

impl Default for Setup {
    fn default() -> Setup {
        let plenty = MachineMemory { total_bytes: 1 << 30, available_bytes: 1 << 30 };
        let config = Config { id: "worker-1".into(), gauge: Gauge::new(move || plenty), ..Config::default() };
        Setup { config, limits: Limits::default() }
    }
}

impl Site {
    pub async fn new() -> Site {
        Site::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Site {
        let loader = TestLoader::new();
        Site { loader: loader.clone(), ..Site::with_loader(setup, Arc::new(loader)).await }
    }

    /// Its own `loader` has nothing to do.
    pub async fn with_loader(Setup { config, limits }: Setup, loader: Arc<dyn Loader>) -> Site {
        let memory = Memory::new();
        let wire = Wire::new(Arc::new(memory.clone()));
        let store: Arc<dyn MetadataStore> = Arc::new(wire.clone());
        let registry = Registry::start(store, registry::Config::default()).await.unwrap();
        registry.set_limits_from_environment(limits).await.unwrap();
        let worker = Worker::start(config, loader, registry.clone()).await.unwrap();
        let client = WorkerClient::new(worker.in_process_channel());
        let stop = CancellationToken::new();
        let served = tokio::spawn(worker.serve(None, stop.clone()));
        Site { client, registry, loader: TestLoader::new(), memory, wire, stop, served }
    }

    /// With one replica of so many slots, each of 4096 positions.
    pub async fn loaded(slots: u32) -> Site {
        let site = Site::new().await;
        site.load(LoadRequest { num_parallel: slots, ..load_request("model") }).await.unwrap();
        site
    }

    pub async fn load_stream(&self, request: LoadRequest) -> Result<Streaming<LoadProgress>, Error> {
        let response = self.client.clone().load(request).await;
        response.map(|response| response.into_inner()).map_err(|status| from_status(&status))
    }

    pub async fn load(&self, request: LoadRequest) -> Result<ReplicaStatus, Error> {
        ready(self.load_stream(request).await?).await
    }

    pub async fn unload(&self, key: &str) -> bool {
        let request = UnloadRequest { replica_key: key.into() };
        self.client.clone().unload(request).await.unwrap().into_inner().found
    }

    pub async fn generate(&self, request: GenerateRequest) -> Result<Streaming<GenerateChunk>, Error> {
        let response = self.client.clone().generate(request).await;
        response.map(|response| response.into_inner()).map_err(|status| from_status(&status))
    }

    /// The whole answer.
    pub async fn answer(&self, request: GenerateRequest) -> Result<(String, Done), Error> {
        whole(self.generate(request).await?).await
    }

    pub async fn status_stream(&self) -> Streaming<WorkerStatus> {
        self.client.clone().status(StatusRequest {}).await.unwrap().into_inner()
    }

    pub async fn status(&self) -> WorkerStatus {
        self.wait_for(|_| true).await
    }

    /// The first status that is as wanted.
    pub async fn wait_for(&self, mut is_wanted: impl FnMut(&WorkerStatus) -> bool) -> WorkerStatus {
        let mut statuses = self.status_stream().await;
        loop {
            let status = statuses.next().await.expect("the stream goes on").unwrap();
            if is_wanted(&status) {
                return status;
            }
        }
    }

    /// Lets the engine make one step after the other until so many slots are used. How many steps that takes is up to
    /// the connection, which tells the worker that a client has left when it gets to it.
    pub async fn step_until_used(&self, used: u32) {
        while self.status().await.replicas[0].slots_used != used {
            self.loader.steps.allow(1);
        }
    }

    pub async fn wait_until_empty(&self) {
        self.wait_for(|status| status.replicas.is_empty()).await;
    }

    pub async fn wait_for_used_slots(&self, used: u32) {
        self.wait_for(|status| status.replicas.iter().any(|replica| replica.slots_used == used)).await;
    }

    /// How many permits are held, as the cluster sees it.
    pub fn permits(&self) -> usize {
        self.registry.view().permits.len()
    }

    pub fn cut_wire(&self) {
        self.wire.set(WireState::Cut);
    }

    pub fn mend_wire(&self) {
        self.wire.set(WireState::Whole);
    }

    /// Begins the drain.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub async fn ended(self) -> Registry {
        self.served.await.unwrap().unwrap();
        self.registry
    }

    /// Why it ended by itself.
    pub async fn died(self) -> worker::Error {
        self.served.await.unwrap().unwrap_err()
    }
}

/// Runs what waits for another thread. A paused clock would meanwhile leap from timer to timer; it does not while a
/// blocking task runs.
pub async fn frozen<T>(work: impl Future<Output = T>) -> T {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let blocking = tokio::task::spawn_blocking(move || wait.recv());
    let result = work.await;
    drop(done);
    let _ = blocking.await;
    result
}

// === requests and answers ===

pub fn model(key: &str) -> Model {
    Model { replica_key: key.into(), name: format!("{key}:latest"), ..Model::default() }
}

pub fn load_request(key: &str) -> LoadRequest {
    LoadRequest { model: Some(model(key)), ..LoadRequest::default() }
}

pub fn with_context(num_ctx: u32) -> LoadRequest {
    LoadRequest { options: Some(LoadOptions { num_ctx, ..LoadOptions::default() }), ..load_request("model") }
}

/// As a gateway fills them in.
pub fn options() -> Options {
    Options {
        num_predict: -1,
        num_keep: 4,
        seed: 7,
        temperature: 0.8,
        top_p: 1.0,
        typical_p: 1.0,
        repeat_penalty: 1.0,
        ..Options::default()
    }
}

/// A chat of one message to the model that [`Site::loaded`] has loaded.
pub fn ask(prompt: &str) -> GenerateRequest {
    let message = Message { role: "user".into(), content: prompt.into(), ..Message::default() };
    GenerateRequest {
        request_id: "test".into(),
        model: Some(model("model")),
        input: Some(Input::Conversation(Conversation { messages: vec![message], tools: Vec::new() })),
        options: Some(options()),
        truncate: true,
        shift: true,
        ..GenerateRequest::default()
    }
}

/// A chat that is answered with that text.
pub fn say(text: &str) -> GenerateRequest {
    ask(&format!("[[say {text}]]"))
}

pub async fn ready(mut progress: Streaming<LoadProgress>) -> Result<ReplicaStatus, Error> {
    while let Some(item) = progress.next().await {
        if let Some(ready) = item.map_err(|status| from_status(&status))?.ready {
            return Ok(ready);
        }
    }
    panic!("a load ends with `ready` or an error")
}

pub async fn whole(mut chunks: Streaming<GenerateChunk>) -> Result<(String, Done), Error> {
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|status| from_status(&status))?;
        text.push_str(&chunk.content);
        if let Some(done) = chunk.done {
            assert!(chunks.next().await.is_none(), "nothing comes after `done`");
            return Ok((text, done));
        }
    }
    panic!("an answer ends with `done` or an error")
}

/// The next piece of text.
pub async fn next_text(chunks: &mut Streaming<GenerateChunk>) -> String {
    chunks.next().await.expect("the answer goes on").unwrap().content
}

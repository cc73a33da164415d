//! The component: what an operator sets, the service, the handle, and what can go wrong with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::KeepAlive;
use axum::Router;
use node::http::{self, Bounds};
use protocol::v1::replica_status::State;
use registry::Registry;
use store::Store;
use store::transfer::{self, Transfer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::app::App;
use crate::cluster::{Cluster, Seen};
use crate::dispatch::Dispatcher;
use crate::guard::{self, Guard};
use crate::keys::Keys;
use crate::resolve::{self, Wording};
use crate::router;

/// A conversation with images fits (contract: design.md section 8).
const MAX_BODY_BYTES: usize = 64 << 20;

#[derive(Clone, Debug)]
pub struct Config {
    /// `OLLAMA_ORIGINS`: who may call from a browser besides Ollama's own list.
    pub origins: Vec<String>,
    /// This machine's, for the check of `Host`.
    pub host_name: String,
    /// `OLLAMA_KEEP_ALIVE`; `None` leaves it to the worker.
    pub keep_alive: Option<KeepAlive>,
    /// `OLLAMA_CONTEXT_LENGTH`; 0 = automatic.
    pub context_length: u32,
    /// `OLLAMA_LOAD_TIMEOUT`: how long a load may make no progress; `None` = as long as it likes.
    pub load_timeout: Option<Duration>,
    /// How long a request waits for a place that other models keep busy, before one of them has to make room: it
    /// finishes what it runs and takes nothing new.
    pub patience: Duration,
    /// How large a JSON body may be. Blobs have no bound.
    pub max_body_bytes: usize,
    /// What a client may hold without asking for anything.
    pub bounds: Bounds,
    /// How long requests that run at the shutdown may go on.
    pub drain: Duration,
    /// Whether the engine runs an architecture; what it does not run is not created.
    pub supports: fn(&str) -> bool,
    /// The keys that every request needs; `None` = nobody is asked.
    pub keys: Option<Keys>,
    /// Registries and the key to them.
    pub transfer: transfer::Config,
    /// Channels for addresses that are no network addresses: the worker in this process.
    pub channels: HashMap<String, Channel>,
}

/// The service: routes on one side, workers on the other.
pub struct Gateway {
    app: Arc<App>,
    guard: GuardRules,
}

struct GuardRules {
    origins: Vec<String>,
    host_name: String,
}

/// What the rest of the process may ask a running gateway. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    app: Arc<App>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`OLLAMA_ORIGINS`: {0}")]
    Origins(#[from] guard::Error),
    #[error("serve: {0}")]
    Io(#[from] std::io::Error),
}

// === impl Config ===

impl Config {
    /// Ollama's defaults. `supports` has none: only the engine knows.
    pub fn new(supports: fn(&str) -> bool) -> Config {
        Config {
            origins: Vec::new(),
            host_name: String::new(),
            keep_alive: None,
            context_length: 0,
            load_timeout: Some(Duration::from_secs(300)),
            patience: Duration::from_secs(5),
            max_body_bytes: MAX_BODY_BYTES,
            bounds: Bounds::default(),
            drain: Duration::from_secs(30),
            supports,
            keys: None,
            transfer: transfer::Config::default(),
            channels: HashMap::new(),
        }
    }
}

// === impl Gateway ===

impl Gateway {
    pub fn new(config: Config, registry: Registry, store: Store) -> Result<Gateway, Error> {
        let guard = GuardRules { origins: config.origins.clone(), host_name: config.host_name.clone() };
        // Parsed here so that a bad rule is found before a port is bound.
        guard.at(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let cluster = Cluster::default();
        let dispatcher =
            Dispatcher::new(cluster.clone(), registry.clone(), config.load_timeout, config.patience);
        let transfer = Transfer::new(&store, config.transfer.clone());
        Ok(Gateway { app: Arc::new(App { config, store, transfer, registry, cluster, dispatcher }), guard })
    }

    pub fn handle(&self) -> Handle {
        Handle { app: self.app.clone() }
    }

    /// The routes, as served at `listen`. They answer from what [`Gateway::follow`] knows of the workers.
    pub fn router(&self, listen: SocketAddr) -> Result<Router, Error> {
        Ok(router::router(self.app.clone(), self.guard.at(listen)?))
    }

    /// Keeps up with the workers and the file of keys until the shutdown, and what is loaded within the limit.
    pub async fn follow(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.app.cluster.run(&self.app.registry, &self.app.config.channels, shutdown) => {}
            () = self.app.dispatcher.keep_limit() => {}
            () = self.keep_keys() => {}
        }
    }

    async fn keep_keys(&self) {
        match &self.app.config.keys {
            Some(keys) => keys.keep().await,
            None => std::future::pending().await,
        }
    }

    /// Serves until the shutdown, then finishes what runs, within the bound, and keeps up with the workers all the
    /// while.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        let router = self.router(listener.local_addr()?)?;
        let server = http::serve(listener, router, self.app.config.bounds, shutdown.clone());
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.app.config.drain).await;
        };
        tokio::select! {
            () = server => {}
            () = overdue => {
                tracing::warn!(drain = ?self.app.config.drain, "requests still run at the end of the drain, they are cut");
            }
            // Until the last request is answered, which is after the shutdown began.
            () = self.follow(CancellationToken::new()) => {}
        }
        Ok(())
    }
}

impl GuardRules {
    fn at(&self, listen: SocketAddr) -> Result<Guard, guard::Error> {
        Guard::new(&self.origins, listen, self.host_name.clone())
    }
}

// === impl Handle ===

impl Handle {
    /// Requests that wait for a slot, a load or an eviction.
    pub fn waiting(&self) -> u32 {
        self.app.dispatcher.admission().waiting()
    }

    /// How many may wait.
    pub fn max_queue(&self) -> u32 {
        self.app.registry.view().limits().max_queue
    }

    /// Tells the metrics of this process how the queue is.
    pub fn measure(&self, metrics: &node::Metrics) {
        let (waiting, limit) = (self.clone(), self.clone());
        metrics.gauge_of("queue_waiting", "Requests that wait for a slot or a model", move || {
            f64::from(waiting.waiting())
        });
        metrics.gauge_of("queue_limit", "How many requests may wait", move || f64::from(limit.max_queue()));
    }

    /// How many workers can be reached and take new requests.
    pub fn workers(&self) -> usize {
        self.app.cluster.connected().iter().filter(|(_, draining)| !draining).count()
    }

    /// Ticks at every change of any worker's state, from now on.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.app.cluster.changes()
    }

    /// Whether the model is loaded on a worker that can be reached.
    ///
    /// # Errors
    /// Why not: there is none of that name, or it is not loaded.
    pub async fn check_loaded(&self, asked: &str) -> api::Result<()> {
        let model = resolve::model(&self.app, asked, Wording::Usual).await?;
        let key = model.replica_key();
        let is_ready = |seen: &Seen| seen.status.replica_key == key && seen.status.state() == State::Ready;
        match self.app.cluster.replicas().iter().any(is_ready) {
            true => Ok(()),
            false => Err(api::Error::unavailable(format!("model '{asked}' is not loaded"))),
        }
    }
}

//! The roles put together: bind, start what the role has, tell that it is ready, and end in order.

mod cores;
mod parts;
mod settings;
mod storage;

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use node::{Metrics, Setting, Shutdown, Sources, admin, config::text, shutdown::Limits, telemetry};
use registry::{Etcd, EtcdConfig, Memory, MetadataStore, Registry};
use tokio::net::TcpListener;

pub use self::settings::{Role, Settings};
use crate::{
    args::{ClusterArgs, RoleArgs},
    environment::{self, Reader},
};

/// Requests that run when the process is told to stop have 30 s (gateway and worker); this is how long the process
/// waits for the two.
const DRAIN: Duration = Duration::from_secs(40);
/// Leases are revoked and connections closed in moments; what hangs here hangs for ever.
const STOP: Duration = Duration::from_secs(5);

/// A person waits that long for etcd, and not as long as a server does.
const PATIENCE: Duration = Duration::from_secs(5);

const FILE: Setting<String> = Setting::new("config", &["CARAVAN_CONFIG"], "the path of a file", text);

/// Reads every setting and starts the log; nothing is bound yet.
pub fn prepare(role: Role, flags: &RoleArgs, sources: Sources) -> Result<Settings> {
    telemetry::init(&telemetry::Options::read(&sources)?);
    environment::warn(&sources, Reader::Server);
    let sources = with_file(sources, flags.config.as_deref())?;
    let mut settings = Settings::read(role, flags, &sources)?;
    if let Some(path) = settings.keys_file.as_deref().filter(|_| role != Role::Worker) {
        let keys = gateway::Keys::open(path).context("`--keys-file` (`CARAVAN_KEYS_FILE`)")?;
        settings.keys = Some(keys);
    }
    match (role, settings.etcd.is_empty()) {
        (Role::Serve, false) => {
            bail!(
                "`--etcd` must not be given to serve, a whole installation by itself; run gateway and worker with it"
            )
        }
        (Role::Gateway | Role::Worker, true) => {
            bail!("`--etcd` must be given to a {}; on one machine 'caravan serve' needs none", role.name())
        }
        _ => Ok(settings),
    }
}

fn with_file(sources: Sources, flag: Option<&str>) -> Result<Sources> {
    match sources.read(&FILE, flag)? {
        Some(path) => Ok(sources.with_file(Path::new(&path), &settings::NAMES)?),
        None => Ok(sources),
    }
}

/// The etcd of a cluster, for who only has a word with it.
pub fn etcd(flags: &ClusterArgs, sources: Sources) -> Result<EtcdConfig> {
    let sources = with_file(sources, flags.config.as_deref())?;
    let mut config = settings::etcd(flags, &sources)?;
    config.connect_timeout = PATIENCE;
    ensure!(
        !config.endpoints.is_empty(),
        "`--etcd` must name the etcd of a cluster; a single 'serve' takes its limits from its environment"
    );
    Ok(config)
}

/// Runs the role until it is told to stop.
pub fn run(role: Role, settings: Settings) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    runtime.block_on(live(role, settings))
}

async fn live(role: Role, settings: Settings) -> Result<()> {
    tracing::info!(?settings, "configuration");
    settings.storage.tell();
    node::http::raise_handles();
    let shutdown = Shutdown::default();
    shutdown.obey_signals().context("listen to signals")?;
    let listener = bind(&settings.listen).await?;
    let admin_listener = bind_admin(&settings).await?;
    let (listen, admin) = (listener.local_addr()?, admin_listener.local_addr()?);

    let metadata = metadata_store(&settings).await?;
    let config = registry::Config { id: settings.id.clone(), ..registry::Config::default() };
    let registry = Registry::start(metadata, config).await.context("start the registry")?;
    let metrics = Metrics::new(role.name(), env!("CARGO_PKG_VERSION"));
    let readiness = admin::Readiness::default();
    let parts =
        parts::Parts { settings: &settings, registry: &registry, shutdown: &shutdown, metrics: &metrics };
    match role {
        Role::Worker => {
            parts.worker(Some((listener, listen))).await?;
        }
        Role::Gateway => {
            let gateway = parts.gateway(listener, None, readiness.condition("worker")).await?;
            answer_for_models(&readiness, gateway);
        }
        Role::Serve => {
            let channel = parts.worker(None).await?;
            let gateway = parts.gateway(listener, Some(channel), readiness.condition("worker")).await?;
            // A single process says that it is ready when it can answer.
            let mut changes = gateway.changes();
            while gateway.workers() == 0 && !shutdown.is_draining() {
                changes.changed().await.context("the gateway ended before it was ready")?;
            }
            answer_for_models(&readiness, gateway);
        }
    }
    admin::serve(admin_listener, readiness, &shutdown, metrics);
    tracing::info!(role = role.name(), %listen, %admin, id = %settings.id, store = %settings.storage.location, "ready");

    let ended = shutdown.ended(Limits { drain: DRAIN, stop: STOP }).await;
    registry.close().await;
    match ended {
        Ok(()) => tracing::info!("ended"),
        Err(unfinished) => tracing::warn!(%unfinished, "ended"),
    }
    Ok(())
}

/// Only a gateway knows models by their names.
fn answer_for_models(readiness: &admin::Readiness, gateway: gateway::Handle) {
    readiness.ask_about_models(move |model| {
        let gateway = gateway.clone();
        async move { gateway.check_loaded(&model).await }
    });
}

async fn bind(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("listen on {address}; another process may have the port, choose another by its flag")
    })
}

async fn bind_admin(settings: &Settings) -> Result<TcpListener> {
    match bind(&settings.admin_listen).await {
        Err(error) if settings.admin_may_move && is_in_use(&error) => {
            let listener = bind("127.0.0.1:0").await?;
            let (wanted, admin) = (&settings.admin_listen, listener.local_addr()?);
            tracing::warn!(%wanted, %admin, "another process has the admin port, took a free one");
            Ok(listener)
        }
        other => other,
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

async fn metadata_store(settings: &Settings) -> Result<Arc<dyn MetadataStore>> {
    if settings.etcd.is_empty() {
        return Ok(Arc::new(Memory::new()));
    }
    let mut config = EtcdConfig::new(settings.etcd.clone(), settings.cluster.clone());
    settings.etcd_access.apply(&mut config);
    let etcd = Etcd::connect(&config).await;
    Ok(Arc::new(etcd.with_context(|| format!("connect to etcd at {}", settings.etcd.join(",")))?))
}

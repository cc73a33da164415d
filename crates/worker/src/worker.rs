//! The component: a worker that is announced, serves, and in the end drains.

use std::{io, sync::Arc, time::Duration};

use futures::{Stream, future};
use protocol::{MAX_MESSAGE_BYTES, v1::worker_server::WorkerServer};
use registry::{Registry, Session, SessionState, WorkerRecord};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Channel, Server,
    server::{Connected, TcpIncoming},
};

use crate::{
    config::Config,
    converter::Converter,
    in_process::{Connector, Incoming, in_process},
    loader::Loader,
    replicas::Replicas,
    service::Service,
};

/// Calls of one gateway that may be open at once. Most are answers; `busy` is answered as fast as it is asked.
const MAX_STREAMS: u32 = 4096;

/// A gateway whose machine has vanished closes no connection. Its answers are cancelled when it misses a ping.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connections may take to end after everything else has.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A worker that other processes can see. It serves once [`Worker::serve`] runs.
pub struct Worker {
    config: Config,
    replicas: Replicas,
    converter: Option<Converter>,
    session: Arc<Session>,
    connector: Connector,
    incoming: Incoming,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("announce worker `{id}`: {source}")]
    Announce { id: String, source: registry::Error },
    #[error("serve gRPC: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// Its permits are void and nobody would send it a request any more.
    #[error("worker `{id}` has lost its session for good")]
    SessionLost { id: String },
}

// === impl Worker ===

impl Worker {
    /// Announces the worker. What it loads comes from `loader`; permits and records go through `registry`.
    pub async fn start(config: Config, loader: Arc<dyn Loader>, registry: Registry) -> Result<Worker, Error> {
        let record = WorkerRecord {
            id: config.id.clone(),
            boot_id: node::ident::boot_id(),
            address: config.address.clone(),
            devices: config.devices.clone(),
            memory_bytes: config.gauge.measure().total_bytes,
            context_length: u32::try_from(config.context_length).unwrap_or(u32::MAX),
            version: config.version.clone(),
            ..WorkerRecord::default()
        };
        let announced = registry.announce(record).await;
        let session = announced.map_err(|source| Error::Announce { id: config.id.clone(), source })?;
        let session = Arc::new(session);
        let converter = loader.converter();
        let replicas = Replicas::start(config.clone(), loader, registry, session.clone());
        let (connector, incoming) = in_process();
        Ok(Worker { config, replicas, converter, session, connector, incoming })
    }

    /// A channel to this worker for a gateway in the same process.
    pub fn in_process_channel(&self) -> Channel {
        self.connector.channel()
    }

    /// Serves callers in this process, and over TCP those of `listener`, until `stop`. Then drains: admits nothing
    /// new, lets answers end within the drain timeout, unloads, gives the permits back, ends the session. Fails when
    /// the session ends by itself.
    pub async fn serve(self, listener: Option<TcpListener>, stop: CancellationToken) -> Result<(), Error> {
        let Worker { config, replicas, converter, session, connector: _, incoming } = self;
        let closed = CancellationToken::new();
        let service = Service::new(replicas.clone(), converter, closed.clone());
        let inside = serve(&service, incoming, &closed);
        let outside = async {
            match listener {
                Some(listener) => {
                    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                    serve(&service, incoming, &closed).await
                }
                None => Ok(()),
            }
        };
        let end = async {
            let ended = tokio::select! {
                () = stop.cancelled() => Ok(()),
                () = lost(&session) => Err(Error::SessionLost { id: config.id.clone() }),
            };
            drain(&config, &replicas, &session).await;
            closed.cancel();
            ended
        };
        // Whoever still reads an answer that has ended is not waited for long.
        let bounded = async {
            tokio::select! {
                (inside, outside) = future::join(inside, outside) => inside.and(outside),
                () = async { closed.cancelled().await; sleep(LAST_WORDS).await } => Ok(()),
            }
        };
        let (served, ended) = future::join(bounded, end).await;
        served.and(ended)
    }
}

async fn lost(session: &Session) {
    let mut state = session.watch_state();
    // An error means that its task is gone, which is as final.
    let _ = state.wait_for(|state| *state == SessionState::Ended).await;
}

async fn drain(config: &Config, replicas: &Replicas, session: &Session) {
    let deadline = Instant::now() + config.drain_timeout;
    tracing::info!(timeout_s = config.drain_timeout.as_secs(), "draining");
    replicas.drain();
    if let Err(error) = session.update(|worker| worker.draining = true).await {
        tracing::debug!(%error, "the drain is not published");
    }
    replicas.close(deadline).await;
    session.close().await;
    tracing::info!("drained");
}

async fn serve<I, IO>(service: &Service, incoming: I, closed: &CancellationToken) -> Result<(), Error>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    IO::ConnectInfo: Clone + Send + Sync + 'static,
{
    let server = WorkerServer::new(service.clone())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(server)
        .serve_with_incoming_shutdown(incoming, closed.clone().cancelled_owned())
        .await?;
    Ok(())
}

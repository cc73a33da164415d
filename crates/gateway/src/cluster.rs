//! The workers as this gateway sees them: one lazily connected channel each, and the state that each tells about
//! itself on its `Status` stream.
//!
//! A stream that ends is how a dead worker is noticed, long before its lease runs out. The picture is optimistic:
//! it can lag behind by a network delay, so the worker stays the one authority on its slots, and a `busy` answer
//! corrects the picture ([`Slot::refused`]). Who should serve what is `registry::placement`'s decision, not ours.

mod follow;
mod slots;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::MAX_MESSAGE_BYTES;
use protocol::v1::worker_client::WorkerClient;
use protocol::v1::{ReplicaStatus, WorkerStatus, replica_status::State};
use registry::ReplicaState;
use registry::placement::{LiveReplica, LiveWorker};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use api::Error;

pub use slots::Slot;

pub type Client = WorkerClient<Channel>;

/// A worker on a reachable machine answers the handshake within this; one that does not is treated as dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A machine that vanished without closing its connections is noticed after the sum of these.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Cluster {
    peers: Arc<Mutex<HashMap<String, Peer>>>,
    changes: Arc<watch::Sender<u64>>,
    /// Numbers peers and connections, so that a worker that came back is told from the one that failed.
    connections: Arc<AtomicU64>,
}

struct Peer {
    /// New whenever the worker is announced anew.
    id: u64,
    client: Client,
    /// `None` while the stream is down.
    status: Option<WorkerStatus>,
    /// Counts the statuses received, so that an answer can be told to be older or newer than one.
    version: u64,
    /// Of the status stream that is up, or was last.
    connection: u64,
    own: HashMap<String, slots::Own>,
}

/// One connection to one worker. A worker that was lost and came back has another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub worker: String,
    connection: u64,
}

/// A replica and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub worker: String,
    pub status: ReplicaStatus,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            peers: Arc::default(),
            changes: Arc::new(watch::Sender::new(0)),
            connections: Arc::default(),
        }
    }
}

impl Cluster {
    /// Ticks at every change of any worker's state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The connection to a worker, if it is known at all.
    pub fn client(&self, worker: &str) -> Option<Client> {
        self.lock().get(worker).map(|peer| peer.client.clone())
    }

    /// The workers whose status streams are up, and whether each is draining.
    pub fn connected(&self) -> Vec<(String, bool)> {
        let peers = self.lock();
        let up = peers.iter().filter_map(|(id, peer)| Some((id.clone(), peer.status.as_ref()?.draining)));
        up.collect()
    }

    /// Every replica of every connected worker.
    pub fn replicas(&self) -> Vec<Seen> {
        let peers = self.lock();
        let replicas = peers.iter().flat_map(|(id, peer)| {
            let status = peer.status.iter().flat_map(|status| &status.replicas);
            status.map(|status| Seen { worker: id.clone(), status: status.clone() })
        });
        replicas.collect()
    }

    /// What placement must know about the workers beyond their records.
    pub fn live(&self) -> BTreeMap<String, LiveWorker> {
        let now = Instant::now();
        self.lock().iter().map(|(id, peer)| (id.clone(), peer.live(now))).collect()
    }

    /// The connection to a worker that there is now; `None` for a worker that is not known.
    pub fn link(&self, worker: &str) -> Option<Link> {
        let connection = self.lock().get(worker)?.connection;
        Some(Link { worker: worker.to_owned(), connection })
    }

    /// Takes in what a worker said about a replica elsewhere than on its status stream.
    pub fn learn(&self, worker: &str, replica: ReplicaStatus) {
        if let Some(status) = self.lock().get_mut(worker).and_then(|peer| peer.status.as_mut()) {
            status.replicas.retain(|known| known.replica_key != replica.replica_key);
            status.replicas.push(replica);
        }
        self.notify();
    }

    fn new_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn notify(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Each critical section leaves the map whole, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn new(channel: Channel, id: u64) -> Peer {
        let client = WorkerClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Peer { id, client, status: None, version: 0, connection: id, own: HashMap::new() }
    }

    fn replica(&self, key: &str) -> Option<&ReplicaStatus> {
        self.status.as_ref()?.replicas.iter().find(|replica| replica.replica_key == key)
    }

    fn live(&self, now: Instant) -> LiveWorker {
        let Some(status) = &self.status else {
            return LiveWorker { is_unreachable: true, ..LiveWorker::default() };
        };
        let here = status.replicas.iter().filter(|replica| !self.is_missing(&replica.replica_key));
        let replicas = here.map(|replica| {
            let live = LiveReplica {
                state: state(replica),
                slots: replica.slots,
                slots_used: self.slots_used(replica, now),
                context_length: replica.context_length,
                size_bytes: replica.size_bytes,
                last_used_ns: replica.last_used_ns,
                expires_at_ns: replica.expires_at_ns,
            };
            (replica.replica_key.clone(), live)
        });
        LiveWorker {
            is_unreachable: false,
            draining: status.draining,
            // Zero is what a worker says that does not know.
            memory_free_bytes: Some(status.memory_free_bytes).filter(|_| status.memory_total_bytes > 0),
            replicas: replicas.collect(),
        }
    }
}

/// Connects when first used.
fn lazy_channel(address: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Error::internal(format!("worker address `{address}` is no address: {error}")))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

fn state(replica: &ReplicaStatus) -> ReplicaState {
    match replica.state() {
        State::Loading => ReplicaState::Loading,
        State::Ready => ReplicaState::Ready,
        State::Unloading => ReplicaState::Unloading,
    }
}

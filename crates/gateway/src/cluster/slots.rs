//! How many slots of a replica are taken, as far as a gateway can know.
//!
//! The worker tells its count at every change, a network delay late. What this gateway has sent since is added
//! here; what other gateways have sent is not known until the worker says so, and then a request is refused.

use std::time::Duration;

use protocol::v1::{ReplicaStatus, replica_status::State};
use tokio::time::Instant;

use super::{Client, Cluster, Link, Peer};

/// After a refusal the replica counts as full until the worker speaks again. A worker that fills and frees a slot
/// between two messages may have nothing new to say, so the refusal also ends by itself.
const REFUSAL_LASTS: Duration = Duration::from_secs(1);

/// What this gateway has at one replica.
#[derive(Default)]
pub(super) struct Own {
    /// Slots held.
    running: u32,
    /// Those of them that were taken after the worker's last status.
    opened_since: u32,
    /// Slots given back after the worker's last status, which counted them. Waiting for the next one would leave
    /// them empty meanwhile.
    closed_since: u32,
    refused: Option<Refusal>,
    /// The status version at which the worker said that it has no such replica.
    missing_at: Option<u64>,
}

struct Refusal {
    version: u64,
    at: Instant,
}

/// A slot that this gateway counts as taken, until dropped.
pub struct Slot {
    cluster: Cluster,
    pub link: Link,
    replica_key: String,
    /// The peer as it was known then, and the status version.
    peer: u64,
    version: u64,
    client: Box<Client>,
}

impl Cluster {
    /// Takes a slot of a ready replica if one seems free.
    pub fn take_slot(&self, worker: &str, replica_key: &str) -> Option<Slot> {
        let mut peers = self.lock();
        let peer = peers.get_mut(worker)?;
        let replica = peer.replica(replica_key).filter(|replica| replica.state() == State::Ready)?;
        if peer.is_missing(replica_key) || peer.slots_used(replica, Instant::now()) >= replica.slots {
            return None;
        }
        let own = peer.own.entry(replica_key.to_owned()).or_default();
        own.running += 1;
        own.opened_since += 1;
        Some(Slot {
            cluster: self.clone(),
            link: Link { worker: worker.to_owned(), connection: peer.connection },
            replica_key: replica_key.to_owned(),
            peer: peer.id,
            version: peer.version,
            client: Box::new(peer.client.clone()),
        })
    }
}

impl Peer {
    pub(super) fn slots_used(&self, replica: &ReplicaStatus, now: Instant) -> u32 {
        let Some(own) = self.own.get(&replica.replica_key) else { return replica.slots_used };
        let refused = own.refused.as_ref().is_some_and(|refusal| {
            refusal.version == self.version && now.duration_since(refusal.at) < REFUSAL_LASTS
        });
        if refused {
            return replica.slots.max(replica.slots_used);
        }
        let said = replica.slots_used.saturating_add(own.opened_since);
        own.running.max(said.saturating_sub(own.closed_since))
    }

    /// Whether the worker has said, after its last status, that the replica is gone.
    pub(super) fn is_missing(&self, replica_key: &str) -> bool {
        self.own.get(replica_key).is_some_and(|own| own.missing_at == Some(self.version))
    }

    /// What we had sent is in the worker's own count from here on.
    pub(super) fn counted(&mut self) {
        self.version += 1;
        for own in self.own.values_mut() {
            own.opened_since = 0;
            own.closed_since = 0;
            own.refused = None;
        }
        self.own.retain(|_, own| own.running > 0);
    }
}

// === impl Slot ===

impl Slot {
    pub fn client(&self) -> Client {
        Client::clone(&self.client)
    }

    /// The worker answered `busy`: the picture was wrong, unless it has changed meanwhile.
    pub fn refused(self) {
        let refusal = Refusal { version: self.version, at: Instant::now() };
        self.correct(|own| own.refused = Some(refusal));
    }

    /// The worker answered `not_loaded`.
    pub fn missing(self) {
        let version = self.version;
        self.correct(|own| own.missing_at = Some(version));
    }

    fn correct(&self, change: impl FnOnce(&mut Own)) {
        self.with_peer(|peer, slot| {
            if peer.version == slot.version {
                change(peer.own.entry(slot.replica_key.clone()).or_default());
            }
        });
    }

    /// A worker that was announced anew is another peer, which has none of our slots.
    fn with_peer(&self, act: impl FnOnce(&mut Peer, &Slot)) {
        let mut peers = self.cluster.lock();
        if let Some(peer) = peers.get_mut(&self.link.worker)
            && peer.id == self.peer
        {
            act(peer, self);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.with_peer(|peer, slot| {
            let version = peer.version;
            let Some(own) = peer.own.get_mut(&slot.replica_key) else { return };
            own.running = own.running.saturating_sub(1);
            if version == slot.version {
                // Taken and given back within one status: the worker's count never had it.
                own.opened_since = own.opened_since.saturating_sub(1);
            } else {
                own.closed_since += 1;
            }
        });
        self.cluster.notify();
    }
}

//! Takes permits from the dead (contract C1): when the session that held one is gone, and its worker's port
//! refuses or another process listens there, or else when `permit_grace` has passed, after which a worker that is
//! merely cut off has unloaded by itself.
//!
//! Every process runs one. They need not agree: the deletion is conditioned on the permit and on the session still
//! being gone, so at most one succeeds, and only if it is right.

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use rand::Rng;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    error::Result,
    keys::{self, ReplicaId},
    permits::delete,
    records::{PermitRecord, WorkerRecord, decode},
    store::{Condition, MetadataStore},
    view::{ClusterView, HeldPermit},
};

/// Between two looks at a worker that neither answers as another nor refuses.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// A refusal takes a round trip. Silence is not a refusal.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// So that a hundred processes do not knock at one dead worker in the same millisecond.
const MOST_JITTER: Duration = Duration::from_millis(100);

/// A name with more addresses is not a worker's.
const MOST_ADDRESSES: usize = 8;

pub(crate) struct Reaper {
    pub store: Arc<dyn MetadataStore>,
    pub view: watch::Receiver<Arc<ClusterView>>,
    pub grace: Duration,
}

/// Permits whose session is gone.
type Suspects = BTreeMap<ReplicaId, Suspect>;

struct Suspect {
    /// Of the grant: a later permit for the same model is another one.
    revision: i64,
    record: Arc<PermitRecord>,
    since: Instant,
    look_at: Instant,
}

enum Verdict {
    Dead(&'static str),
    Unknown,
}

// === impl Reaper ===

impl Reaper {
    pub async fn run(mut self, shutdown: CancellationToken) {
        let reap = async {
            let mut suspects = Suspects::new();
            self.view.mark_changed();
            loop {
                let next = suspects.values().map(|suspect| suspect.look_at).min();
                tokio::select! {
                    changed = self.view.changed() => match changed {
                        Ok(()) => update(&mut suspects, &self.view.borrow_and_update().clone()),
                        Err(_) => return,
                    },
                    () = at(next) => self.look(&mut suspects).await,
                }
            }
        };
        shutdown.run_until_cancelled(reap).await;
    }

    /// Looks at the suspects whose time has come.
    async fn look(&self, suspects: &mut Suspects) {
        let now = Instant::now();
        for (id, suspect) in suspects.iter_mut().filter(|(_, suspect)| suspect.look_at <= now) {
            let verdict = self.judge(suspect).await;
            let grace_ends = suspect.since + self.grace;
            suspect.look_at =
                (Instant::now() + PROBE_EVERY).min(grace_ends.max(Instant::now() + MOST_JITTER));
            if let Verdict::Dead(reason) = verdict {
                match self.reclaim(id, suspect).await {
                    Ok(true) => {
                        info!(worker = id.worker, replica_key = id.replica_key, reason, "permit reclaimed")
                    }
                    Ok(false) => debug!(worker = id.worker, "permit moved, nothing to reclaim"),
                    Err(error) => warn!(%error, worker = id.worker, "permit could not be reclaimed"),
                }
            }
        }
    }

    async fn judge(&self, suspect: &Suspect) -> Verdict {
        if suspect.since.elapsed() >= self.grace {
            return Verdict::Dead("its session is gone and `permit_grace` has passed");
        }
        let view = self.view.borrow().clone();
        if view.workers.values().any(|worker| suspect.record.is_replaced_by(worker)) {
            return Verdict::Dead("its session is gone and another process has its address");
        }
        if refuses(&suspect.record.address).await {
            return Verdict::Dead("its session is gone and its port refuses");
        }
        Verdict::Unknown
    }

    /// False when the permit has changed or its session is back.
    async fn reclaim(&self, id: &ReplicaId, suspect: &Suspect) -> Result<bool> {
        let worker = keys::worker(&id.worker);
        let snapshot = self.store.range(&worker).await?;
        let item = snapshot.get(&worker);
        let record = item.and_then(|item| decode::<WorkerRecord>(&item.value).ok());
        let is_back = match (item, record) {
            (None, _) => false,
            (Some(_), Some(record)) => record.boot_id == suspect.record.boot_id,
            // Written by a newer version: nobody here can tell, so it lives.
            (Some(_), None) => true,
        };
        if is_back {
            return Ok(false);
        }
        let still_gone = Condition::unchanged(&worker, item);
        delete(&*self.store, id, suspect.revision, &[still_gone]).await
    }
}

/// Brings the list up to date with the view. Whoever is new on it is looked at almost at once.
fn update(suspects: &mut Suspects, view: &ClusterView) {
    // What a stale view shows is no evidence.
    if view.is_stale() {
        return;
    }
    let is_orphan =
        |permit: &HeldPermit| permit.record.as_ref().is_some_and(|record| !view.has_session_of(record));
    suspects.retain(|id, suspect| {
        view.permits.get(id).is_some_and(|permit| permit.revision == suspect.revision && is_orphan(permit))
    });
    let now = Instant::now();
    for (id, permit) in view.permits.iter().filter(|(_, permit)| is_orphan(permit)) {
        let Some(record) = permit.record.clone() else { continue };
        let look_at = now + rand::rng().random_range(Duration::ZERO..MOST_JITTER);
        suspects.entry(id.clone()).or_insert(Suspect {
            revision: permit.revision,
            record,
            since: now,
            look_at,
        });
    }
}

/// Whether every address of the name refuses a connection: no process listens there. An unreachable host or a name
/// that does not resolve says nothing.
async fn refuses(address: &str) -> bool {
    if address == WorkerRecord::IN_PROCESS {
        return false;
    }
    let Ok(Ok(addresses)) = timeout(PROBE_TIMEOUT, lookup_host(address)).await else { return false };
    let addresses: Vec<SocketAddr> = addresses.take(MOST_ADDRESSES).collect();
    for address in &addresses {
        match timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {}
            _ => return false,
        }
    }
    !addresses.is_empty()
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

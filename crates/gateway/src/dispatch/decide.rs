//! What the head of a line does next: `registry::placement`'s plan, made real by taking a slot.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::{Code, Error, Result};
use registry::placement::{self, Demand, Live, Plan, Reason};

use crate::cluster::Slot;
use crate::errand::Errand;

use super::{Avoided, Journey, Shared};

/// A worker that is known but cannot be reached may be back in a moment, or has just been started. After this, which
/// is a lease's time, it is either back or gone.
const WORKER_GRACE: Duration = Duration::from_secs(5);
const NO_WORKER: &str =
    "no worker is available to run the model: start one with `caravan worker`, or run `caravan serve`";

/// What a request wants to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// A slot to run in.
    Slot,
    /// That the model is loaded.
    Presence,
}

pub(super) enum Decision {
    Slot(Slot),
    /// The worker that has it loaded.
    Replica(String),
    Load,
    Wait(Reason),
}

impl Shared {
    pub(super) fn decide(&self, errand: &Errand, aim: Aim, journey: &mut Journey) -> Result<Decision> {
        let demand = self.demand(errand, &journey.avoid, journey.has_loaded);
        let live = self.live();
        if aim == Aim::Presence
            && let Some(worker) = present(&live, &demand)
        {
            return Ok(Decision::Replica(worker));
        }
        let reason = match placement::plan(&self.registry.view(), &live, &demand) {
            Plan::Use(workers) => {
                let slot =
                    workers.iter().find_map(|worker| self.cluster.take_slot(worker, errand.replica_key()));
                match slot {
                    Some(slot) => return Ok(Decision::Slot(slot)),
                    None => Reason::Busy,
                }
            }
            Plan::Load { .. } => return Ok(Decision::Load),
            Plan::Wait(reason) => reason,
        };
        self.check_hope(reason, journey)?;
        Ok(Decision::Wait(reason))
    }

    pub(super) fn demand(&self, errand: &Errand, avoid: &Avoided, has_loaded: bool) -> Demand {
        let waiting = self.admission.line_length(errand.replica_key());
        Demand {
            replica_key: errand.replica_key().to_owned(),
            size_bytes: errand.size_bytes,
            // What was loaded for this request is the most that it gets.
            context_length: if has_loaded { 0 } else { errand.context_wanted },
            waiting: waiting.max(1),
            exclude: avoid.active(&self.cluster),
        }
    }

    pub(super) fn live(&self) -> Live {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Live { now_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX), workers: self.cluster.live() }
    }

    /// Refuses to wait for what will not come.
    fn check_hope(&self, reason: Reason, journey: &mut Journey) -> Result<()> {
        match reason {
            Reason::TooLarge { needed_bytes, largest_bytes } => {
                let (needed, largest) = (gib(needed_bytes), gib(largest_bytes));
                let text = format!(
                    "model requires more system memory ({needed:.1} GiB) than is available ({largest:.1} GiB)"
                );
                Err(Error::new(Code::OutOfMemory, text))
            }
            Reason::NoWorker if self.registry.view().workers.is_empty() => Err(Error::unavailable(NO_WORKER)),
            Reason::NoWorker => {
                let since = *journey.alone_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() < WORKER_GRACE {
                    return Ok(());
                }
                Err(Error::unavailable(NO_WORKER))
            }
            Reason::Loading | Reason::Unloading | Reason::Busy => {
                journey.alone_since = None;
                Ok(())
            }
        }
    }
}

/// A worker that has it ready, whether a slot is free or not.
fn present(live: &Live, demand: &Demand) -> Option<String> {
    let found = live.workers.iter().find(|(id, worker)| {
        let replica = worker.replicas.get(&demand.replica_key);
        let is_ready = replica.is_some_and(|replica| {
            replica.state == registry::ReplicaState::Ready && replica.context_length >= demand.context_length
        });
        is_ready && !worker.is_unreachable && !demand.exclude.contains(id)
    });
    found.map(|(id, _)| id.clone())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

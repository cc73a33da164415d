//! What the head of a line does next: `registry::placement`'s plan, made real by taking a slot.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::{Error, Result};
use registry::ReplicaState;
use registry::placement::{self, Demand, Live, Plan, Reason};

use crate::cluster::Slot;
use crate::errand::Errand;

use super::{Avoided, Journey, Shared};

/// A worker that is known but cannot be reached may be back in a moment, or has just been started. After this, which
/// is a lease's time, it is either back or gone.
const WORKER_GRACE: Duration = Duration::from_secs(5);
const NO_WORKER: &str =
    "no worker is available to run the model: start one with `caravan worker`, or run `caravan serve`";

/// A replica that is ready.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub worker: String,
    pub context_length: u32,
}

/// What a look at the cluster says.
pub(super) enum Decision<T> {
    Found(T),
    Load,
    Wait(Reason),
}

impl Shared {
    /// Looks for a slot to run in, and takes it.
    pub(super) fn find_slot(&self, errand: &Errand, journey: &mut Journey) -> Result<Decision<Slot>> {
        let demand = self.demand(errand, &journey.avoid, journey.has_loaded);
        let reason = match placement::plan(&self.registry.view(), &self.live(), &demand) {
            Plan::Use(workers) => {
                let slot =
                    workers.iter().find_map(|worker| self.cluster.take_slot(worker, errand.replica_key()));
                match slot {
                    Some(slot) => return Ok(Decision::Found(slot)),
                    None => Reason::Busy,
                }
            }
            Plan::Load { .. } => return Ok(Decision::Load),
            Plan::Wait(reason) => reason,
        };
        self.check_hope(reason, journey)?;
        Ok(Decision::Wait(reason))
    }

    /// Looks for a replica, busy or not.
    pub(super) fn find_present(&self, errand: &Errand, journey: &mut Journey) -> Result<Decision<Present>> {
        let demand = self.demand(errand, &journey.avoid, journey.has_loaded);
        let live = self.live();
        let plan = placement::plan(&self.registry.view(), &live, &demand);
        let here = |id: &String| {
            let replica = live.workers.get(id)?.replicas.get(&demand.replica_key)?;
            Some(Present { worker: id.clone(), context_length: replica.context_length })
        };
        let found = match &plan {
            // Placement knows how much context the model can have at most.
            Plan::Use(workers) => workers.iter().find_map(here),
            _ => live.workers.keys().filter(|id| is_present(&live, &demand, id)).find_map(here),
        };
        match (found, plan) {
            (Some(present), _) => Ok(Decision::Found(present)),
            (None, Plan::Load { .. }) => Ok(Decision::Load),
            // The records are ahead of the worker's status.
            (None, Plan::Use(_)) => Ok(Decision::Wait(Reason::Loading)),
            (None, Plan::Wait(reason)) => {
                self.check_hope(reason, journey)?;
                Ok(Decision::Wait(reason))
            }
        }
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
                Err(Error::out_of_memory(needed_bytes, largest_bytes))
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

/// Whether a worker has it ready, be a slot free or not.
fn is_present(live: &Live, demand: &Demand, id: &String) -> bool {
    let Some(worker) = live.workers.get(id) else { return false };
    let replica = worker.replicas.get(&demand.replica_key);
    let is_ready = replica.is_some_and(|replica| {
        replica.state == ReplicaState::Ready && replica.context_length >= demand.context_length
    });
    is_ready && !worker.is_unreachable && !demand.exclude.contains(id)
}

//! What the head of a line does next: `registry::placement`'s plan, made real by taking a slot.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::{Error, Result};
use registry::placement::{self, Context, Demand, Live, Plan, Reason};

use crate::cluster::Slot;
use crate::errand::Errand;

use super::{Journey, Shared, Standing};

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

impl<T> Decision<T> {
    /// Whether a place must be found to load the model at.
    pub(super) fn wants_place(&self) -> bool {
        matches!(self, Decision::Load | Decision::Wait(Reason::NoRoom | Reason::Unloading))
    }
}

impl Shared {
    /// Looks for a slot to run in, and takes it.
    pub(super) fn find_slot(&self, errand: &Errand, journey: &mut Journey) -> Result<Decision<Slot>> {
        let demand = self.demand(errand, &journey.standing);
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
        tracing::debug!(%reason, "request waits");
        self.check_hope(reason, journey)?;
        Ok(Decision::Wait(reason))
    }

    /// Looks for a replica, busy or not.
    pub(super) fn find_present(&self, errand: &Errand, journey: &mut Journey) -> Result<Decision<Present>> {
        let demand = self.demand(errand, &journey.standing);
        let (view, live) = (self.registry.view(), self.live());
        let here = |id: String| {
            let replica = live.workers.get(&id)?.replicas.get(&demand.replica_key)?;
            Some(Present { context_length: replica.context_length, worker: id })
        };
        if let Some(present) = placement::ready(&view, &live, &demand).into_iter().find_map(here) {
            return Ok(Decision::Found(present));
        }
        match placement::plan(&view, &live, &demand) {
            Plan::Load { .. } => Ok(Decision::Load),
            // The records are ahead of the worker's status.
            Plan::Use(_) => Ok(Decision::Wait(Reason::Loading)),
            Plan::Wait(reason) => {
                self.check_hope(reason, journey)?;
                Ok(Decision::Wait(reason))
            }
        }
    }

    pub(super) fn demand(&self, errand: &Errand, standing: &Standing) -> Demand {
        let waiting = self.admission.line_length(errand.replica_key());
        Demand {
            replica_key: errand.replica_key().to_owned(),
            size_bytes: errand.size_bytes,
            // What was loaded for this request is the most that it gets.
            context: if standing.has_loaded { Context::Any } else { errand.context },
            waiting: waiting.max(1),
            is_overdue: standing.is_overdue,
            spare: standing.elders.clone(),
            exclude: standing.avoid.active(&self.cluster),
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
            Reason::Loading | Reason::Unloading | Reason::Busy | Reason::NoRoom => {
                journey.alone_since = None;
                Ok(())
            }
        }
    }
}

//! Where a request should go: a pure function of the cluster's view, the live state of its workers, and the demand.
//!
//! Every gateway that sees the same computes the same, so two of them load a model on the same worker and evict
//! the same victim. Nothing is sent from here, and nothing is remembered.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use crate::{keys::ReplicaId, records::ReplicaState, view::ClusterView};

mod scene;
#[cfg(test)]
mod tests;
mod victims;

use scene::{Candidate, Place, Scene};

/// What requests ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub replica_key: String,
    /// What the model takes in memory; 0 = not known, fits everywhere.
    pub size_bytes: u64,
    pub context: Context,
    /// How many requests wait for this model now, this one included. Decides whether another replica is worth it.
    pub waiting: u32,
    /// It has waited so long that busy replicas make room, too: they finish what they run and take nothing new.
    pub is_overdue: bool,
    /// Models that others have waited for longer: no replica of theirs makes room for this request.
    pub spare: Vec<String>,
    /// Workers that this request has failed on.
    pub exclude: Vec<String>,
}

/// Positions that a slot must have. A replica with more serves it too (C6), and so does one that has all that its model
/// can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Context {
    /// As it comes.
    #[default]
    Any,
    /// What its worker gives when nobody names a number.
    Usual,
    AtLeast(u32),
}

/// What the gateway knows of the workers beyond the view, from their status streams.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Unix nanoseconds.
    pub now_ns: i64,
    /// By id. A worker that is not here is judged by its records alone.
    pub workers: BTreeMap<String, LiveWorker>,
}

/// What a worker says of itself right now. It wins over the records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveWorker {
    /// The gateway cannot reach it: nothing is sent there, whatever the view says.
    pub is_unreachable: bool,
    pub draining: bool,
    /// What models may still take; `None` = the total less what is loaded.
    pub memory_free_bytes: Option<u64>,
    /// By replica key, all that it has.
    pub replicas: BTreeMap<String, LiveReplica>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveReplica {
    pub state: ReplicaState,
    pub slots: u32,
    pub slots_used: u32,
    pub context_length: u32,
    pub size_bytes: u64,
    /// Unix nanoseconds of the last request.
    pub last_used_ns: i64,
    /// Unix nanoseconds; `i64::MAX` = never.
    pub expires_at_ns: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// These workers have it and a free slot; the best comes first.
    Use(Vec<String>),
    /// Load it there, after these replicas are gone.
    Load {
        worker: String,
        evict: Vec<ReplicaId>,
    },
    Wait(Reason),
}

/// What a waiting request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No worker that would take it.
    NoWorker,
    /// It is being loaded.
    Loading,
    /// Another replica is on its way out and makes room.
    Unloading,
    /// Every replica that could serve it is busy.
    Busy,
    /// Every replica that could make room for it is busy.
    NoRoom,
    /// No worker is large enough, ever. Waiting is in vain unless a larger one joins.
    TooLarge { needed_bytes: u64, largest_bytes: u64 },
}

/// Another replica of a model that is loaded already is worth a load when as many requests wait as the loaded ones
/// can run at once: otherwise a slot is free sooner than the load is done.
fn is_worth_another(demand: &Demand, slots: u32) -> bool {
    demand.waiting >= slots.max(1)
}

/// The workers that have a replica which could serve the demand, busy or not.
pub fn ready(view: &ClusterView, live: &Live, demand: &Demand) -> Vec<String> {
    Scene::new(view, live, demand).ready().into_iter().map(|ready| ready.worker.to_owned()).collect()
}

/// Which idle replicas should go now, without anybody asking for their place: more are loaded than the limit allows,
/// since it was lowered or a worker has died. Those that are missed least; what is busy goes later.
pub fn surplus(view: &ClusterView, live: &Live) -> Vec<ReplicaId> {
    let demand = Demand::default();
    let scene = Scene::new(view, live, &demand);
    let idle = victims::candidates(&scene).into_iter().filter(|occupant| occupant.has_permit);
    idle.take(scene.surplus()).map(|occupant| ReplicaId::new(occupant.worker, occupant.replica_key)).collect()
}

/// What to do for `demand`. The order of preference: a free slot, a load that is under way, an empty place, an idle
/// replica's place, and when it is overdue a busy one's.
pub fn plan(view: &ClusterView, live: &Live, demand: &Demand) -> Plan {
    let scene = Scene::new(view, live, demand);
    let ready = scene.ready();
    let free = free_slots_first(&scene, &ready);
    if !free.is_empty() {
        return Plan::Use(free);
    }
    if scene.is_loading() {
        return Plan::Wait(Reason::Loading);
    }
    let slots = ready.iter().map(|candidate| candidate.replica.slots).sum();
    if !ready.is_empty() {
        // A second replica never costs another model its place.
        let another = is_worth_another(demand, slots).then(|| load_without_evicting(&scene)).flatten();
        return another.unwrap_or(Plan::Wait(Reason::Busy));
    }
    load(&scene)
}

/// Most free slots first; among equals the worker that does the least else.
fn free_slots_first(scene: &Scene, ready: &[Candidate]) -> Vec<String> {
    let mut free: Vec<&Candidate> =
        ready.iter().filter(|ready| ready.replica.slots_used < ready.replica.slots).collect();
    free.sort_by_cached_key(|ready| {
        let free = ready.replica.slots - ready.replica.slots_used;
        (Reverse(free), scene.busy_slots(ready.worker), ready.worker)
    });
    free.into_iter().map(|ready| ready.worker.to_owned()).collect()
}

fn load_without_evicting(scene: &Scene) -> Option<Plan> {
    if scene.permits_to_free() > 0 {
        return None;
    }
    let has_room =
        |place: &Place| place.too_small.is_none() && place.memory_missing(scene.demand.size_bytes) == 0;
    let fitting = scene.places().filter(has_room);
    let best = fitting.min_by_key(|place| place.rank())?;
    Some(Plan::Load { worker: best.id.to_owned(), evict: Vec::new() })
}

/// Finds the place whose victims are missed the least.
fn load(scene: &Scene) -> Plan {
    let candidates = victims::candidates(scene);
    let options = scene.places().filter_map(|place| {
        let chosen = victims::choose(scene, &candidates, &place)?;
        let worst = chosen.iter().map(|occupant| victims::rank(occupant, scene.now_ns())).max();
        Some(((worst, chosen.len(), place.rank()), place.id, chosen))
    });
    match options.min_by(|(a, ..), (b, ..)| a.cmp(b)) {
        Some((_, worker, chosen)) => {
            let evict =
                chosen.iter().map(|occupant| ReplicaId::new(occupant.worker, occupant.replica_key)).collect();
            Plan::Load { worker: worker.to_owned(), evict }
        }
        None => Plan::Wait(why_not(scene)),
    }
}

fn why_not(scene: &Scene) -> Reason {
    let needed_bytes = scene.demand.size_bytes;
    match scene.largest_bytes() {
        None => Reason::NoWorker,
        Some(largest_bytes) if largest_bytes < needed_bytes => {
            Reason::TooLarge { needed_bytes, largest_bytes }
        }
        Some(_) if scene.is_unloading() => Reason::Unloading,
        Some(_) => Reason::NoRoom,
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoWorker => f.write_str("no worker is available"),
            Reason::Loading => f.write_str("the model is being loaded"),
            Reason::Unloading => f.write_str("another model is being unloaded"),
            Reason::Busy => f.write_str("every replica is busy"),
            Reason::NoRoom => f.write_str("every other model that could make room is busy"),
            Reason::TooLarge { needed_bytes, largest_bytes } => {
                write!(
                    f,
                    "the model needs {needed_bytes} bytes of memory, the largest worker has {largest_bytes}"
                )
            }
        }
    }
}

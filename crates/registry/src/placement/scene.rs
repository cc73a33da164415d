//! View and live state put together: every replica once, as the best informed source knows it.

use std::{
    cell::OnceCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{Context, Demand, Live, LiveReplica, LiveWorker};
use crate::{
    keys::ReplicaId,
    records::{ReplicaState, WorkerRecord},
    view::ClusterView,
};

pub(super) struct Scene<'a> {
    pub demand: &'a Demand,
    view: &'a ClusterView,
    live: &'a Live,
    /// Of the demanded model, by worker. Made only when there is no free slot.
    own: OnceCell<BTreeMap<&'a str, Occupant<'a>>>,
    /// Of every model, by worker. Made only when there is something to load.
    all: OnceCell<BTreeMap<&'a str, Vec<Occupant<'a>>>>,
}

/// A replica that could serve the demand, busy or not.
pub(super) struct Candidate<'a> {
    pub worker: &'a str,
    pub replica: LiveReplica,
}

/// One replica, or the permit for one.
#[derive(Clone, Debug)]
pub(super) struct Occupant<'a> {
    pub worker: &'a str,
    pub replica_key: &'a str,
    pub replica: LiveReplica,
    /// False for a moment, when the worker's status is ahead of the view.
    pub has_permit: bool,
    /// Whether the worker itself says how busy it is.
    pub is_live: bool,
}

/// A worker on which the demanded model could be loaded.
pub(super) struct Place<'a> {
    pub id: &'a str,
    record: &'a WorkerRecord,
    /// What its replicas take, those included that are on their way in or out.
    memory_taken: u64,
    memory_reported_free: Option<u64>,
    replicas: usize,
    /// The demanded model with too small a context, which would have to go first.
    pub too_small: Option<&'a Occupant<'a>>,
}

/// Smaller is better: with a GPU, then with few replicas, then with much free memory.
pub(super) type PlaceRank<'a> = (bool, usize, Reverse<u64>, &'a str);

// === impl Scene ===

impl<'a> Scene<'a> {
    pub fn new(view: &'a ClusterView, live: &'a Live, demand: &'a Demand) -> Scene<'a> {
        Scene { demand, view, live, own: OnceCell::new(), all: OnceCell::new() }
    }

    /// Every request comes through here, so it looks at each worker once and at nothing else.
    pub fn ready(&self) -> Vec<Candidate<'a>> {
        let key = &self.demand.replica_key;
        let usable = self.view.workers.keys().filter(|id| self.is_usable(id));
        let candidates = usable.filter_map(|worker| {
            let replica = match self.live.workers.get(worker) {
                Some(live) => *live.replicas.get(key)?,
                None => self.recorded(&ReplicaId::new(worker, key), false)?,
            };
            Some(Candidate { worker, replica })
        });
        let is_ready = |candidate: &Candidate| {
            candidate.replica.state == ReplicaState::Ready
                && self.is_enough(candidate.worker, &candidate.replica)
        };
        candidates.filter(is_ready).collect()
    }

    pub fn is_loading(&self) -> bool {
        let mut own = self.own().values();
        own.any(|occupant| occupant.replica.state == ReplicaState::Loading && self.is_usable(occupant.worker))
    }

    pub fn is_unloading(&self) -> bool {
        self.occupants().any(|occupant| occupant.replica.state == ReplicaState::Unloading)
    }

    /// Slots in use on a worker, over all its replicas.
    pub fn busy_slots(&self, worker: &str) -> u32 {
        let live = self.live.workers.get(worker);
        live.map_or(0, |live| live.replicas.values().map(|replica| replica.slots_used).sum())
    }

    /// How many permits must come back before one more can be granted.
    pub fn permits_to_free(&self) -> usize {
        (self.view.permits.len() + 1).saturating_sub(self.view.max_loaded_models() as usize)
    }

    /// By how many the permits exceed the limit, those not counted that are on their way back.
    pub fn surplus(&self) -> usize {
        let bare = self.occupants().filter(|occupant| self.is_bare(occupant)).count();
        let held = self.view.permits.len() - self.permits_leaving() - bare;
        held.saturating_sub(self.view.max_loaded_models() as usize)
    }

    /// A permit alone, without a record and unknown to the worker that holds it: on its way in, or on its way back
    /// behind a replica that is gone. Who counted it might end one replica too many.
    fn is_bare(&self, occupant: &Occupant<'_>) -> bool {
        let Occupant { worker, replica_key, has_permit, is_live, .. } = occupant;
        let lists = |live: &LiveWorker| live.replicas.contains_key(*replica_key);
        let is_listed = self.live.workers.get(*worker).is_some_and(lists);
        *has_permit && *is_live && !is_listed && self.view.replica(worker, replica_key).is_none()
    }

    /// How many of them are on their way back already.
    pub fn permits_leaving(&self) -> usize {
        self.occupants()
            .filter(|occupant| occupant.has_permit && occupant.replica.state == ReplicaState::Unloading)
            .count()
    }

    /// Of every replica on every worker, in the order of workers and replica keys.
    pub fn occupants(&self) -> impl Iterator<Item = &Occupant<'a>> {
        self.by_worker().values().flatten()
    }

    pub fn occupants_of(&self, worker: &str) -> &[Occupant<'a>] {
        self.by_worker().get(worker).map_or(&[], Vec::as_slice)
    }

    /// Where the demanded model could be loaded, if not at once.
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let usable = self.view.workers.iter().filter(|(id, _)| self.is_usable(id));
        usable.filter_map(|(id, record)| self.place(id, record))
    }

    /// The memory of the largest worker that would take the model; `None` when there is no such worker.
    pub fn largest_bytes(&self) -> Option<u64> {
        let usable = self.view.workers.iter().filter(|(id, _)| self.is_usable(id));
        usable.map(|(_, record)| memory_total(record)).max()
    }

    pub fn now_ns(&self) -> i64 {
        self.live.now_ns
    }

    /// Whether the worker can be told to unload something.
    pub fn is_reachable(&self, worker: &str) -> bool {
        self.live.workers.get(worker).is_none_or(|live| !live.is_unreachable)
    }

    fn is_usable(&self, worker: &str) -> bool {
        let drains = |record: &WorkerRecord| record.draining;
        let is_draining = self.view.workers.get(worker).is_none_or(|record| drains(record))
            || self.live.workers.get(worker).is_some_and(|live| live.draining);
        !is_draining && self.is_reachable(worker) && !self.demand.exclude.iter().any(|id| id == worker)
    }

    /// Whether a slot has the positions that are asked for, or all that the model can have.
    pub fn is_enough(&self, worker: &str, replica: &LiveReplica) -> bool {
        let wanted = match self.demand.context {
            Context::Any => 0,
            Context::Usual => self.view.workers.get(worker).map_or(0, |record| record.context_length),
            Context::AtLeast(wanted) => wanted,
        };
        if replica.context_length >= wanted {
            return true;
        }
        let record = self.view.replica(worker, &self.demand.replica_key);
        record.is_some_and(|record| (1..=replica.context_length).contains(&record.train_context_length))
    }

    fn own(&self) -> &BTreeMap<&'a str, Occupant<'a>> {
        self.own.get_or_init(|| {
            let workers = self.view.workers.keys().map(String::as_str);
            workers.filter_map(|id| Some((id, self.occupant(id, &self.demand.replica_key)?))).collect()
        })
    }

    fn place<'s>(&'s self, id: &'s str, record: &'s WorkerRecord) -> Option<Place<'s>> {
        let own = self.own().get(id);
        let too_small = own.filter(|occupant| {
            occupant.replica.state == ReplicaState::Ready
                && !self.is_enough(occupant.worker, &occupant.replica)
        });
        if own.is_some() != too_small.is_some() {
            return None;
        }
        let occupants = self.occupants_of(id);
        Some(Place {
            id,
            record,
            memory_taken: occupants.iter().map(|occupant| occupant.replica.size_bytes).sum(),
            memory_reported_free: self.live.workers.get(id).and_then(|live| live.memory_free_bytes),
            replicas: occupants.len(),
            too_small,
        })
    }

    fn by_worker(&self) -> &BTreeMap<&'a str, Vec<Occupant<'a>>> {
        self.all.get_or_init(|| {
            let records = self.view.replicas.keys().chain(self.view.permits.keys());
            let records = records.map(|id| (id.worker.as_str(), id.replica_key.as_str()));
            let live = self.live.workers.iter();
            let live =
                live.flat_map(|(id, live)| live.replicas.keys().map(|key| (id.as_str(), key.as_str())));
            let ids: BTreeSet<(&str, &str)> = records.chain(live).collect();
            let mut all: BTreeMap<&str, Vec<Occupant>> = BTreeMap::new();
            for (worker, replica_key) in ids {
                all.entry(worker).or_default().extend(self.occupant(worker, replica_key));
            }
            all
        })
    }

    /// `None` when there is no such replica, and when its worker is gone: what a dead worker's permit holds is not
    /// ours to use or to evict.
    fn occupant(&self, worker: &'a str, replica_key: &'a str) -> Option<Occupant<'a>> {
        self.view.workers.get(worker)?;
        let id = ReplicaId::new(worker, replica_key);
        let has_permit = self.view.permits.contains_key(&id);
        let live = self.live.workers.get(worker).filter(|live| !live.is_unreachable);
        let replica = match live {
            Some(live) => self.reported(live, &id, has_permit),
            None => self.recorded(&id, has_permit),
        };
        Some(Occupant { worker, replica_key, replica: replica?, has_permit, is_live: live.is_some() })
    }

    fn reported(&self, live: &LiveWorker, id: &ReplicaId, has_permit: bool) -> Option<LiveReplica> {
        if let Some(replica) = live.replicas.get(&id.replica_key) {
            return Some(*replica);
        }
        // The worker does not list it, yet it has a permit: the load has just begun, or the unloading just ended.
        let recorded = self.recorded(id, has_permit).filter(|_| has_permit)?;
        let state = match recorded.state {
            ReplicaState::Loading => ReplicaState::Loading,
            _ => ReplicaState::Unloading,
        };
        Some(LiveReplica { state, ..recorded })
    }

    fn recorded(&self, id: &ReplicaId, has_permit: bool) -> Option<LiveReplica> {
        let Some(record) = self.view.replicas.get(id) else {
            // The permit comes before the first record.
            return has_permit.then(LiveReplica::default);
        };
        Some(LiveReplica {
            state: record.state,
            slots: record.slots,
            context_length: record.context_length,
            size_bytes: record.size_bytes,
            ..LiveReplica::default()
        })
    }
}

// === impl Place ===

impl<'a> Place<'a> {
    pub fn rank(&self) -> PlaceRank<'a> {
        let has_gpu = self.record.devices.iter().any(|device| device.kind != "cpu");
        let left = memory_total(self.record).saturating_sub(self.memory_taken);
        let free = self.memory_reported_free.map_or(left, |reported| reported.min(left));
        (!has_gpu, self.replicas, Reverse(free), self.id)
    }

    /// By how much the model does not fit yet: the worse of what the worker reports and of what the sum says. A
    /// load that has just begun is not in the report, and other programs are not in the sum.
    pub fn memory_missing(&self, size_bytes: u64) -> u64 {
        if size_bytes == 0 {
            return 0;
        }
        let all = self.memory_taken.saturating_add(size_bytes);
        let by_sum = all.saturating_sub(memory_total(self.record));
        let by_report = self.memory_reported_free.map_or(0, |free| size_bytes.saturating_sub(free));
        by_sum.max(by_report)
    }
}

/// `u64::MAX` when the worker does not say.
fn memory_total(record: &WorkerRecord) -> u64 {
    match record.memory_bytes {
        0 => u64::MAX,
        bytes => bytes,
    }
}

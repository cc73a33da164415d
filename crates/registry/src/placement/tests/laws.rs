//! What holds for every plan, whatever the cluster.

use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngSeed, TestRunner},
};

use super::*;

const WORKERS: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: [&str; 5] = ["m", "v", "x", "y", "z"];

fn any_replica() -> impl Strategy<Value = LiveReplica> {
    let state = prop_oneof![
        4 => Just(ReplicaState::Ready),
        1 => Just(ReplicaState::Loading),
        1 => Just(ReplicaState::Unloading),
        1 => Just(ReplicaState::Unknown),
    ];
    let expires = prop_oneof![Just(i64::MAX), (-5..300_i64).prop_map(|seconds| NOW_NS + seconds * SECOND_NS)];
    (state, 1..5_u32, 0..6_u32, 0..8_u64, 0..100_i64, expires, prop_oneof![Just(2048), Just(8192)]).prop_map(
        |(state, slots, used, gib, seconds, expires_at_ns, context_length)| LiveReplica {
            state,
            slots,
            slots_used: used.saturating_sub(2).min(slots),
            context_length,
            size_bytes: gib * GIB,
            last_used_ns: NOW_NS - seconds * SECOND_NS,
            expires_at_ns,
        },
    )
}

/// Everybody is live; some drain, some are out of reach, some permits have no replica yet or no worker any more.
fn any_cluster() -> impl Strategy<Value = Cluster> {
    let place = (0..WORKERS.len(), 0..KEYS.len());
    let workers = vec((0..40_u64, 0..10_u8), 0..=WORKERS.len());
    let replicas = vec((place.clone(), any_replica()), 0..10);
    let permits = vec(place, 0..3);
    (0..8_u32, workers, replicas, permits).prop_map(|(limit, workers, replicas, permits)| {
        let mut cluster = Cluster::new(limit);
        for (id, (gib, fate)) in WORKERS.iter().zip(&workers) {
            cluster = cluster.worker(id).change_worker(id, |worker| {
                worker.memory_bytes = gib * GIB;
                worker.devices = vec![Device::default()];
                worker.draining = *fate == 0;
            });
            cluster = cluster.change_live(id, |live| live.is_unreachable = *fate == 1);
        }
        for ((worker, key), replica) in replicas {
            if worker < workers.len() {
                cluster = cluster.replica(WORKERS[worker], KEYS[key], replica);
            }
        }
        permits.into_iter().fold(cluster, |cluster, (worker, key)| cluster.permit(WORKERS[worker], KEYS[key]))
    })
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let exclude = vec(0..WORKERS.len(), 0..2);
    let context = prop_oneof![Just(0), Just(2048), Just(4096), Just(9000)];
    (0..20_u64, context, 1..10_u32, any::<bool>(), exclude).prop_map(
        |(gib, context, waiting, is_overdue, exclude)| Demand {
            replica_key: "m".into(),
            size_bytes: gib * GIB,
            context: if context == 0 { Context::Any } else { Context::AtLeast(context) },
            waiting,
            is_overdue,
            spare: Vec::new(),
            exclude: exclude.into_iter().map(|worker| WORKERS[worker].to_owned()).collect(),
        },
    )
}

fn least(context: Context) -> u32 {
    match context {
        Context::AtLeast(least) => least,
        Context::Any | Context::Usual => 0,
    }
}

impl Cluster {
    fn live_replica(&self, worker: &str, key: &str) -> Option<&LiveReplica> {
        self.live.workers.get(worker)?.replicas.get(key)
    }

    fn is_usable(&self, worker: &str, demand: &Demand) -> bool {
        let drains = self.view.workers[worker].draining;
        !drains && !self.live.workers[worker].is_unreachable && !demand.exclude.iter().any(|id| id == worker)
    }

    /// Permits of replicas on their way out: unloading, or gone from their worker's own list after they were ready.
    fn leaving(&self) -> usize {
        let leaves = |id: &&ReplicaId| {
            let Some(live) = self.live.workers.get(&id.worker) else { return false };
            let record = self.view.replicas.get(*id);
            let reported = if live.is_unreachable { None } else { Some(live.replicas.get(&id.replica_key)) };
            match reported {
                Some(Some(replica)) => replica.state == ReplicaState::Unloading,
                Some(None) => record.is_some_and(|record| record.state != ReplicaState::Loading),
                None => record.is_some_and(|record| record.state == ReplicaState::Unloading),
            }
        };
        self.view.permits.keys().filter(leaves).count()
    }

    /// The cluster after the plan was carried out.
    fn after(mut self, worker: &str, evict: &[ReplicaId], demand: &Demand) -> Cluster {
        for id in evict {
            Arc::make_mut(&mut self.view.permits).remove(id);
            Arc::make_mut(&mut self.view.replicas).remove(id);
            self.live.workers.get_mut(&id.worker).unwrap().replicas.remove(&id.replica_key);
        }
        let loaded = LiveReplica {
            context_length: least(demand.context).max(1),
            size_bytes: demand.size_bytes,
            ..idle()
        };
        self.replica(worker, &demand.replica_key, loaded)
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 3_000,
        rng_seed: RngSeed::Fixed(41),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn the_clusters_lead_to_every_kind_of_plan() {
    let mut runner = TestRunner::new(config());
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..3_000 {
        let (cluster, demand) = (any_cluster(), any_demand()).new_tree(&mut runner).unwrap().current();
        let kind = match cluster.plan(&demand) {
            Plan::Use(_) => "use",
            Plan::Load { evict, .. } if evict.is_empty() => "load",
            Plan::Load { .. } => "evict and load",
            Plan::Wait(Reason::NoWorker) => "no worker",
            Plan::Wait(Reason::Loading) => "loading",
            Plan::Wait(Reason::Unloading) => "unloading",
            Plan::Wait(Reason::Busy) => "busy",
            Plan::Wait(Reason::NoRoom) => "no room",
            Plan::Wait(Reason::TooLarge { .. }) => "too large",
        };
        *seen.entry(kind).or_default() += 1;
    }
    assert!(seen.len() == 9 && seen.values().all(|&count| count >= 30), "{seen:?}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_same_picture_gives_the_same_plan(cluster in any_cluster(), demand in any_demand()) {
        prop_assert_eq!(cluster.plan(&demand), cluster.clone().plan(&demand.clone()));
    }

    #[test]
    fn only_a_free_slot_is_used(cluster in any_cluster(), demand in any_demand()) {
        let Plan::Use(workers) = cluster.plan(&demand) else { return Ok(()) };
        prop_assert!(!workers.is_empty());
        let mut last = u32::MAX;
        for worker in &workers {
            prop_assert!(cluster.is_usable(worker, &demand));
            let replica = cluster.live_replica(worker, "m").unwrap();
            prop_assert!(replica.state == ReplicaState::Ready && replica.slots_used < replica.slots);
            prop_assert!(replica.context_length >= least(demand.context));
            let free = replica.slots - replica.slots_used;
            prop_assert!(free <= last);
            last = free;
        }
    }

    #[test]
    fn a_load_never_exceeds_the_limit(cluster in any_cluster(), demand in any_demand()) {
        let Plan::Load { evict, .. } = cluster.plan(&demand) else { return Ok(()) };
        let freed = evict.iter().filter(|id| cluster.view.permits.contains_key(id)).count();
        let held = cluster.view.permits.len() - freed - cluster.leaving();
        prop_assert!(held < cluster.view.max_loaded_models() as usize, "{} held, {} freed", held, freed);
    }

    #[test]
    fn only_who_is_overdue_evicts_busy_replicas_and_each_once(cluster in any_cluster(), demand in any_demand()) {
        let Plan::Load { evict, .. } = cluster.plan(&demand) else { return Ok(()) };
        for (i, id) in evict.iter().enumerate() {
            prop_assert!(!evict[..i].contains(id));
            prop_assert!(!cluster.live.workers[&id.worker].is_unreachable);
            let replica = cluster.live_replica(&id.worker, &id.replica_key).unwrap();
            prop_assert!(replica.state == ReplicaState::Ready && (replica.slots_used == 0 || demand.is_overdue));
        }
    }

    #[test]
    fn a_load_fits_where_it_goes(cluster in any_cluster(), demand in any_demand()) {
        let Plan::Load { worker, evict } = cluster.plan(&demand) else { return Ok(()) };
        prop_assert!(cluster.is_usable(&worker, &demand));
        let total = cluster.view.workers[&worker].memory_bytes;
        let stays = |key: &str, replica: &LiveReplica| {
            replica.state != ReplicaState::Unloading && !evict.contains(&ReplicaId::new(&worker, key))
        };
        let replicas = &cluster.live.workers[&worker].replicas;
        let taken: u64 =
            replicas.iter().filter(|(key, replica)| stays(key, replica)).map(|(_, replica)| replica.size_bytes).sum();
        prop_assert!(total == 0 || demand.size_bytes == 0 || taken + demand.size_bytes <= total);
        // Never twice on one worker.
        prop_assert!(replicas.get("m").is_none_or(|replica| !stays("m", replica)));
    }

    #[test]
    fn after_a_load_the_model_is_used_there(cluster in any_cluster(), demand in any_demand()) {
        let Plan::Load { worker, evict } = cluster.plan(&demand) else { return Ok(()) };
        let after = cluster.after(&worker, &evict, &demand);
        let Plan::Use(workers) = after.plan(&demand) else { panic!("{:?}", after.plan(&demand)) };
        prop_assert!(workers.contains(&worker));
    }

    #[test]
    fn whoever_is_missed_least_goes_first(cluster in any_cluster(), demand in any_demand()) {
        // Without a size only permits count, and then everybody in the cluster may be asked to go.
        let demand = Demand { size_bytes: 0, context: Context::Any, is_overdue: false, ..demand };
        let Plan::Load { evict, .. } = cluster.plan(&demand) else { return Ok(()) };
        let expired = |id: &ReplicaId| {
            let replica = cluster.live_replica(&id.worker, &id.replica_key).unwrap();
            (replica.expires_at_ns > NOW_NS, replica.last_used_ns > NOW_NS - 2 * SECOND_NS)
        };
        let worst = evict.iter().map(expired).max();
        for (worker, live) in cluster.live.workers.iter().filter(|(_, live)| !live.is_unreachable) {
            for (key, replica) in &live.replicas {
                let id = ReplicaId::new(worker, key);
                let is_idle = replica.state == ReplicaState::Ready && replica.slots_used == 0;
                if is_idle && !evict.contains(&id) {
                    prop_assert!(worst.is_none_or(|worst| worst <= expired(&id)), "{:?} was spared", id);
                }
            }
        }
    }
}

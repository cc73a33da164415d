//! Placement, case by case. What holds for every cluster is in `laws`.

use std::{collections::BTreeMap, sync::Arc};

use super::{Context, Demand, Live, LiveReplica, LiveWorker, Plan, Reason, plan, surplus};
use crate::{
    keys::ReplicaId,
    limits::{Limits, LimitsRecord},
    records::{Device, ReplicaRecord, ReplicaState, WorkerRecord},
    view::{ClusterView, HeldPermit},
};

mod laws;

const NOW_NS: i64 = 1_000_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;
const GIB: u64 = 1 << 30;

/// A cluster in which every gateway knows everything, unless a test says otherwise.
#[derive(Clone, Debug)]
struct Cluster {
    view: ClusterView,
    live: Live,
}

impl Cluster {
    fn new(max_loaded_models: u32) -> Cluster {
        let environment = Limits { max_loaded_models, ..Limits::default() };
        let limits = Arc::new(LimitsRecord { environment, ..LimitsRecord::default() });
        let live = Live { now_ns: NOW_NS, workers: BTreeMap::new() };
        Cluster { view: ClusterView { limits, ..ClusterView::default() }, live }
    }

    fn worker(mut self, id: &str) -> Cluster {
        let record = WorkerRecord { id: id.into(), memory_bytes: 16 * GIB, ..WorkerRecord::default() };
        Arc::make_mut(&mut self.view.workers).insert(id.into(), Arc::new(record));
        self.live.workers.insert(id.into(), LiveWorker::default());
        self
    }

    fn change_worker(mut self, id: &str, edit: impl FnOnce(&mut WorkerRecord)) -> Cluster {
        let workers = Arc::make_mut(&mut self.view.workers);
        edit(Arc::make_mut(workers.get_mut(id).unwrap()));
        self
    }

    fn change_live(mut self, id: &str, edit: impl FnOnce(&mut LiveWorker)) -> Cluster {
        edit(self.live.workers.get_mut(id).unwrap());
        self
    }

    /// A loaded model: permit, record and live state.
    fn replica(mut self, worker: &str, key: &str, replica: LiveReplica) -> Cluster {
        let id = ReplicaId::new(worker, key);
        let record = ReplicaRecord {
            worker: worker.into(),
            replica_key: key.into(),
            state: replica.state,
            slots: replica.slots,
            context_length: replica.context_length,
            size_bytes: replica.size_bytes,
            ..ReplicaRecord::default()
        };
        Arc::make_mut(&mut self.view.replicas).insert(id, Arc::new(record));
        self.live.workers.get_mut(worker).unwrap().replicas.insert(key.into(), replica);
        self.permit(worker, key)
    }

    fn permit(mut self, worker: &str, key: &str) -> Cluster {
        let permit = HeldPermit { revision: 1, record: None };
        Arc::make_mut(&mut self.view.permits).insert(ReplicaId::new(worker, key), permit);
        self
    }

    fn plan(&self, demand: &Demand) -> Plan {
        plan(&self.view, &self.live, demand)
    }
}

/// Ready, idle, with four slots, last used a minute ago, with four minutes left.
fn idle() -> LiveReplica {
    LiveReplica {
        state: ReplicaState::Ready,
        slots: 4,
        slots_used: 0,
        context_length: 4096,
        size_bytes: GIB,
        last_used_ns: NOW_NS - 60 * SECOND_NS,
        expires_at_ns: NOW_NS + 240 * SECOND_NS,
    }
}

fn busy(slots_used: u32) -> LiveReplica {
    LiveReplica { slots_used, ..idle() }
}

fn used_before(seconds: i64) -> LiveReplica {
    LiveReplica { last_used_ns: NOW_NS - seconds * SECOND_NS, ..idle() }
}

fn in_state(state: ReplicaState) -> LiveReplica {
    LiveReplica { state, ..idle() }
}

fn demand(key: &str) -> Demand {
    Demand { replica_key: key.into(), waiting: 1, size_bytes: GIB, ..Demand::default() }
}

fn load(worker: &str) -> Plan {
    Plan::Load { worker: worker.into(), evict: Vec::new() }
}

fn load_after(worker: &str, evict: &[(&str, &str)]) -> Plan {
    let evict = evict.iter().map(|(worker, key)| ReplicaId::new(*worker, *key)).collect();
    Plan::Load { worker: worker.into(), evict }
}

fn use_of(workers: &[&str]) -> Plan {
    Plan::Use(workers.iter().map(|&id| id.to_owned()).collect())
}

// === A free slot ===

#[test]
fn the_replica_with_most_free_slots_comes_first() {
    let cluster = Cluster::new(9).worker("a").worker("b").worker("c");
    let cluster = cluster.replica("a", "m", busy(3)).replica("b", "m", busy(1)).replica("c", "m", busy(4));
    assert_eq!(cluster.plan(&demand("m")), use_of(&["b", "a"]));
}

#[test]
fn among_equals_the_worker_that_does_less_else_comes_first() {
    let cluster =
        Cluster::new(9).worker("a").worker("b").replica("a", "m", busy(1)).replica("b", "m", busy(1));
    assert_eq!(cluster.plan(&demand("m")), use_of(&["a", "b"]));
    let cluster = cluster.replica("a", "other", busy(2));
    assert_eq!(cluster.plan(&demand("m")), use_of(&["b", "a"]));
}

#[test]
fn a_worker_that_drains_or_is_out_of_reach_or_has_failed_is_not_used() {
    let cluster = Cluster::new(9).worker("a").worker("b").replica("a", "m", idle());
    let plan = |cluster: &Cluster| cluster.plan(&demand("m"));
    assert_eq!(plan(&cluster), use_of(&["a"]));
    assert_eq!(plan(&cluster.clone().change_worker("a", |a| a.draining = true)), load("b"));
    assert_eq!(plan(&cluster.clone().change_live("a", |a| a.draining = true)), load("b"));
    assert_eq!(plan(&cluster.clone().change_live("a", |a| a.is_unreachable = true)), load("b"));
    assert_eq!(cluster.plan(&Demand { exclude: vec!["a".into()], ..demand("m") }), load("b"));
}

#[test]
fn a_replica_that_only_the_record_knows_is_tried() {
    let mut cluster = Cluster::new(9).worker("a").replica("a", "m", idle());
    cluster.live.workers.clear();
    assert_eq!(cluster.plan(&demand("m")), use_of(&["a"]));
}

#[test]
fn the_worker_itself_knows_better_than_its_record() {
    let cluster = Cluster::new(9).worker("a").replica("a", "m", in_state(ReplicaState::Loading));
    let cluster = cluster.change_live("a", |a| a.replicas = [("m".into(), idle())].into());
    assert_eq!(cluster.plan(&demand("m")), use_of(&["a"]));
    // It is gone, only record and permit are not yet.
    let cluster = Cluster::new(9).worker("a").replica("a", "m", idle());
    let cluster = cluster.change_live("a", |a| a.replicas.clear());
    assert_eq!(cluster.plan(&demand("m")), Plan::Wait(Reason::Unloading));
}

// === Context ===

#[test]
fn a_larger_context_serves_a_smaller_demand() {
    let cluster = Cluster::new(9).worker("a").replica("a", "m", idle());
    assert_eq!(cluster.plan(&Demand { context: Context::AtLeast(2048), ..demand("m") }), use_of(&["a"]));
    assert_eq!(cluster.plan(&Demand { context: Context::AtLeast(4096), ..demand("m") }), use_of(&["a"]));
}

#[test]
fn who_names_no_number_gets_what_the_worker_usually_gives() {
    let cluster = |usual| {
        let cluster = Cluster::new(9).worker("a").replica("a", "m", idle());
        cluster.change_worker("a", |a| a.context_length = usual)
    };
    let usual = Demand { context: Context::Usual, ..demand("m") };
    // Nobody's small wish is everybody's.
    assert_eq!(cluster(4097).plan(&usual), load_after("a", &[("a", "m")]));
    for enough in [0, 2048, 4096] {
        assert_eq!(cluster(enough).plan(&usual), use_of(&["a"]), "{enough}");
    }
    assert_eq!(cluster(4097).plan(&demand("m")), use_of(&["a"]), "what was loaded for a request will do");
}

#[test]
fn too_small_a_context_is_loaded_anew_where_there_is_room() {
    let more = Demand { context: Context::AtLeast(4097), ..demand("m") };
    let alone = Cluster::new(9).worker("a").replica("a", "m", idle());
    assert_eq!(alone.plan(&more), load_after("a", &[("a", "m")]));
    // Elsewhere it disturbs nobody.
    assert_eq!(alone.clone().worker("b").plan(&more), load("b"));
    let serving = Cluster::new(9).worker("a").replica("a", "m", busy(1));
    assert_eq!(serving.plan(&more), Plan::Wait(Reason::NoRoom));
}

#[test]
fn more_context_than_the_model_can_have_never_reloads_it() {
    let mut cluster = Cluster::new(9).worker("a").replica("a", "m", idle());
    let replicas = Arc::make_mut(&mut cluster.view.replicas);
    Arc::make_mut(replicas.get_mut(&ReplicaId::new("a", "m")).unwrap()).train_context_length = 4096;
    assert_eq!(cluster.plan(&Demand { context: Context::AtLeast(100_000), ..demand("m") }), use_of(&["a"]));
}

// === Loading under way ===

#[test]
fn a_replica_that_is_being_loaded_is_waited_for() {
    let cluster = Cluster::new(9).worker("a").worker("b").replica("a", "m", in_state(ReplicaState::Loading));
    assert_eq!(cluster.plan(&demand("m")), Plan::Wait(Reason::Loading));
    // A permit without a record is a load that has just begun.
    let cluster = Cluster::new(9).worker("a").worker("b").permit("a", "m");
    assert_eq!(cluster.plan(&demand("m")), Plan::Wait(Reason::Loading));
}

#[test]
fn a_load_on_a_worker_that_has_failed_is_not_waited_for() {
    let cluster = Cluster::new(9).worker("a").worker("b").replica("a", "m", in_state(ReplicaState::Loading));
    assert_eq!(cluster.plan(&Demand { exclude: vec!["a".into()], ..demand("m") }), load("b"));
    assert_eq!(cluster.change_live("a", |a| a.is_unreachable = true).plan(&demand("m")), load("b"));
}

// === An empty place ===

#[test]
fn a_model_is_loaded_where_least_is_loaded() {
    let cluster = Cluster::new(9).worker("a").worker("b").replica("a", "x", idle());
    assert_eq!(cluster.plan(&demand("m")), load("b"));
}

#[test]
fn a_model_is_loaded_where_most_memory_is_free() {
    let cluster =
        Cluster::new(9).worker("a").worker("b").change_live("a", |a| a.memory_free_bytes = Some(8 * GIB));
    assert_eq!(cluster.plan(&demand("m")), load("b"));
}

#[test]
fn a_gpu_is_preferred_when_the_model_fits() {
    let gpu = |worker: &mut WorkerRecord| {
        worker.devices = vec![Device { kind: "cuda".into(), ..Device::default() }];
        worker.memory_bytes = 2 * GIB;
    };
    let cluster = Cluster::new(9).worker("a").worker("b").change_worker("b", gpu);
    assert_eq!(cluster.plan(&demand("m")), load("b"));
    assert_eq!(cluster.plan(&Demand { size_bytes: 3 * GIB, ..demand("m") }), load("a"));
}

#[test]
fn without_a_worker_it_waits() {
    assert_eq!(Cluster::new(9).plan(&demand("m")), Plan::Wait(Reason::NoWorker));
    let drains = Cluster::new(9).worker("a").change_worker("a", |a| a.draining = true);
    assert_eq!(drains.plan(&demand("m")), Plan::Wait(Reason::NoWorker));
}

#[test]
fn what_fits_nowhere_is_said_to() {
    let cluster = Cluster::new(9).worker("a").worker("b").replica("a", "x", idle());
    let reason = Reason::TooLarge { needed_bytes: 17 * GIB, largest_bytes: 16 * GIB };
    assert_eq!(cluster.plan(&Demand { size_bytes: 17 * GIB, ..demand("m") }), Plan::Wait(reason));
    // Nobody says how much memory there is: then it is tried.
    let unknown = Cluster::new(9).worker("a").change_worker("a", |a| a.memory_bytes = 0);
    assert_eq!(unknown.plan(&Demand { size_bytes: 17 * GIB, ..demand("m") }), load("a"));
}

// === Somebody else's place ===

#[test]
fn the_least_recently_used_makes_room() {
    let cluster = Cluster::new(2).worker("a").worker("b");
    let cluster = cluster.replica("a", "x", used_before(10)).replica("b", "y", used_before(20));
    // Its place is free then, and the model may be loaded on either.
    assert_eq!(cluster.plan(&demand("m")), load_after("a", &[("b", "y")]));
}

#[test]
fn a_busy_replica_makes_room_only_for_who_is_overdue() {
    let old = LiveReplica { slots_used: 1, ..used_before(1000) };
    let overdue = Demand { is_overdue: true, ..demand("m") };
    let cluster = Cluster::new(2).worker("a").replica("a", "x", old).replica("a", "y", used_before(10));
    assert_eq!(cluster.plan(&demand("m")), load_after("a", &[("a", "y")]));
    assert_eq!(cluster.plan(&overdue), load_after("a", &[("a", "y")]), "an idle one goes first");
    let cluster = Cluster::new(1).worker("a").replica("a", "x", old);
    assert_eq!(cluster.plan(&demand("m")), Plan::Wait(Reason::NoRoom));
    assert_eq!(cluster.plan(&overdue), load_after("a", &[("a", "x")]));
    // One that somebody has waited for longer is about to be used, idle or not.
    let spared = Demand { spare: vec!["x".into()], ..overdue.clone() };
    assert_eq!(cluster.plan(&spared), Plan::Wait(Reason::NoRoom));
    let loaded = Cluster::new(1).worker("a").replica("a", "x", used_before(1000));
    assert_eq!(loaded.plan(&spared), Plan::Wait(Reason::NoRoom));
    // Of two the one that runs less; and a slot of its own model is waited for however long it takes.
    let cluster = Cluster::new(2).worker("a").replica("a", "x", busy(2)).replica("a", "y", busy(1));
    assert_eq!(cluster.plan(&overdue), load_after("a", &[("a", "y")]));
    let cluster = Cluster::new(1).worker("a").replica("a", "m", busy(4));
    assert_eq!(cluster.plan(&overdue), Plan::Wait(Reason::Busy));
}

#[test]
fn one_whose_keep_alive_has_run_out_goes_first() {
    let expired = LiveReplica { expires_at_ns: NOW_NS, ..used_before(1) };
    let cluster = Cluster::new(2).worker("a").replica("a", "x", used_before(1000)).replica("a", "y", expired);
    assert_eq!(cluster.plan(&demand("m")), load_after("a", &[("a", "y")]));
}

#[test]
fn one_that_is_to_stay_for_ever_goes_last_but_goes() {
    let forever = LiveReplica { expires_at_ns: i64::MAX, ..used_before(1000) };
    let cluster = Cluster::new(2).worker("a").replica("a", "x", forever).replica("a", "y", used_before(10));
    assert_eq!(cluster.plan(&demand("m")), load_after("a", &[("a", "y")]));
    let cluster = Cluster::new(1).worker("a").replica("a", "x", forever);
    assert_eq!(cluster.plan(&demand("m")), load_after("a", &[("a", "x")]));
}

#[test]
fn one_that_was_used_just_now_stays_while_another_is_older() {
    let forever = LiveReplica { expires_at_ns: i64::MAX, ..used_before(1000) };
    let cluster = Cluster::new(2).worker("a").replica("a", "x", used_before(1)).replica("a", "y", forever);
    assert_eq!(cluster.plan(&demand("m")), load_after("a", &[("a", "y")]));
}

#[test]
fn a_limit_that_has_shrunk_costs_as_many_as_are_too_many() {
    let loaded = [("x", 30), ("y", 20), ("z", 10)];
    let cluster = loaded.into_iter().fold(Cluster::new(1).worker("a"), |cluster, (key, seconds)| {
        cluster.replica("a", key, used_before(seconds))
    });
    assert_eq!(cluster.plan(&demand("m")), load_after("a", &[("a", "x"), ("a", "y"), ("a", "z")]));
}

#[test]
fn memory_is_freed_on_the_worker_that_needs_it() {
    let large = LiveReplica { size_bytes: 12 * GIB, ..used_before(10) };
    let cluster = Cluster::new(9).worker("a").replica("a", "x", large).replica("a", "y", used_before(20));
    // The older one alone makes no room; both do.
    let needs = |size_bytes| Demand { size_bytes, ..demand("m") };
    assert_eq!(cluster.plan(&needs(3 * GIB)), load("a"));
    assert_eq!(cluster.plan(&needs(4 * GIB)), load_after("a", &[("a", "y")]));
    assert_eq!(cluster.plan(&needs(5 * GIB)), load_after("a", &[("a", "y"), ("a", "x")]));
    // With another worker nobody has to go.
    assert_eq!(cluster.worker("b").plan(&needs(5 * GIB)), load("b"));
}

#[test]
fn a_worker_of_which_nobody_knows_how_busy_it_is_loses_nothing() {
    let mut cluster = Cluster::new(1).worker("a").replica("a", "x", idle());
    cluster.live.workers.clear();
    assert_eq!(cluster.plan(&demand("m")), Plan::Wait(Reason::NoRoom));
}

#[test]
fn a_dead_workers_permit_counts_and_cannot_be_evicted() {
    let cluster = Cluster::new(1).worker("a").permit("dead", "x");
    assert_eq!(cluster.plan(&demand("m")), Plan::Wait(Reason::NoRoom));
    // That it was the demanded model is no help either.
    let cluster = Cluster::new(2).worker("a").permit("dead", "m");
    assert_eq!(cluster.plan(&demand("m")), load("a"));
}

#[test]
fn who_leaves_already_is_waited_for() {
    let leaving = in_state(ReplicaState::Unloading);
    let cluster = Cluster::new(2).worker("a").replica("a", "x", leaving).replica("a", "y", idle());
    assert_eq!(cluster.plan(&demand("m")), Plan::Wait(Reason::Unloading));
    // The limit has shrunk by one more: another has to go too.
    let cluster = Cluster::new(1).worker("a").replica("a", "x", leaving).replica("a", "y", idle());
    assert_eq!(cluster.plan(&demand("m")), load_after("a", &[("a", "y")]));
}

#[test]
fn a_model_that_is_being_unloaded_comes_back_elsewhere_or_later() {
    let leaving = in_state(ReplicaState::Unloading);
    let cluster = Cluster::new(9).worker("a").replica("a", "m", leaving);
    assert_eq!(cluster.plan(&demand("m")), Plan::Wait(Reason::Unloading));
    assert_eq!(cluster.worker("b").plan(&demand("m")), load("b"));
}

// === A second replica ===

#[test]
fn another_replica_is_loaded_when_as_many_wait_as_run() {
    let cluster = Cluster::new(9).worker("a").worker("b").replica("a", "m", busy(4));
    assert_eq!(cluster.plan(&Demand { waiting: 3, ..demand("m") }), Plan::Wait(Reason::Busy));
    assert_eq!(cluster.plan(&Demand { waiting: 4, ..demand("m") }), load("b"));
}

#[test]
fn another_replica_costs_nobody_a_place() {
    let crowd = Demand { waiting: 100, ..demand("m") };
    let full = Cluster::new(2).worker("a").worker("b").replica("a", "m", busy(4)).replica("b", "x", idle());
    assert_eq!(full.plan(&crowd), Plan::Wait(Reason::Busy));
    let small = Cluster::new(9).worker("a").worker("b").replica("a", "m", busy(4)).replica("b", "x", idle());
    let small = small.change_live("b", |b| b.memory_free_bytes = Some(0));
    assert_eq!(small.plan(&crowd), Plan::Wait(Reason::Busy));
    // Nor its own replica that is too small for this one.
    let small = Cluster::new(9).worker("a").worker("b").replica("a", "m", busy(4)).replica("b", "m", idle());
    let large = small.change_live("a", |a| a.replicas.get_mut("m").unwrap().context_length = 8192);
    let wish = Demand { context: Context::AtLeast(8192), ..crowd.clone() };
    assert_eq!(large.plan(&wish), Plan::Wait(Reason::Busy));
    // One worker runs a model once.
    let alone = Cluster::new(9).worker("a").replica("a", "m", busy(4));
    assert_eq!(alone.plan(&crowd), Plan::Wait(Reason::Busy));
}

// === Too many ===

#[test]
fn what_exceeds_a_lowered_limit_goes_unasked() {
    let loaded = |limit| {
        let cluster = Cluster::new(limit).worker("a").worker("b");
        let cluster = cluster.replica("a", "x", used_before(10)).replica("b", "y", used_before(30));
        cluster.replica("b", "z", busy(1)).replica("a", "leaving", in_state(ReplicaState::Unloading))
    };
    let surplus = |limit| {
        let cluster = loaded(limit);
        surplus(&cluster.view, &cluster.live).into_iter().map(|id| id.replica_key).collect::<Vec<_>>()
    };
    assert!(surplus(4).is_empty());
    assert!(surplus(3).is_empty());
    assert_eq!(surplus(2), ["y"]);
    // The busy one stays until it is idle.
    assert_eq!(surplus(1), ["y", "x"]);
}

#[test]
fn a_permit_that_is_on_its_way_back_costs_no_second_replica_its_place() {
    let cluster =
        Cluster::new(1).worker("a").replica("a", "x", used_before(10)).replica("a", "y", used_before(30));
    let names = |cluster: &Cluster| {
        surplus(&cluster.view, &cluster.live).into_iter().map(|id| id.replica_key).collect::<Vec<_>>()
    };
    assert_eq!(names(&cluster), ["y"]);
    let mut ended = cluster;
    Arc::make_mut(&mut ended.view.replicas).remove(&ReplicaId::new("a", "y"));
    ended.live.workers.get_mut("a").unwrap().replicas.remove("y");
    assert!(ended.view.permits.contains_key(&ReplicaId::new("a", "y")));
    assert!(names(&ended).is_empty());
}

//! Contract C1 under races: many tasks of many processes take and give back permits at random, the limit moves,
//! sessions die, answers are lost. An auditor that shares no code with the registry reads every revision of the
//! store and counts.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use registry::{
    Limits, MetadataStore, Pins, Registry, Session, WorkerRecord,
    store::Op,
    testing::{Wire, WireState},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::ground::{Ground, NOBODY, announce, soon, view, worker};

const MODELS: usize = 6;
const ROUNDS: usize = 12;
const BORROWERS_PER_WORKER: u64 = 3;

// === The auditor ===

const END: &str = "audit-end";

#[derive(Debug, Default)]
struct Report {
    grants: usize,
    /// Grants that used up the limit.
    full: usize,
}

/// Reads on from now until the end is written.
async fn audit(store: Arc<dyn MetadataStore>) -> JoinHandle<Report> {
    let snapshot = store.range("").await.unwrap();
    let mut content: BTreeMap<String, Bytes> =
        snapshot.items.into_iter().map(|item| (item.key, item.value)).collect();
    let mut watch = store.watch("", snapshot.revision + 1).await.unwrap();
    tokio::spawn(async move {
        let mut report = Report::default();
        while !content.contains_key(END) {
            let changes = soon("a change", watch.next()).await.unwrap().unwrap();
            for revision in changes.chunk_by(|a, b| a.revision == b.revision) {
                let is_grant = |key: &str| key.starts_with("permits/");
                let grants =
                    revision.iter().filter(|change| change.value.is_some() && is_grant(&change.key)).count();
                for change in revision {
                    match &change.value {
                        Some(value) => content.insert(change.key.clone(), value.clone()),
                        None => content.remove(&change.key),
                    };
                }
                if grants > 0 {
                    let held = content.keys().filter(|key| is_grant(key)).count();
                    let limit = limit(&content);
                    assert!(
                        grants == 1 && held <= limit,
                        "{held} permits of {limit} at {}",
                        revision[0].revision
                    );
                    report.grants += 1;
                    report.full += usize::from(held == limit);
                }
            }
        }
        report
    })
}

fn limit(content: &BTreeMap<String, Bytes>) -> usize {
    let json = |value: &Bytes| serde_json::from_slice::<serde_json::Value>(value).unwrap();
    let limits = content.get("limits").map(json).unwrap_or_default();
    let pinned = limits["record"]["pins"]["max_loaded_models"].as_u64();
    let fixed = pinned.or(limits["record"]["environment"]["max_loaded_models"].as_u64()).unwrap_or(0);
    if fixed > 0 {
        return usize::try_from(fixed).unwrap();
    }
    let workers = content.range("workers/".to_owned().."workers0".to_owned());
    let devices: usize =
        workers.map(|(_, value)| json(value)["record"]["devices"].as_array().unwrap().len()).sum();
    3 * devices.max(1)
}

// === The borrowers ===

/// What all borrowers of a test have in common.
struct Play {
    seed: u64,
    /// The largest limit of the whole test.
    most: u32,
    loaded: AtomicU32,
    granted: watch::Sender<usize>,
}

/// A model in memory.
struct Loaded<'a>(&'a AtomicU32);

impl<'a> Loaded<'a> {
    fn new(play: &'a Play) -> Loaded<'a> {
        let loaded = play.loaded.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(loaded <= play.most, "{loaded} models in memory with seed {}", play.seed);
        Loaded(&play.loaded)
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Play {
    fn new(seed: u64, most: u32) -> Arc<Play> {
        Arc::new(Play { seed, most, loaded: AtomicU32::new(0), granted: watch::Sender::new(0) })
    }

    async fn until_granted(&self, count: usize) {
        let mut granted = self.granted.subscribe();
        soon("grants", granted.wait_for(|granted| *granted >= count)).await.unwrap();
    }
}

/// Loads and unloads at random. Not everybody waits until the permit is given back.
async fn borrow(play: Arc<Play>, registry: Registry, session: Arc<Session>, number: u64) {
    let mut rng = StdRng::seed_from_u64(play.seed * 1_000 + number);
    let mut done = 0;
    while done < ROUNDS {
        let key = format!("m{}", rng.random_range(0..MODELS));
        match registry.acquire_permit(&session, &key).await {
            Ok(permit) => {
                let loaded = Loaded::new(&play);
                play.granted.send_modify(|granted| *granted += 1);
                sleep(Duration::from_micros(rng.random_range(0..10_000))).await;
                drop(loaded);
                if rng.random_bool(0.7) {
                    // When it fails it is given back later.
                    let _ = permit.release().await;
                }
                done += 1;
            }
            Err(registry::Error::Closed) => return,
            Err(error) => {
                assert!(error.is_retryable(), "{error} with seed {}", play.seed);
                sleep(Duration::from_micros(rng.random_range(0..5_000))).await;
            }
        }
    }
}

fn set_to_work(play: &Arc<Play>, registry: &Registry, session: &Arc<Session>, worker: u64) -> JoinSet<()> {
    let numbers = (0..BORROWERS_PER_WORKER).map(|i| worker * BORROWERS_PER_WORKER + i);
    numbers.map(|number| borrow(play.clone(), registry.clone(), session.clone(), number)).collect()
}

/// The limit moves, and one process of three dies in the middle with whatever it holds.
async fn everything_at_once(ground: &Ground, seed: u64) {
    let play = Play::new(seed, 5);
    let auditor = audit(ground.store().await).await;
    let registries = [ground.registry().await, ground.registry().await];
    pin(&registries[0], play.most).await;
    let mut working = Vec::new();
    for (i, registry) in registries.iter().cycle().take(4).enumerate() {
        let session = Arc::new(announce(registry, &format!("w{i}")).await);
        working.push(set_to_work(&play, registry, &session, i as u64));
    }
    let (mortal, wire) = ground.registry_on_a_wire().await;
    let record = WorkerRecord { address: NOBODY.into(), ..worker("mortal") };
    let session = Arc::new(mortal.announce(record).await.unwrap());
    let mut doomed = set_to_work(&play, &mortal, &session, 9);

    play.until_granted(30).await;
    wire.set(WireState::Cut);
    doomed.shutdown().await;
    drop((session, mortal));
    play.until_granted(60).await;
    pin(&registries[1], 2).await;
    play.until_granted(90).await;
    pin(&registries[0], 4).await;

    finish(ground, &registries[1], working, auditor).await;
}

/// One process whose wire comes and goes, and loses answers.
async fn a_flaky_wire(ground: &Ground, seed: u64) {
    let play = Play::new(seed, 3);
    let auditor = audit(ground.store().await).await;
    let steady = ground.registry().await;
    pin(&steady, play.most).await;
    let (flaky, wire) = ground.registry_on_a_wire().await;
    let mut working = Vec::new();
    // Kept to the end: a session that is dropped while the wire is cut leaves its permits to the reaper.
    let mut sessions = Vec::new();
    for (i, registry) in [&steady, &flaky, &flaky].into_iter().enumerate() {
        let session = Arc::new(announce(registry, &format!("w{i}")).await);
        sessions.push(session.clone());
        working.push(set_to_work(&play, registry, &session, i as u64));
    }
    let flapping = tokio::spawn(flap(wire.clone(), seed));
    play.until_granted(60).await;
    flapping.abort();
    wire.set(WireState::Whole);
    finish(ground, &steady, working, auditor).await;
}

async fn flap(wire: Wire, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        for state in [WireState::AnswersLost, WireState::Whole, WireState::Cut, WireState::Whole] {
            wire.set(state);
            sleep(Duration::from_millis(rng.random_range(5..60))).await;
        }
    }
}

/// Under the automatic limit, which moves with every worker that comes or goes.
async fn workers_come_and_go(ground: &Ground, seed: u64) {
    let play = Play::new(seed, 9);
    let auditor = audit(ground.store().await).await;
    let registry = ground.registry().await;
    registry.set_limits_from_environment(Limits::default()).await.unwrap();
    let session = Arc::new(announce(&registry, "stays").await);
    let working = (0..3).map(|i| set_to_work(&play, &registry, &session, i)).collect();
    let others = [ground.registry().await, ground.registry().await];
    let coming_and_going = others.iter().enumerate().map(|(i, registry)| {
        let play = play.clone();
        async move {
            for _ in 0..6 {
                let session = announce(registry, &format!("goes{i}")).await;
                let before = *play.granted.borrow();
                play.until_granted((before + 3).min(2 * ROUNDS)).await;
                session.close().await;
            }
        }
    });
    join_all(coming_and_going).await;
    finish(ground, &registry, working, auditor).await;
}

/// Everybody ends, everything is given back, and the auditor has seen something.
async fn finish(
    ground: &Ground,
    registry: &Registry,
    working: Vec<JoinSet<()>>,
    auditor: JoinHandle<Report>,
) {
    for mut borrowers in working {
        while let Some(done) = soon("a borrower", borrowers.join_next()).await {
            done.unwrap();
        }
    }
    view(registry, "no permits", |view| view.permits.is_empty()).await;
    ground.store().await.txn(&[], &[Op::put(END, "")]).await.unwrap();
    let report = soon("the report", auditor).await.unwrap();
    assert!(report.grants >= 2 * ROUNDS && report.full > 0, "{report:?} proves nothing");
}

async fn pin(registry: &Registry, limit: u32) {
    registry.pin_limits(Pins { max_loaded_models: Some(limit), ..Pins::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_race_exceeds_the_limit_on_memory() {
    for seed in 1..=5 {
        everything_at_once(&Ground::memory(), seed).await;
        a_flaky_wire(&Ground::memory(), seed).await;
        workers_come_and_go(&Ground::memory(), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_race_exceeds_the_limit_on_etcd() {
    everything_at_once(&Ground::etcd().await, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lost_answer_leaks_a_permit_on_etcd() {
    a_flaky_wire(&Ground::etcd().await, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_automatic_limit_is_exact_on_etcd() {
    workers_come_and_go(&Ground::etcd().await, 8).await;
}

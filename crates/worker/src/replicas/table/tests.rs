//! The table by itself: moments are made up, nothing waits.

use super::*;
use crate::{
    changes::Changes,
    prompt::Prompts,
    runner::Runner,
    scripted::{Config, Scripted, SystemPace},
};

const MINUTE: Duration = Duration::from_secs(60);

fn loaded() -> Arc<Loaded> {
    let config = Config { tokens_per_second: 0.0 };
    let engine = Box::new(Scripted::new(1, 100, &config, Box::new(SystemPace::default())));
    let runner = Runner::start(engine, Changes::default()).unwrap();
    let prompts = Prompts::new(runner.info().clone(), runner.tokenizer().clone());
    Arc::new(Loaded { runner, prompts, usual_context: 100, _file: None })
}

fn loading(table: &mut Table, key: &str, keep_alive: KeepAlive, now: Instant) -> u64 {
    table.insert(Model { replica_key: key.into(), ..Model::default() }, keep_alive, now)
}

fn ready(table: &mut Table, key: &str, minutes: u32, now: Instant) -> u64 {
    let id = loading(table, key, KeepAlive::For(MINUTE * minutes), now);
    assert!(table.make_ready(key, id, loaded(), now));
    id
}

fn is_stopped(table: &Table, key: &str, id: u64) -> bool {
    table.get(key, id).unwrap().stop.is_cancelled()
}

#[test]
fn the_next_look_is_at_the_earliest_expiry() {
    let (mut table, now) = (Table::default(), Instant::now());
    let (a, b) = (ready(&mut table, "a", 2, now), ready(&mut table, "b", 1, now));
    assert_eq!(table.expire(now), Some(now + MINUTE));
    assert_eq!(table.expire(now + MINUTE), Some(now + MINUTE * 2));
    assert!(is_stopped(&table, "b", b) && !is_stopped(&table, "a", a));
    assert!(table.enter("b", None, now).is_none() && table.enter("a", None, now).is_some());
    assert_eq!(table.expire(now + MINUTE * 9), None);
}

#[test]
fn what_is_loading_or_in_use_or_kept_for_ever_never_expires() {
    let (mut table, now) = (Table::default(), Instant::now());
    loading(&mut table, "a", KeepAlive::For(Duration::ZERO), now);
    ready(&mut table, "b", 1, now);
    table.enter("b", None, now).unwrap();
    let forever = loading(&mut table, "c", KeepAlive::Forever, now);
    table.make_ready("c", forever, loaded(), now);
    let endless = loading(&mut table, "d", KeepAlive::For(Duration::MAX), now);
    table.make_ready("d", endless, loaded(), now);
    assert_eq!(table.expire(now + MINUTE * 1_000_000), None);
    assert!(table.iter().all(|replica| !replica.stop.is_cancelled()));
}

#[test]
fn a_retired_replica_is_stopped_with_its_last_answer() {
    let (mut table, now) = (Table::default(), Instant::now());
    let id = ready(&mut table, "a", 1, now);
    table.enter("a", None, now).unwrap();
    table.enter("a", None, now).unwrap();
    assert!(table.retire("a"));
    for _ in 0..2 {
        table.expire(now);
        assert!(!is_stopped(&table, "a", id));
        table.leave("a", id, now);
    }
    table.expire(now);
    assert!(is_stopped(&table, "a", id));
}

#[test]
fn a_load_is_given_up_when_the_last_of_its_callers_leaves() {
    let (mut table, now) = (Table::default(), Instant::now());
    let id = loading(&mut table, "a", KeepAlive::default(), now);
    table.wait("a", id, None).unwrap();
    table.wait("a", id, None).unwrap();
    table.stop_waiting("a", id);
    assert!(!is_stopped(&table, "a", id));
    table.stop_waiting("a", id);
    assert!(is_stopped(&table, "a", id));
    // Who comes now waits for its end and does not join it.
    assert!(matches!(table.find("a", 1), Found::Unloading));
    assert!(!table.make_ready("a", id, loaded(), now));
}

#[test]
fn an_earlier_life_cannot_touch_a_later_one() {
    let (mut table, now) = (Table::default(), Instant::now());
    let first = ready(&mut table, "a", 1, now);
    table.remove("a", first);
    let second = ready(&mut table, "a", 1, now);
    table.remove("a", first);
    table.leave("a", first, now);
    assert!(table.get("a", first).is_none() && table.get("a", second).is_some());
}

#[test]
fn a_context_that_the_model_cannot_have_is_not_too_small() {
    let (mut table, now) = (Table::default(), Instant::now());
    ready(&mut table, "a", 1, now);
    assert!(matches!(table.find("a", 100), Found::Ready(_)));
    assert!(matches!(table.find("a", 101), Found::TooSmall(_)));
    assert!(matches!(table.find("b", 1), Found::Nothing));
}

#[test]
fn memory_is_promised_until_the_replica_is_ready() {
    let (mut table, now) = (Table::default(), Instant::now());
    let a = loading(&mut table, "a", KeepAlive::default(), now);
    let b = loading(&mut table, "b", KeepAlive::default(), now);
    table.get_mut("a", a).unwrap().reserved_bytes = 7;
    assert_eq!((table.reserved_by_others(a), table.reserved_by_others(b)), (0, 7));
    table.make_ready("a", a, loaded(), now);
    assert_eq!(table.reserved_by_others(b), 0);
}

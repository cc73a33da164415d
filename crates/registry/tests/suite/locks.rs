//! One holder at a time, in the order of arrival.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use registry::{
    Registry,
    store::{Op, Outcome},
    testing::WireState,
};
use tokio::time::sleep;

use crate::{
    ground::{Ground, soon, view},
    on_both_stores,
};

on_both_stores! {
    one_holder_at_a_time
    whoever_comes_first_is_served_first
    a_waiter_that_leaves_is_not_waited_for
    a_holder_that_dies_makes_room
    a_write_under_a_lost_lock_is_refused
    locks_of_different_names_are_different
}

async fn one_holder_at_a_time(ground: &Ground) {
    let registries = [ground.registry().await, ground.registry().await, ground.registry().await];
    let inside = AtomicU32::new(0);
    let entered = AtomicU32::new(0);
    let enter = |registry: Registry| {
        let (inside, entered) = (&inside, &entered);
        async move {
            for _ in 0..3 {
                let lock = soon("the lock", registry.lock("name")).await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two inside");
                sleep(Duration::from_millis(2)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                entered.fetch_add(1, Ordering::SeqCst);
                lock.release().await;
            }
        }
    };
    join_all(registries.iter().cycle().take(6).map(|registry| enter(registry.clone()))).await;
    assert_eq!(entered.into_inner(), 18);
}

async fn whoever_comes_first_is_served_first(ground: &Ground) {
    let registry = ground.registry().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let first = registry.lock("name").await.unwrap();
    let mut waiting = Vec::new();
    for i in 0..5 {
        let (registry, order) = (registry.clone(), order.clone());
        waiting.push(tokio::spawn(async move {
            let lock = registry.lock("name").await.unwrap();
            order.lock().unwrap().push(i);
            lock.release().await;
        }));
        in_line(ground, i + 2).await;
    }
    first.release().await;
    soon("everybody", join_all(waiting)).await.into_iter().for_each(|done| done.unwrap());
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
}

async fn a_waiter_that_leaves_is_not_waited_for(ground: &Ground) {
    let registry = ground.registry().await;
    let first = registry.lock("name").await.unwrap();
    let impatient = {
        let registry = registry.clone();
        tokio::spawn(async move { registry.lock("name").await })
    };
    in_line(ground, 2).await;
    let patient = {
        let registry = registry.clone();
        tokio::spawn(async move { registry.lock("name").await })
    };
    in_line(ground, 3).await;
    impatient.abort();
    first.release().await;
    soon("the lock", patient).await.unwrap().unwrap();
}

async fn a_holder_that_dies_makes_room(ground: &Ground) {
    let (dying, wire) = ground.registry_on_a_wire().await;
    let registry = ground.registry().await;
    let lock = dying.lock("name").await.unwrap();
    assert!(!lock.is_lost());
    wire.set(WireState::Cut);
    // It knows before anybody else can have it.
    let lost = async {
        lock.lost().await;
        registry.store().range("locks/").await.unwrap().items.len()
    };
    let next = async { soon("the lock", registry.lock("name")).await.unwrap() };
    let (in_line, _next) = tokio::join!(soon("the news", lost), next);
    assert_eq!(in_line, 2, "the place was still there when the holder learnt that it is lost");
}

async fn a_write_under_a_lost_lock_is_refused(ground: &Ground) {
    let (slow, wire) = ground.registry_on_a_wire().await;
    let registry = ground.registry().await;
    let lock = slow.lock("name").await.unwrap();
    let write = [Op::put("protected", "slow")];
    assert!(matches!(registry.store().txn(&[lock.condition()], &write).await, Ok(Outcome::Committed { .. })));
    wire.set(WireState::Cut);
    let next = soon("the lock", registry.lock("name")).await.unwrap();
    assert_eq!(registry.store().txn(&[lock.condition()], &write).await, Ok(Outcome::Refused));
    assert!(matches!(registry.store().txn(&[next.condition()], &write).await, Ok(Outcome::Committed { .. })));
}

async fn locks_of_different_names_are_different(ground: &Ground) {
    let registry = ground.registry().await;
    let names = ["a", "a/b", "a%2Fb", "host/ns/model:tag", ""];
    let locks = join_all(names.map(|name| registry.lock(name)));
    assert!(soon("all of them", locks).await.into_iter().all(|lock| lock.is_ok()));
}

/// Waits until so many stand in line, the holder included.
async fn in_line(ground: &Ground, count: usize) {
    let store = ground.store().await;
    let standing = async {
        let snapshot = store.range("locks/name/").await.unwrap();
        let mut watch = store.watch("locks/name/", snapshot.revision + 1).await.unwrap();
        let mut left = count.saturating_sub(snapshot.items.len());
        while left > 0 {
            left = left.saturating_sub(watch.next().await.unwrap().unwrap().len());
        }
    };
    soon("the line", standing).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_lock() {
    let ground = Ground::memory();
    let registry = ground.registry().await;
    registry.lock("name").await.unwrap().release().await;
    assert_eq!(registry.store().range("locks/").await.unwrap().items, []);
    view(&registry, "nothing", |view| view.workers.is_empty()).await;
}

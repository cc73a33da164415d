//! The limits record and the catalog counter.

use registry::{Limits, Pins, store::Op};

use crate::{
    ground::{Ground, config, start, view},
    on_both_stores,
};

on_both_stores! {
    the_newest_environment_wins
    a_pin_beats_every_environment_until_it_is_gone
    the_catalog_counts_exactly
}

fn limits(max_loaded_models: u32, num_parallel: u32, max_queue: u32) -> Limits {
    Limits { max_loaded_models, num_parallel, max_queue }
}

async fn the_newest_environment_wins(ground: &Ground) {
    let (one, two) = (ground.registry().await, ground.registry().await);
    assert_eq!(one.limits(), limits(0, 0, 512));
    assert_eq!(one.set_limits_from_environment(limits(1, 2, 3)).await.unwrap(), limits(1, 2, 3));
    view(&two, "the first", |view| view.limits() == limits(1, 2, 3)).await;
    assert_eq!(two.set_limits_from_environment(limits(4, 5, 6)).await.unwrap(), limits(4, 5, 6));
    view(&one, "the second", |view| view.limits() == limits(4, 5, 6)).await;
    assert_eq!(one.view().limits.written_by, "test");
}

async fn a_pin_beats_every_environment_until_it_is_gone(ground: &Ground) {
    let registry = ground.registry().await;
    registry.set_limits_from_environment(limits(1, 2, 3)).await.unwrap();
    let pins = Pins { max_queue: Some(7), ..Pins::default() };
    assert_eq!(registry.pin_limits(pins).await.unwrap(), limits(1, 2, 7));
    let pins = Pins { max_loaded_models: Some(9), ..Pins::default() };
    assert_eq!(registry.pin_limits(pins).await.unwrap(), limits(9, 2, 7));
    assert_eq!(registry.set_limits_from_environment(limits(4, 5, 6)).await.unwrap(), limits(9, 5, 7));
    view(&registry, "pins", |view| view.limits() == limits(9, 5, 7)).await;
    // What the newest environment said meanwhile now counts.
    assert_eq!(registry.unpin_limits().await.unwrap(), limits(4, 5, 6));
}

async fn the_catalog_counts_exactly(ground: &Ground) {
    let registries = [ground.registry().await, ground.registry().await, ground.registry().await];
    let bump = |registry: registry::Registry| async move {
        for _ in 0..10 {
            registry.bump_catalog().await.unwrap();
        }
    };
    let all = registries.iter().cycle().take(6).map(|registry| bump(registry.clone()));
    futures::future::join_all(all).await;
    for registry in &registries {
        view(registry, "sixty", |view| view.catalog == 60).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_version_added_to_the_limits_is_kept() {
    let ground = Ground::memory();
    let store = ground.store().await;
    let newer = r#"{"version":1,"record":{"environment":{"max_loaded_models":1},"shares":{"a":2}}}"#;
    store.txn(&[], &[Op::put("limits", newer)]).await.unwrap();
    let registry = start(store.clone(), config()).await;
    assert_eq!(registry.limits(), limits(1, 0, 512));
    registry.pin_limits(Pins { max_queue: Some(5), ..Pins::default() }).await.unwrap();
    let snapshot = store.range("limits").await.unwrap();
    let text = std::str::from_utf8(&snapshot.items[0].value).unwrap();
    assert!(text.contains(r#""shares":{"a":2}"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn limits_that_cannot_be_read_are_an_error_and_not_a_guess() {
    let ground = Ground::memory();
    let store = ground.store().await;
    store.txn(&[], &[Op::put("limits", "{\"version\":9}")]).await.unwrap();
    let registry = start(store, config()).await;
    let error = registry.pin_limits(Pins::default()).await.unwrap_err().to_string();
    assert!(error.contains("`limits`"), "{error}");
    // The view goes on with what it can read.
    assert_eq!(registry.limits(), Limits::default());
}

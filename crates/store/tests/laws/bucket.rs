//! What only a bucket can do to us, and what a cache has to make of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use store::testing::S3Server;
use store::transfer::Tuning;
use store::{Access, Digest, Error, Location, Store, StoreConfig};

use crate::place::{Place, create, fetch, gguf, model, name, noise, server, upload};

const MIB: usize = 1 << 20;

async fn answered(texts: &[&str]) -> usize {
    server().await.answered(texts).await.unwrap()
}

async fn refused(config: StoreConfig) -> String {
    let text = Store::connect(config).await.err().unwrap().to_string();
    assert!(!text.contains("test-secret"), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_opened_is_told_with_what_to_do() {
    let server = server().await;
    let place = Place::on(server, "x");
    let missing = Location::parse("s3://nowhere-at-all/x").unwrap();
    let text = refused(StoreConfig { location: missing, ..place.config("one") }).await;
    assert_eq!(text, "open s3://nowhere-at-all/x: there is no such bucket, make it or name another");

    let closed = store::testing::environment("127.0.0.1:1").map(|(key, value)| (key.to_owned(), value));
    let text = refused(StoreConfig { access: Access::new(closed), ..place.config("one") }).await;
    assert!(text.starts_with("open s3://models/x: ") && text.contains("check AWS_ENDPOINT_URL"), "{text}");
    assert!(text.contains("refused"), "{text}");

    let plain = server.environment().into_iter().filter(|(key, _)| *key != "AWS_ALLOW_HTTP");
    let plain = Access::new(plain.map(|(key, value)| (key.to_owned(), value)));
    let text = refused(StoreConfig { access: plain, ..place.config("one") }).await;
    assert!(text.contains("AWS_ALLOW_HTTP=true"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_ollamas_layout_below_the_prefix() {
    let place = Place::bucket("team/a").await;
    let store = place.open("one").await;
    let made = model(&store, "m", "s").await;
    let keys = server().await.keys("team/a/").await.unwrap();
    assert!(keys.contains(&"team/a/manifests/registry.ollama.ai/library/m/latest".to_owned()), "{keys:?}");
    let weights = format!("team/a/blobs/{}", made.weights.as_ref().unwrap().file_name());
    assert_eq!(server().await.get(&weights).await.unwrap(), gguf("m"));
    assert!(place.cached("one").iter().all(|file| !weights.ends_with(file)), "weights only pass through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_goes_in_parts_and_comes_back_in_parts() {
    let place = Place::bucket("parts").await;
    let store = place.open("one").await;
    let bytes = noise(50 * MIB + 7, 3);
    let digest = upload(&store, bytes.clone()).await;
    let key = format!("parts/blobs/{}", digest.file_name());
    assert!(answered(&["PUT", &key, "partNumber=4"]).await == 1, "four parts");
    assert!(place.cached("one").is_empty(), "it only passed through");
    let small = |config: &mut StoreConfig| config.tuning.min_part_bytes = 10 * MIB as u64;
    let file = fetch(&place.open_with("two", small).await, &digest).await.unwrap();
    assert!(std::fs::read(file.path()).unwrap() == bytes);
    assert_eq!(place.cached("two"), [digest.file_name()], "nothing else is left");
    assert!(answered(&["GET", &key]).await >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_reads_nothing_that_it_has_read_before() {
    let place = Place::bucket("many").await;
    let store = place.open("one").await;
    model(&store, "first", "s").await;
    for number in 0..30 {
        store.copy(&name("first"), &name(&format!("copy-{number}"))).await.unwrap();
    }
    let two = place.open("two").await;
    assert_eq!(two.list().await.unwrap().len(), 31);
    let gets = answered(&["GET", "/models/many/"]).await;
    let listings = answered(&["GET", "prefix=many"]).await;
    assert_eq!(two.list().await.unwrap().len(), 31);
    assert_eq!(answered(&["GET", "/models/many/"]).await, gets);
    assert_eq!(answered(&["GET", "prefix=many"]).await, listings + 1);
    // A process that comes later finds the small blobs in the cache of the one before.
    let key = format!("many/blobs/{}", Digest::of(b"s").file_name());
    let reads = answered(&["GET", &key]).await;
    let again = place.open("two").await;
    assert_eq!(again.list().await.unwrap().len(), 31);
    assert_eq!(answered(&["GET", &key]).await, reads);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_lies_is_found_out_and_nothing_of_it_is_kept() {
    let place = Place::bucket("lies").await;
    let store = place.open("one").await;
    let weights = model(&store, "m", "Be brief.").await.weights.clone().unwrap();
    place.put(&format!("blobs/{}", weights.file_name()), &noise(2 * MIB, 9)).await;
    let text = fetch(&store, &weights).await.unwrap_err().to_string();
    assert!(text.contains("digest mismatch") && text.contains(&weights.to_string()), "{text}");
    assert!(
        !place.cached("one").iter().any(|file| file.contains(weights.hex())),
        "{:?}",
        place.cached("one")
    );

    let system = Digest::of(b"Be brief.");
    place.put(&format!("blobs/{}", system.file_name()), b"Be cruel.").await;
    let text = place.open("two").await.get(&name("m")).await.unwrap_err().to_string();
    assert!(text.contains("damaged") && text.contains(&system.file_name()), "{text}");
    assert!(!place.cached("two").contains(&system.file_name()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_given_up_goes_on_where_it_stopped() {
    let place = Place::bucket("resume").await;
    let bytes = noise(60 * MIB, 5);
    let digest = upload(&place.open("one").await, bytes.clone()).await;
    // One stream, so that there is a middle.
    let slow = |config: &mut StoreConfig| {
        config.tuning = Tuning { streams: 1, tick: Duration::from_millis(1), ..config.tuning.clone() };
    };
    let store = place.open_with("two", slow).await;
    let (giving_up, asked) = (store.clone(), digest.clone());
    let seen = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&seen);
    let given_up = tokio::task::spawn_blocking(move || {
        giving_up.fetch(&asked, &mut |completed, total| {
            told.store(completed, Ordering::Relaxed);
            assert_eq!(total, 60 << 20);
            if completed > total / 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    assert!(matches!(given_up.await.unwrap(), Err(Error::Canceled)));
    assert!(seen.load(Ordering::Relaxed) < 60 << 20, "it was given up in the middle");
    assert!(!place.cached("two").contains(&digest.file_name()), "half of it has no name");
    drop(store);

    let key = format!("resume/blobs/{}", digest.file_name());
    let whole = answered(&["GET", &key, " 206 "]).await;
    let first = Arc::new(AtomicU64::new(u64::MAX));
    let (store, asked, told) = (place.open_with("two", slow).await, digest.clone(), Arc::clone(&first));
    let file = tokio::task::spawn_blocking(move || {
        store.fetch(&asked, &mut |completed, _| {
            // The very first call may be before the state was read.
            if completed > 0 {
                told.fetch_min(completed, Ordering::Relaxed);
            }
            ControlFlow::Continue(())
        })
    });
    assert!(std::fs::read(file.await.unwrap().unwrap().path()).unwrap() == bytes);
    assert!(first.load(Ordering::Relaxed) >= 16 << 20, "it went on: {first:?}");
    assert!(answered(&["GET", &key, " 206 "]).await <= whole + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loads_of_one_blob_bring_it_once() {
    let place = Place::bucket("twice").await;
    let digest = upload(&place.open("one").await, noise(20 * MIB, 6)).await;
    // Two of one process, and one of another that shares the folder.
    let (two, three) = (place.open("two").await, place.open("two").await);
    let loads = tokio::join!(fetch(&two, &digest), fetch(&two, &digest), fetch(&three, &digest));
    assert!(loads.0.is_ok() && loads.1.is_ok() && loads.2.is_ok());
    let key = format!("twice/blobs/{}", digest.file_name());
    assert_eq!(answered(&["GET", &key, " 206 "]).await, 1);
    assert_eq!(place.cached("two"), [digest.file_name()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_keeps_its_bound_and_what_is_in_use() {
    let place = Place::bucket("bound").await;
    let one = place.open("one").await;
    let mut blobs = Vec::new();
    for seed in 1..=4 {
        blobs.push(upload(&one, noise(MIB, seed)).await);
    }
    let store = place.open_with("two", |config| config.cache_bytes = 2 * MIB as u64 + 100).await;
    let held = fetch(&store, &blobs[0]).await.unwrap();
    drop(fetch(&store, &blobs[1]).await.unwrap());
    drop(fetch(&store, &blobs[2]).await.unwrap());
    let mut expected = [blobs[0].file_name(), blobs[2].file_name()];
    expected.sort();
    assert_eq!(place.cached("two"), expected, "what is in use stays, though it is the oldest");
    let also = fetch(&store, &blobs[2]).await.unwrap();
    let text = fetch(&store, &blobs[3]).await.unwrap_err().to_string();
    for number in ["1048576", "2097252", "2097152"] {
        assert!(text.contains(number), "{text}");
    }
    drop((held, also));
    assert!(fetch(&store, &blobs[3]).await.is_ok());
    let large = upload(&one, noise(3 * MIB, 7)).await;
    let before = place.cached("two");
    let text = fetch(&store, &large).await.unwrap_err().to_string();
    assert!(text.contains("3145728") && text.contains("2097252"), "{text}");
    assert_eq!(place.cached("two"), before, "nothing went, and nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_hangs_is_given_up_and_gone_on_with_when_it_is_back() {
    let server = Arc::new(S3Server::start().await.unwrap());
    let place = Place::on(&server, "hangs");
    let bytes = noise(60 * MIB, 8);
    let impatient = |config: &mut StoreConfig| {
        let tuning = config.tuning.clone();
        config.tuning =
            Tuning { streams: 1, tick: Duration::from_millis(1), stall: Duration::from_secs(1), ..tuning };
    };
    let store = place.open_with("one", impatient).await;
    let digest = upload(&store, bytes.clone()).await;
    let (hanging, asked, stopped) = (store.clone(), digest.clone(), Arc::clone(&server));
    let started = Instant::now();
    let outcome = tokio::task::spawn_blocking(move || {
        let mut is_running = true;
        hanging.fetch(&asked, &mut |completed, total| {
            if is_running && completed > total / 3 {
                stopped.signal("STOP");
                is_running = false;
            }
            ControlFlow::Continue(())
        })
    });
    let text = outcome.await.unwrap().unwrap_err().to_string();
    assert!(text.contains("max retries exceeded") && text.contains("no answer within 1 s"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(!place.cached("one").contains(&digest.file_name()));
    server.signal("CONT");
    assert!(std::fs::read(fetch(&store, &digest).await.unwrap().path()).unwrap() == bytes);

    // And then it is away.
    model(&store, "known", "s").await;
    server.signal("KILL");
    assert_eq!(store.get(&name("known")).await.unwrap().system.as_deref(), Some("s"));
    let text = create(&store, json!({"model": "m", "from": "none"})).await.unwrap_err().to_string();
    assert!(text.contains("s3://models/hangs/manifests") && text.contains("refused"), "{text}");
    assert!(fetch(&store, &digest).await.is_ok(), "what is here is served without it");
}

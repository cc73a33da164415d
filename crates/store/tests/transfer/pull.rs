//! What a pull asks, stores and tells; sharing, cutting and going on.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use store::transfer::Wish;
use store::{Digest, Layer, LayerKind, Manifest};

use crate::rig::{Rig, announce, noise, publish, teller};
use crate::server::{End, Reply, Server};

#[tokio::test]
async fn a_model_comes_in_parts_and_its_manifest_byte_for_byte() {
    let (server, rig) = (Server::honest().await, Rig::new());
    let weights = noise(1, 20_500);
    let (digest, manifest) = publish(&server, &weights);

    let pull = rig.pull(&server.name("m")).await;
    pull.outcome.as_ref().unwrap();
    let label = format!("pulling {}", &digest.hex()[..12]);
    let statuses = pull.statuses();
    assert_eq!(statuses[..2], ["pulling manifest".to_owned(), label.clone()]);
    assert_eq!(statuses[statuses.len() - 2..], ["verifying sha256 digest", "writing manifest"]);
    let last = pull.lines.iter().rfind(|line| line.status == label).unwrap();
    assert_eq!((last.digest.as_str(), last.total, last.completed), (&*digest.to_string(), 20_500, 20_500));

    assert_eq!(rig.bytes(&digest), weights);
    let stored = rig.root().join(format!("manifests/{}/library/m/latest", server.address()));
    assert_eq!(fs::read(stored).unwrap(), manifest);
    assert_eq!(rig.get(&server, "m").await.system.as_deref(), Some("Be brief."));
    assert_eq!(rig.files().len(), 4, "{:?}", rig.files());

    // 20500 / 16 bytes for each part.
    let mut ranges = server.ranges(&digest);
    ranges.sort_by_key(|range| range.split('-').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(ranges.len(), 17);
    assert_eq!((ranges[0].as_str(), ranges[16].as_str()), ("0-1280", "20496-20499"));
    let first = &server.asked()[0];
    assert_eq!(first.target, "/v2/library/m/manifests/latest");
    assert_eq!(first.header("accept"), "application/vnd.docker.distribution.manifest.v2+json");
    assert!(first.header("user-agent").starts_with("ollama/"), "{first:?}");
}

#[tokio::test]
async fn what_is_there_is_not_asked_for_again() {
    let (server, rig) = (Server::honest().await, Rig::new());
    let (digest, _) = publish(&server, &noise(1, 5000));
    rig.pull(&server.name("m")).await.outcome.unwrap();
    let before = server.asked().len();
    let again = rig.pull(&server.name("m")).await;
    again.outcome.as_ref().unwrap();
    assert_eq!(server.asked().len(), before + 1, "the manifest alone");
    let lines: Vec<_> = again.lines.iter().filter(|line| line.digest == digest.to_string()).collect();
    assert_eq!((lines.len(), lines[0].completed), (1, 5000));
}

#[tokio::test]
async fn a_newer_manifest_frees_what_only_the_older_one_used() {
    let (server, rig) = (Server::honest().await, Rig::new());
    let (old, _) = publish(&server, &noise(1, 5000));
    rig.pull(&server.name("m")).await.outcome.unwrap();
    publish(&server, &noise(2, 5000));
    let pull = rig.pull(&server.name("m")).await;
    pull.outcome.as_ref().unwrap();
    assert_eq!(pull.lines.last().unwrap().status, "removing unused layers");
    assert!(!rig.store.blob_path(&old).exists());
    assert_eq!(rig.files().len(), 4);
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = Arc::clone(&is_broken);
    let server = Server::start(move |asked, honest| {
        let is_cut = asked.header("range").starts_with("bytes=") && honest.body.len() > 600;
        match is_cut && broken.load(Ordering::SeqCst) {
            true => honest.clone().stopped(600, End::Close),
            false => honest.clone(),
        }
    })
    .await;
    // Each try brings 600 bytes of a part of 10000, and there are six.
    let rig = Rig::with(|config| config.tuning.min_part_bytes = 10_000);
    let weights = noise(1, 20_000);
    let (digest, _) = publish(&server, &weights);
    let error = rig.refused(&server.name("m")).await;
    assert!(error.starts_with("max retries exceeded: GET http://"), "{error}");
    let partial = format!("blobs/{}-partial", digest.file_name());
    assert_eq!(
        rig.files(),
        [partial.clone(), format!("{partial}-0"), format!("{partial}-1")].into(),
        "what can be resumed, and nothing else"
    );

    is_broken.store(false, Ordering::SeqCst);
    let before = server.ranges(&digest).len();
    let pull = rig.pull(&server.name("m")).await;
    pull.outcome.as_ref().unwrap();
    assert_eq!(rig.bytes(&digest), weights);
    let resumed = server.ranges(&digest).split_off(before);
    assert_eq!(resumed.len(), 2);
    // The part that failed for good had 600 bytes six times; the other one stopped with it.
    assert!(resumed.iter().any(|range| range == "3600-9999" || range == "13600-19999"), "{resumed:?}");
    let first = pull.lines.iter().find(|line| line.digest == digest.to_string() && line.completed > 0);
    assert!(first.unwrap().completed >= 3600, "{first:?}");
}

#[tokio::test]
async fn what_ollama_left_of_a_download_is_gone_on_with() {
    let (server, rig) = (Server::honest().await, Rig::new());
    let weights = noise(1, 3000);
    let (digest, _) = publish(&server, &weights);
    let partial = rig.root().join(format!("blobs/{}-partial", digest.file_name()));
    let mut bytes = vec![0; 3000];
    bytes[..2000].copy_from_slice(&weights[..2000]);
    fs::write(&partial, bytes).unwrap();
    let state = |n: usize, text: &str| fs::write(format!("{}-{n}", partial.display()), text).unwrap();
    state(0, "{\"N\":0,\"Offset\":0,\"Size\":1500,\"Completed\":1500}\n");
    state(1, "{\"N\":1,\"Offset\":1500,\"Size\":1500,\"Completed\":500}\n");
    rig.pull(&server.name("m")).await.outcome.unwrap();
    assert_eq!(server.ranges(&digest), ["2000-2999"]);
    assert_eq!(rig.bytes(&digest), weights);
    assert_eq!(rig.files().len(), 4);
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_in_one_stream() {
    let whole = noise(1, 5000);
    let body = whole.clone();
    let server = Server::start(move |asked, honest| match honest.status {
        206 if asked.header("range").ends_with("-999") || honest.body.len() > 64 => Reply::new(200, &body),
        _ => honest.clone(),
    })
    .await;
    let rig = Rig::new();
    let (digest, _) = publish(&server, &whole);
    rig.pull(&server.name("m")).await.outcome.unwrap();
    assert_eq!(rig.bytes(&digest), whole);
}

#[tokio::test]
async fn an_empty_layer_is_a_layer() {
    let (server, rig) = (Server::honest().await, Rig::new());
    let config = server.blob(b"{}");
    let layer = Layer::new(LayerKind::License, server.blob(b""), 0);
    announce(&server, &Manifest::new(Layer::config(config, 2), vec![layer]));
    rig.pull(&server.name("m")).await.outcome.unwrap();
    assert_eq!(rig.bytes(&Digest::of(b"")), b"");
}

#[tokio::test]
async fn two_pulls_of_one_blob_download_it_once() {
    let (server, rig) = (Server::honest().await, Rig::new());
    let (digest, _) = publish(&server, &noise(1, 20_000));
    let name = server.name("m");
    let (first, second) = tokio::join!(rig.pull(&name), rig.pull(&name));
    first.outcome.unwrap();
    second.outcome.unwrap();
    assert_eq!(server.ranges(&digest).len(), 16);
}

#[tokio::test]
async fn two_processes_on_one_folder_download_a_blob_once() {
    let (server, rig) = (Server::honest().await, Rig::new());
    let twin = rig.twin();
    let (digest, _) = publish(&server, &noise(1, 20_000));
    let name = server.name("m");
    let (first, second) = tokio::join!(rig.pull(&name), twin.pull(&name));
    first.outcome.unwrap();
    second.outcome.unwrap();
    assert_eq!(server.ranges(&digest).len(), 16);
    assert_eq!(rig.files().len(), 4);
}

#[tokio::test]
async fn who_leaves_stops_the_download_unless_another_waits_for_it() {
    // One byte of each blob, and then nothing for as long as the client waits.
    let server = Server::start(|asked, honest| match asked.is_blob() {
        true => honest.clone().stopped(1, End::Hang),
        false => honest.clone(),
    })
    .await;
    let rig = Rig::with(|config| config.tuning.stall = std::time::Duration::from_secs(60));
    let (digest, _) = publish(&server, &noise(1, 1000));
    let pull = || {
        let (tell, told) = teller();
        let (transfer, wish) = (rig.transfer.clone(), Wish::parse(&server.name("m"), true).unwrap());
        let task = tokio::spawn(async move { transfer.fetch(&wish, &tell).await.map(|_| ()) });
        (task, told)
    };
    let ((first, mut told_first), (second, mut told_second)) = (pull(), pull());
    let is_moving = |line: &api::ollama::Progress| line.digest == digest.to_string();
    while !is_moving(&told_first.recv().await.unwrap()) {}
    while !is_moving(&told_second.recv().await.unwrap()) {}
    server.until(|asked| asked.is_blob()).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // The other one still hears of it.
    told_second.recv().await.unwrap();
    let partial = rig.root().join(format!("blobs/{}-partial", digest.file_name()));
    let is_held = || fs::File::open(&partial).unwrap().try_lock().is_err();
    assert!(is_held(), "the download goes on");
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    // The task ends at its next await; a lock that is free shows it.
    let released = async {
        while is_held() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), released).await.unwrap();
    assert_eq!(server.ranges(&digest).len(), 1);
}

#[tokio::test]
async fn at_most_sixteen_parts_are_asked_for_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (current, peak) = (Arc::clone(&now), Arc::clone(&most));
    let server = Server::start(move |asked, honest| {
        if asked.header("range").is_empty() {
            return honest.clone();
        }
        peak.fetch_max(current.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        honest.clone().stopped(0, End::Hang)
    })
    .await;
    let rig = Rig::with(|config| {
        config.tuning.max_part_bytes = 1000;
        config.tuning.tries = 1;
    });
    publish(&server, &noise(1, 40_000));
    let error = rig.refused(&server.name("m")).await;
    assert!(error.contains("no answer within"), "{error}");
    let most = most.load(Ordering::SeqCst);
    assert!((2..=16).contains(&most), "{most} requests");
}

//! The laws. Nothing in here knows what kind of home it is on.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use api::ollama::ShowRequest;
use futures::StreamExt;
use serde_json::json;
use store::bundle::Reader;
use store::transfer::Tell;
use store::{Digest, Error, Pruned};
use tokio::sync::mpsc;

use crate::place::{Place, create, fetch, gguf, listed, model, name, upload, writer};

const HOUR: Duration = Duration::from_secs(60 * 60);

pub async fn what_is_made_is_listed_read_and_shown(place: &Place) {
    let store = place.open("one").await;
    let made = model(&store, "m", "Be brief.").await;
    assert_eq!(listed(&store).await, ["m:latest"]);
    let read = place.open("two").await.get(&name("m")).await.unwrap();
    assert_eq!((read.digest.as_str(), read.system.as_deref()), (made.digest.as_str(), Some("Be brief.")));
    assert_eq!((read.size, &read.weights), (made.size, &made.weights));
    assert_eq!(read.details.context_length, Some(2048));
    assert!(read.modified_at.elapsed().unwrap_or_default() < HOUR);
    let shown = store.show(&name("m"), &ShowRequest::default()).await.unwrap();
    assert_eq!(shown.model_info["general.architecture"], "llama");
    assert_eq!(shown.tensors[0].name, "token_embd.weight");
    let weights = read.weights.clone().unwrap();
    assert!(shown.modelfile.contains(&format!("blobs/{}", weights.file_name())), "{}", shown.modelfile);
}

pub async fn a_name_is_found_in_any_case_and_keeps_its_spelling(place: &Place) {
    let store = place.open("one").await;
    model(&store, "Ns/Model:Tag", "a").await;
    assert_eq!(store.get(&name("ns/mODEL:tag")).await.unwrap().name.shortest(), "Ns/Model:Tag");
    model(&store, "NS/MODEL:TAG", "b").await;
    assert_eq!(listed(&store).await, ["Ns/Model:Tag"]);
    assert_eq!(store.get(&name("Ns/Model:Tag")).await.unwrap().system.as_deref(), Some("b"));
    store.delete(&name("ns/model:tag")).await.unwrap();
    assert!(matches!(store.get(&name("Ns/Model:Tag")).await, Err(Error::NotFound(_))));
}

pub async fn each_part_of_a_new_name_is_spelled_as_it_is_there(place: &Place) {
    let store = place.open("one").await;
    model(&store, "localhost:5000/Team/Model:A", "a").await;
    store.copy(&name("localhost:5000/Team/Model:A"), &name("LOCALHOST:5000/team/MODEL:b")).await.unwrap();
    store.copy(&name("localhost:5000/Team/Model:A"), &name("localhost:5000/team/other:b")).await.unwrap();
    assert_eq!(
        listed(&store).await,
        ["localhost:5000/Team/Model:A", "localhost:5000/Team/Model:b", "localhost:5000/Team/other:b"]
    );
}

pub async fn an_upload_with_another_digest_leaves_nothing(place: &Place) {
    let store = place.open("one").await;
    let digest = Digest::of(b"what was promised");
    let mut wrong = store.upload(digest.clone()).await.unwrap();
    wrong.write("what came".into()).await.unwrap();
    assert!(matches!(wrong.commit().await, Err(Error::Mismatch { .. })));
    let mut half = store.upload(digest.clone()).await.unwrap();
    half.write("what was".into()).await.unwrap();
    drop(half);
    assert!(!store.has_blob(&digest).await);
    assert_eq!((place.blobs().await.len(), place.cached("one").len()), (0, 0));
    let mut right = store.upload(digest.clone()).await.unwrap();
    right.write("what was promised".into()).await.unwrap();
    assert!(right.commit().await.unwrap(), "it is new");
    assert!(store.has_blob(&digest).await);
    let again = store.upload(Digest::of(b"")).await.unwrap();
    assert!(again.commit().await.unwrap() && place.blobs().await.len() == 2, "even an empty one");
}

pub async fn a_copy_shares_its_blobs_and_outlives_the_original(place: &Place) {
    let store = place.open("one").await;
    let made = model(&store, "a", "s").await;
    let before = place.blobs().await;
    store.copy(&name("a"), &name("b")).await.unwrap();
    assert_eq!(place.blobs().await, before);
    assert!(matches!(store.copy(&name("none"), &name("c")).await, Err(Error::SourceNotFound(_))));
    store.delete(&name("a")).await.unwrap();
    assert_eq!(place.blobs().await, before);
    assert_eq!(store.get(&name("b")).await.unwrap().digest, made.digest);
}

pub async fn what_another_process_writes_is_seen_at_once(place: &Place) {
    let (one, two) = (place.open("one").await, place.open("two").await);
    model(&one, "m", "first").await;
    assert_eq!(two.get(&name("m")).await.unwrap().system.as_deref(), Some("first"));
    // As long as the one before, and within the same second.
    model(&one, "m", "again").await;
    assert_eq!(two.get(&name("m")).await.unwrap().system.as_deref(), Some("again"));
    assert_eq!(two.list().await.unwrap()[0].system.as_deref(), Some("again"));
    one.delete(&name("m")).await.unwrap();
    assert!(two.list().await.unwrap().is_empty());
    assert!(matches!(two.delete(&name("m")).await, Err(Error::NotFound(_))));
}

pub async fn a_delete_removes_what_only_that_model_used(place: &Place) {
    let store = place.open("one").await;
    model(&store, "kept", "kept").await;
    let kept = place.blobs().await;
    model(&store, "gone", "gone").await;
    assert!(place.blobs().await.len() > kept.len());
    store.delete(&name("gone")).await.unwrap();
    assert_eq!(place.blobs().await, kept);
    // What a create replaces goes, too.
    create(&store, json!({"model": "kept", "from": "kept", "system": "other"})).await.unwrap();
    assert!(!place.blobs().await.contains(&Digest::of(b"kept").file_name()));
}

pub async fn what_another_process_is_about_to_name_survives_a_delete(place: &Place) {
    let share = |config: &mut store::StoreConfig| (config.shared, config.grace) = (true, HOUR);
    let (one, two) = (place.open_with("one", share).await, place.open_with("two", share).await);
    let weights = model(&one, "m", "s").await.weights.clone().unwrap();
    // A client of the second has asked whether the weights are there, and been told so.
    assert!(two.has_blob(&weights).await);
    one.delete(&name("m")).await.unwrap();
    let files = json!({"model.gguf": weights.to_string()});
    create(&two, json!({"model": "other", "files": files})).await.unwrap();
    assert_eq!(two.get(&name("other")).await.unwrap().weights, Some(weights));
    // What nobody named is for the pruning, when it is old enough.
    assert!(place.blobs().await.contains(&Digest::of(b"s").file_name()));
    assert_eq!(two.prune().await.unwrap(), Pruned::default());
    let later = place.open_with("three", |config| config.shared = true).await;
    assert!(later.prune().await.unwrap().files > 0);
    assert!(!place.blobs().await.contains(&Digest::of(b"s").file_name()));
}

pub async fn pruning_takes_old_orphans_and_nothing_else(place: &Place) {
    let store = place.open("one").await;
    model(&store, "m", "s").await;
    let used = place.blobs().await;
    upload(&store, "orphan").await;
    let young = place.open_with("two", |config| config.grace = HOUR).await;
    assert_eq!(young.prune().await.unwrap(), Pruned::default());
    let open = store.upload(Digest::of(b"x")).await.unwrap();
    assert!(store.prune().await.unwrap().skipped, "an upload is open");
    drop(open);
    let off = place.open_with("three", |config| config.prune = false).await;
    assert!(off.prune().await.unwrap().skipped);
    assert_eq!(store.prune().await.unwrap(), Pruned { files: 1, bytes: 6, skipped: false });
    assert_eq!(place.blobs().await, used);
    assert!(store.get(&name("m")).await.is_ok());
}

pub async fn a_damaged_manifest_is_passed_over_and_stops_the_pruning(place: &Place) {
    let store = place.open("one").await;
    model(&store, "m", "s").await;
    let orphan = upload(&store, "orphan").await;
    place.put("manifests/registry.ollama.ai/library/broken/latest", b"{").await;
    place.put("manifests/registry.ollama.ai/library/no-tag", b"{").await;
    place.put("manifests/registry.ollama.ai/library/m/.tmp-x", b"{").await;
    assert_eq!(listed(&store).await, ["m:latest"]);
    assert!(matches!(store.get(&name("broken")).await, Err(Error::Json { .. })));
    assert!(store.prune().await.unwrap().skipped);
    store.delete(&name("broken")).await.unwrap();
    assert!(!store.prune().await.unwrap().skipped && !store.has_blob(&orphan).await);
}

pub async fn a_model_without_its_blob_is_told_to_be_pulled(place: &Place) {
    let store = place.open("one").await;
    let digest = Digest::of(b"nobody has it");
    let layer = json!({"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest.to_string(), "size": 3});
    let manifest = json!({"schemaVersion": 2, "config": layer, "layers": []}).to_string();
    place.put("manifests/registry.ollama.ai/library/m/latest", manifest.as_bytes()).await;
    let error = store.get(&name("m")).await.unwrap_err();
    assert_eq!(error.to_string(), "model \"m:latest\" not found, try pulling it first");
    assert!(store.list().await.unwrap().is_empty());
    let absent = fetch(&store, &digest).await.unwrap_err();
    assert!(matches!(absent, Error::Absent { .. }) && absent.to_string().contains(&digest.to_string()));
    let away = tokio::task::block_in_place(|| store.header(&digest)).unwrap_err();
    assert!(matches!(away, gguf::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
}

pub async fn a_manifest_or_a_blob_that_is_too_long_is_refused(place: &Place) {
    let store = place.open("one").await;
    let long = vec![b' '; (4 << 20) + 1];
    place.put("manifests/registry.ollama.ai/library/long/latest", &long).await;
    let text = store.get(&name("long")).await.unwrap_err().to_string();
    assert!(text.contains("manifest") && text.contains("4194304") && text.contains("4194305"), "{text}");
    let digest = upload(&store, vec![b' '; (16 << 20) + 1]).await;
    let layer = json!({"digest": digest.to_string(), "size": 3});
    let manifest = json!({"schemaVersion": 2, "config": layer, "layers": []}).to_string();
    place.put("manifests/registry.ollama.ai/library/m/latest", manifest.as_bytes()).await;
    let text = store.get(&name("m")).await.unwrap_err().to_string();
    assert!(text.contains("blob") && text.contains("16777217"), "{text}");
}

pub async fn a_header_is_read_however_long_it_is(place: &Place) {
    let store = place.open("one").await;
    for tokens in [10, 200_000] {
        let mut writer = writer("vocabulary");
        let vocabulary: Vec<String> = (0..tokens).map(|token| format!("token-{token:020}")).collect();
        writer.metadata("tokenizer.ggml.tokens", vocabulary).unwrap();
        let bytes = writer.to_bytes().unwrap();
        let digest = upload(&store, bytes.clone()).await;
        let header = tokio::task::block_in_place(|| store.header(&digest)).unwrap();
        assert_eq!(header.bytes, bytes.len() as u64);
        let whole = gguf::Gguf::parse(&bytes).unwrap();
        assert!(header.gguf.metadata.iter().eq(whole.metadata.iter()));
        assert_eq!(format!("{:?}", header.gguf.tensors), format!("{:?}", whole.tensors));
    }
}

pub async fn a_file_that_is_no_model_is_refused_and_goes(place: &Place) {
    let store = place.open("one").await;
    for (file, bytes, text) in [
        ("model.gguf", b"hello".to_vec(), "supplied file was not in GGUF format"),
        ("model.gguf", b"".to_vec(), "supplied file was not in GGUF format"),
        ("model.gguf", gguf("cut")[..40].to_vec(), "needs"),
        ("model.txt", b"hello".to_vec(), "unknown type"),
    ] {
        let digest = upload(&store, bytes).await;
        let request = json!({"model": "m", "files": {file: digest.to_string()}});
        let error = create(&store, request).await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert_eq!(store.has_blob(&digest).await, file == "model.txt", "{text}");
    }
    let missing = json!({"model": "m", "files": {"model.gguf": Digest::of(b"none").to_string()}});
    assert!(matches!(create(&store, missing).await, Err(Error::BlobNotFound { .. })));
    assert!(listed(&store).await.is_empty());
}

pub async fn a_blob_is_brought_to_this_machine_whole(place: &Place) {
    let store = place.open("one").await;
    let bytes = crate::place::noise(3_000_000, 1);
    let digest = upload(&store, bytes.clone()).await;
    let two = place.open("two").await;
    let file = fetch(&two, &digest).await.unwrap();
    assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
    let cached = tokio::task::block_in_place(|| two.cached(&digest)).unwrap();
    assert_eq!(cached.path(), file.path());
}

pub async fn models_travel_as_one_file(place: &Place) {
    let store = place.open("one").await;
    let made = model(&store, "m", "s").await;
    let bundle = store.bundle(vec![name("m")]).await.unwrap();
    let length = bundle.bytes;
    let bytes: Vec<_> = bundle.into_stream().map(Result::unwrap).collect().await;
    assert_eq!(bytes.iter().map(|chunk| chunk.len() as u64).sum::<u64>(), length);
    store.delete(&name("m")).await.unwrap();
    assert!(place.blobs().await.is_empty());
    let (lines, mut told) = mpsc::channel(100);
    let reading = Reader::new(futures::stream::iter(bytes.into_iter().map(Ok::<_, std::io::Error>)));
    let loaded = std::sync::Arc::new(reading.load(&store, &Tell::new(lines)).await.unwrap());
    store.settle(loaded, name("m")).await.unwrap();
    assert_eq!(store.get(&name("m")).await.unwrap().digest, made.digest);
    assert!(told.try_recv().is_ok());
}

pub async fn a_blob_that_is_made_here_lasts(place: &Place) {
    let store = place.open("one").await;
    let making = store.clone();
    let make = move || {
        let mut blob = making.new_blob().unwrap();
        blob.write_all(b"made here").unwrap();
        blob.publish(&mut |sent, total| {
            assert!(sent <= total && total == 9);
            ControlFlow::Continue(())
        })
    };
    let digest = tokio::task::spawn_blocking(make).await.unwrap().unwrap();
    assert_eq!(digest, Digest::of(b"made here"));
    assert_eq!(place.blobs().await, [digest.file_name()]);
    let file = fetch(&place.open("two").await, &digest).await.unwrap();
    assert_eq!(std::fs::read(file.path()).unwrap(), b"made here");
}

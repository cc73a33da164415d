//! What a process that died leaves behind, and start-up pruning.

use std::time::Duration;

use serde_json::json;
use store::{Digest, Pruned, Store};

use crate::fixture::{Folder, name};

const SKIPPED: Pruned = Pruned { files: 0, bytes: 0, skipped: true };

fn orphan(folder: &Folder, content: &str) -> String {
    let file = format!("blobs/{}", Digest::of(content.as_bytes()).file_name());
    folder.write(&file, content);
    file
}

#[tokio::test]
async fn old_orphans_go_and_young_ones_stay() {
    let folder = Folder::new();
    folder.model("a", json!({"system": "used"})).await;
    folder.age(&format!("blobs/{}", Digest::of(b"used").file_name()));
    let mut expected = folder.files();
    expected.insert(orphan(&folder, "young"));
    let old = orphan(&folder, "old");
    folder.age(&old);
    assert_eq!(folder.store.prune().await.unwrap(), Pruned { files: 1, bytes: 3, skipped: false });
    assert_eq!(folder.files(), expected);
}

#[tokio::test]
async fn what_is_in_use_for_long_is_kept_from_other_processes() {
    let folder = Folder::new();
    let digest = folder.model("a", json!({})).await.weights.clone().unwrap();
    let file = format!("blobs/{}", digest.file_name());
    let shared = || store::StoreConfig { shared: true, ..store::StoreConfig::from(folder.path("")) };
    let (here, there) = (Store::open(shared()).unwrap(), Store::open(shared()).unwrap());
    let in_use = here.bundle(vec![name("a")]).await.unwrap();
    folder.age(&file);
    here.keep_young().await.unwrap();
    there.delete(&name("a")).await.unwrap();
    assert!(folder.files().contains(&file));
    folder.age(&file);
    assert_eq!(there.prune().await.unwrap().files, 0, "an hour is not enough for a cluster");
    drop(in_use);
    here.keep_young().await.unwrap();
    folder.age_by(&file, Duration::from_secs(25 * 60 * 60));
    assert!(there.prune().await.unwrap().files > 0 && !folder.files().contains(&file));
}

#[tokio::test]
async fn what_a_dead_process_left_is_not_listed_and_goes_after_an_hour() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    let before = folder.files();
    let left = [
        "manifests/registry.ollama.ai/library/a/.tmp-abc",
        "blobs/.tmp-abc",
        "blobs/sha256-123456",
        "blobs/x",
    ];
    for file in left {
        folder.write(file, "half");
    }
    assert_eq!(folder.listed().await, ["a:latest"]);
    assert_eq!(folder.store.prune().await.unwrap(), Pruned::default());
    for file in left {
        folder.age(file);
    }
    assert_eq!(folder.store.prune().await.unwrap(), Pruned { files: 4, bytes: 16, skipped: false });
    assert_eq!(folder.files(), before);
}

#[tokio::test]
async fn a_download_that_was_cut_goes_a_day_after_its_last_byte_and_as_a_whole() {
    let folder = Folder::new();
    let data = format!("blobs/{}-partial", Digest::of(b"x").file_name());
    let (first, second) = (format!("{data}-0"), format!("{data}-1"));
    for file in [&data, &first, &second] {
        folder.write(file, "half");
        folder.age_by(file, Duration::from_secs(25 * 60 * 60));
    }
    folder.age_by(&second, Duration::from_secs(23 * 60 * 60));
    assert_eq!(folder.store.prune().await.unwrap(), Pruned::default());
    folder.age_by(&second, Duration::from_secs(25 * 60 * 60));
    assert_eq!(folder.store.prune().await.unwrap().files, 3);
}

#[tokio::test]
async fn empty_folders_of_manifests_go() {
    let folder = Folder::new();
    folder.model("a", json!({})).await;
    std::fs::create_dir_all(folder.path("manifests/host/user/model")).unwrap();
    folder.store.prune().await.unwrap();
    assert!(!folder.path("manifests/host").exists());
    assert!(folder.path("manifests/registry.ollama.ai/library/a/latest").exists());
}

#[tokio::test]
async fn nothing_is_pruned_while_a_manifest_is_damaged() {
    let folder = Folder::new();
    let old = orphan(&folder, "old");
    folder.age(&old);
    folder.write("manifests/registry.ollama.ai/library/torn/latest", b"{");
    assert_eq!(folder.store.prune().await.unwrap(), SKIPPED);
    folder.delete("torn").await.unwrap();
    assert_eq!(folder.store.prune().await.unwrap().files, 1);
}

#[tokio::test]
async fn nothing_is_pruned_while_an_upload_is_open() {
    let folder = Folder::new();
    let old = orphan(&folder, "old");
    folder.age(&old);
    let upload = folder.store.upload(Digest::of(b"x")).await.unwrap();
    assert_eq!(folder.store.prune().await.unwrap(), SKIPPED);
    drop(upload);
    assert_eq!(folder.store.prune().await.unwrap().files, 1);
}

#[tokio::test]
async fn nothing_is_pruned_when_the_operator_says_so() {
    let folder = Folder::without_pruning();
    let old = orphan(&folder, "old");
    folder.age(&old);
    assert_eq!(folder.store.prune().await.unwrap(), SKIPPED);
    assert!(folder.files().contains(&old));
}

#[tokio::test]
async fn a_blob_that_is_uploaded_again_counts_as_young() {
    let folder = Folder::new();
    let digest = folder.upload("again").await;
    folder.age(&format!("blobs/{}", digest.file_name()));
    folder.upload("again").await;
    assert_eq!(folder.store.prune().await.unwrap(), Pruned::default());
}

#[tokio::test]
async fn a_blob_that_somebody_asked_for_counts_as_young() {
    let folder = Folder::new();
    let old = orphan(&folder, "wanted");
    folder.age(&old);
    assert!(folder.store.has_blob(&Digest::of(b"wanted")).await);
    assert_eq!(folder.store.prune().await.unwrap(), Pruned::default());
}

#[tokio::test]
async fn a_dead_process_between_blob_and_manifest_costs_only_space() {
    let folder = Folder::new();
    folder.model("a", json!({"system": "old"})).await;
    // All blobs of the new version are there, the manifest was not renamed yet.
    let blob = orphan(&folder, "new system");
    folder.write("manifests/registry.ollama.ai/library/a/.tmp-zzz", b"{\"schemaVersion\":2");
    let store = folder.reopened();
    assert_eq!(store.get(&name("a")).await.unwrap().system.as_deref(), Some("old"));
    folder.age(&blob);
    folder.age("manifests/registry.ollama.ai/library/a/.tmp-zzz");
    assert_eq!(store.prune().await.unwrap().files, 2);
    assert_eq!(store.get(&name("a")).await.unwrap().system.as_deref(), Some("old"));
}

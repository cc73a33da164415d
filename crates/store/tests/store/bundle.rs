//! Models as one file: what is written can be read by us and by any tar, and what is no bundle is refused whole.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use serde_json::json;
use store::bundle::Reader;
use store::transfer::Tell;
use store::{Digest, Error, Result};
use tar::{EntryType, Header};
use tokio::sync::mpsc;

use crate::fixture::{Folder, answer, name};

/// The bytes of a file with these models.
async fn save(folder: &Folder, models: &[&str]) -> Vec<u8> {
    let bundle = folder.store.bundle(models.iter().map(|model| name(model)).collect()).await.unwrap();
    let expected = bundle.bytes;
    let chunks: Vec<Bytes> = bundle.into_stream().try_collect().await.unwrap();
    let bytes = chunks.concat();
    assert_eq!(bytes.len() as u64, expected, "the length is known before");
    bytes
}

/// Loads as a gateway does, in pieces that fit nowhere. Answers the statuses.
async fn load(folder: &Folder, bytes: &[u8]) -> Result<Vec<String>> {
    let chunks = bytes.chunks(701).map(|chunk| Ok::<_, Infallible>(Bytes::copy_from_slice(chunk)));
    let (lines, mut told) = mpsc::channel(10_000);
    let loaded = Reader::new(stream::iter(chunks)).load(&folder.store, &Tell::new(lines)).await?;
    let loaded = Arc::new(loaded);
    for name in loaded.names() {
        folder.store.settle(Arc::clone(&loaded), name).await?;
    }
    let mut statuses = Vec::new();
    while let Some(line) = told.recv().await {
        statuses.push(line.status);
    }
    Ok(statuses)
}

/// That a file is refused, with which text, and that it leaves nothing.
async fn refused(bytes: &[u8]) -> String {
    let folder = Folder::new();
    let (status, text) = answer(load(&folder, bytes).await.unwrap_err());
    assert_eq!(status, 400, "{text}");
    assert!(folder.files().is_empty(), "{:?} was left after: {text}", folder.files());
    text
}

#[tokio::test]
async fn a_model_goes_through_a_file_byte_for_byte() {
    let (from, to) = (Folder::new(), Folder::new());
    from.model("m", json!({"system": "Be brief.", "license": ["MIT"]})).await;
    let bytes = save(&from, &["m"]).await;
    let statuses = load(&to, &bytes).await.unwrap();
    assert!(statuses.iter().all(|status| status.starts_with("loading ")), "{statuses:?}");
    assert_eq!(to.files(), from.files());
    for file in from.files() {
        assert_eq!(std::fs::read(to.path(&file)).unwrap(), std::fs::read(from.path(&file)).unwrap());
    }
    assert_eq!(to.get("m").await.unwrap().digest, from.get("m").await.unwrap().digest);
    assert_eq!(save(&to, &["m"]).await, bytes, "the same models make the same file");
    load(&to, &bytes).await.unwrap();
    assert_eq!(to.files(), from.files(), "loading again changes nothing");
}

#[tokio::test]
async fn any_tar_unpacks_it_into_a_models_folder() {
    let (from, to) = (Folder::new(), Folder::new());
    let long =
        format!("{}.example:5000/{}/{}:{}", "h".repeat(200), "n".repeat(80), "m".repeat(80), "t".repeat(80));
    from.model("m", json!({})).await;
    from.copy("m", &long).await.unwrap();
    let bytes = save(&from, &["m", &long]).await;
    tar::Archive::new(&bytes[..]).unpack(to.path(".")).unwrap();
    assert_eq!(to.listed().await.len(), 2);
    assert_eq!(to.files(), from.files(), "what two models share is there once");
    let other = Folder::new();
    load(&other, &bytes).await.unwrap();
    assert_eq!(other.files(), from.files());
}

#[tokio::test]
async fn a_newer_model_takes_the_place_of_the_older_one() {
    let (from, to) = (Folder::new(), Folder::new());
    from.model("m", json!({"system": "new"})).await;
    to.model("M", json!({"system": "old"})).await;
    load(&to, &save(&from, &["m"]).await).await.unwrap();
    assert_eq!(to.listed().await, ["M:latest"], "the stored spelling stays");
    assert_eq!(to.get("m").await.unwrap().system.as_deref(), Some("new"));
    assert!(!to.store.blob_path(&Digest::of(b"old")).exists());
}

#[tokio::test]
async fn what_is_not_there_is_not_saved() {
    let folder = Folder::new();
    let missing = folder.store.bundle(vec![name("m")]).await.err().unwrap();
    assert_eq!(answer(missing), (404, "model 'm:latest' not found".to_owned()));
    let model = folder.model("m", json!({})).await;
    std::fs::remove_file(folder.store.blob_path(&model.weights.clone().unwrap())).unwrap();
    assert!(matches!(folder.store.bundle(vec![name("m")]).await, Err(Error::Incomplete { .. })));
}

#[tokio::test]
async fn a_blob_that_shrinks_cuts_the_file() {
    let folder = Folder::new();
    let model = folder.model("m", json!({})).await;
    let bundle = folder.store.bundle(vec![name("m")]).await.unwrap();
    std::fs::write(folder.store.blob_path(&model.weights.clone().unwrap()), b"short").unwrap();
    let read: io::Result<Vec<Bytes>> = bundle.into_stream().try_collect().await;
    assert!(read.unwrap_err().to_string().contains("shorter than before"));
}

/// A tar of our own making.
fn tar_of(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        // By hand: the crate itself would refuse what we want to see refused.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/{}", Digest::of(bytes).file_name())
}

const PLAIN: EntryType = EntryType::Regular;
const MANIFEST: &str = "manifests/registry.ollama.ai/library/m/latest";

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused() {
    for path in
        ["../evil", "/etc/passwd", "manifests/../../evil/x/y", "blobs/../x", "evil", "blobs/sha256-12"]
    {
        let text = refused(&tar_of(&[(path, PLAIN, b"x")])).await;
        assert_eq!(text, format!("\"{path}\" is neither a manifest nor a blob"));
    }
}

#[tokio::test]
async fn links_and_devices_are_refused() {
    let path = blob_path(b"x");
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo, EntryType::GNUSparse]
    {
        let text = refused(&tar_of(&[(&path, kind, b"")])).await;
        assert_eq!(text, format!("\"{path}\" is no plain file"));
    }
}

#[tokio::test]
async fn a_blob_with_other_bytes_than_its_digest_is_refused() {
    let good = blob_path(b"good");
    let text = refused(&tar_of(&[(&blob_path(b"first"), PLAIN, b"first"), (&good, PLAIN, b"evil")])).await;
    let (want, got) = (Digest::of(b"good"), Digest::of(b"evil"));
    assert_eq!(text, format!("digest mismatch, expected \"{want}\", got \"{got}\""));
}

#[tokio::test]
async fn an_entry_that_comes_twice_is_refused() {
    let path = blob_path(b"x");
    let dotted = format!("./{path}");
    let text = refused(&tar_of(&[(&path, PLAIN, b"x"), (&dotted, PLAIN, b"x")])).await;
    assert_eq!(text, format!("\"{dotted}\" is in the file twice"));
}

#[tokio::test]
async fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let from = Folder::new();
    from.model("m", json!({})).await;
    let whole = save(&from, &["m"]).await;
    for length in
        [0, 1, 511, 512, 700, whole.len() / 2, whole.len() - 1536, whole.len() - 1024, whole.len() - 512]
    {
        let text = refused(&whole[..length]).await;
        assert!(text.starts_with("the file ends early, after"), "{length}: {text}");
    }
}

#[tokio::test]
async fn what_is_no_tar_is_refused() {
    assert!(refused(&[b'x'; 2000]).await.starts_with("the file is no tar"));
    assert_eq!(refused(&[0; 1024]).await, "no model is in the file");
    let blob = tar_of(&[(&blob_path(b"x"), PLAIN, b"x")]);
    assert_eq!(refused(&blob).await, "no model is in the file");
    let mut tail = blob.clone();
    tail.extend_from_slice(&[1; 600]);
    assert_eq!(refused(&tail).await, "the file is no tar: bytes follow its end");
    tail.truncate(blob.len());
    tail.extend_from_slice(&vec![0; 2 << 20]);
    assert!(refused(&tail).await.starts_with("the bytes after the end must be at most 1048576, got"));
    let mut spoiled = blob;
    spoiled[0] = b'c';
    assert_eq!(refused(&spoiled).await, "the file is no tar: a header has a wrong checksum");
}

#[tokio::test]
async fn a_manifest_without_its_blobs_is_refused() {
    let config = Digest::of(b"{}");
    let manifest = |size: u64| json!({"config": {"digest": config.to_string(), "size": size}}).to_string();
    let alone = refused(&tar_of(&[(MANIFEST, PLAIN, manifest(2).as_bytes())])).await;
    assert_eq!(alone, format!("\"m:latest\" needs {config}, which is neither in the file nor in the store"));
    let blob = (blob_path(b"{}"), b"{}");
    let lying = tar_of(&[(&blob.0, PLAIN, blob.1), (MANIFEST, PLAIN, manifest(3).as_bytes())]);
    assert_eq!(refused(&lying).await, format!("\"m:latest\" needs 3 bytes of {config}, which has 2"));
    let text = refused(&tar_of(&[(MANIFEST, PLAIN, b"{")])).await;
    assert!(text.starts_with("\"m:latest\" cannot be read: "), "{text}");
    // A header that promises more than any manifest has is refused before its bytes are read.
    let mut header = Header::new_gnu();
    header.set_path(MANIFEST).unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let text = refused(header.as_bytes()).await;
    assert_eq!(text, "the bytes of a manifest must be at most 4194304, got 1099511627776");
}

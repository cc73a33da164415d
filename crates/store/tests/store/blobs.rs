//! Uploads.

use bytes::Bytes;
use store::Digest;

use crate::fixture::{Folder, message};

#[tokio::test]
async fn a_blob_is_stored_under_its_digest_and_only_once() {
    let folder = Folder::new();
    let digest = Digest::of(b"hello");
    assert!(!folder.store.has_blob(&digest).await);
    for is_new in [true, false] {
        let mut upload = folder.store.upload(digest.clone()).await.unwrap();
        upload.write(Bytes::from_static(b"hel")).await.unwrap();
        upload.write(Bytes::from_static(b"lo")).await.unwrap();
        assert_eq!(upload.commit().await.unwrap(), is_new);
    }
    assert!(folder.store.has_blob(&digest).await);
    assert_eq!(std::fs::read(folder.store.blob_path(&digest)).unwrap(), b"hello");
    assert_eq!(folder.files(), [format!("blobs/{}", digest.file_name())].into());
}

#[tokio::test]
async fn an_upload_larger_than_its_buffer_arrives_whole() {
    let folder = Folder::new();
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i / 7) as u8).collect();
    let mut upload = folder.store.upload(Digest::of(&bytes)).await.unwrap();
    for piece in bytes.chunks(300_001) {
        upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert!(upload.commit().await.unwrap());
    assert_eq!(std::fs::read(folder.store.blob_path(&Digest::of(&bytes))).unwrap(), bytes);
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let folder = Folder::new();
    let upload = folder.store.upload(Digest::of(b"")).await.unwrap();
    assert!(upload.commit().await.unwrap());
    assert!(folder.store.has_blob(&Digest::of(b"")).await);
}

#[tokio::test]
async fn a_blob_with_another_digest_is_refused_and_removed() {
    let folder = Folder::new();
    let mut upload = folder.store.upload(Digest::of(b"hello")).await.unwrap();
    upload.write(Bytes::from_static(b"help")).await.unwrap();
    let text =
        format!(r#"digest mismatch, expected "{}", got "{}""#, Digest::of(b"hello"), Digest::of(b"help"));
    assert_eq!(message(upload.commit().await), (400, text));
    assert!(folder.files().is_empty());
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let folder = Folder::new();
    let mut upload = folder.store.upload(Digest::of(b"hello")).await.unwrap();
    upload.write(Bytes::from(vec![0; 3 << 20])).await.unwrap();
    assert_eq!(folder.files().len(), 1, "the temporary file");
    drop(upload);
    assert!(folder.files().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_upload_the_same_blob_at_once() {
    let folder = Folder::new();
    let bytes = Bytes::from(vec![7; 2 << 20]);
    let digest = Digest::of(&bytes);
    let uploads = (0..8).map(|_| {
        let (store, digest, bytes) = (folder.store.clone(), digest.clone(), bytes.clone());
        tokio::spawn(async move {
            let mut upload = store.upload(digest).await?;
            for start in (0..bytes.len()).step_by(100_000) {
                upload.write(bytes.slice(start..bytes.len().min(start + 100_000))).await?;
            }
            upload.commit().await
        })
    });
    for upload in uploads.collect::<Vec<_>>() {
        upload.await.unwrap().unwrap();
    }
    assert_eq!(folder.files(), [format!("blobs/{}", digest.file_name())].into());
    assert_eq!(std::fs::read(folder.store.blob_path(&digest)).unwrap(), bytes);
}

#[cfg(unix)]
#[tokio::test]
async fn others_may_read_what_we_write() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    // Whatever the mask of this process, a plain file shows it.
    folder.write("plain", b"");
    let expected = std::fs::metadata(folder.path("plain")).unwrap().permissions().mode() & 0o644;
    let digest = folder.upload("hello").await;
    let mode = std::fs::metadata(folder.store.blob_path(&digest)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, expected);
}

//! A blob on its way into the bucket: small ones in one piece, others in parts, which become an object all at once.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryFutureExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::time::timeout;

use crate::{Error, Result};

/// Four times what S3 wants of a part at least; memory is this for each part on its way.
const PART_BYTES: u64 = 16 << 20;
/// S3 takes no more of one object.
const MAX_PARTS: u64 = 10_000;
/// Parts on their way at the same time.
const STREAMS: usize = 4;
/// To take back what was sent of an object that is not wanted any more; the bucket's own rules do what this cannot.
const ABORT: Duration = Duration::from_secs(10);

/// How far it is, and whether anybody still wants it.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) sent: AtomicU64,
    pub(super) stop: AtomicBool,
}

/// Where the bytes go, and how its errors are told.
pub(super) struct Target<'a> {
    pub(super) store: &'a dyn ObjectStore,
    pub(super) key: &'a Path,
    pub(super) wrong: &'a (dyn Fn(&object_store::Error) -> crate::Error + Sync),
    pub(super) unreadable: &'a (dyn Fn(std::io::Error) -> crate::Error + Sync),
    pub(super) progress: &'a Progress,
}

// === impl Target ===

impl Target<'_> {
    /// Sends `bytes` of a file. It reads on the thread that it runs on, which may block.
    ///
    /// # Errors
    /// [`Error::Canceled`] at the end of a part when it was told to stop; nothing is left of it then.
    pub(super) async fn send(&self, mut file: File, bytes: u64) -> Result<()> {
        if bytes <= PART_BYTES {
            let piece = self.read(&mut file, bytes)?;
            self.store.put(self.key, piece.into()).await.map_err(|error| (self.wrong)(&error))?;
            return self.tell(bytes);
        }
        let mut upload = self.store.put_multipart(self.key).await.map_err(|error| (self.wrong)(&error))?;
        let whole = match self.parts(&mut *upload, file, bytes).await {
            Ok(()) => upload.complete().await.map(drop).map_err(|error| (self.wrong)(&error)),
            Err(error) => Err(error),
        };
        if whole.is_err() {
            let _ = timeout(ABORT, upload.abort()).await;
        }
        whole
    }

    async fn parts(&self, upload: &mut dyn MultipartUpload, mut file: File, bytes: u64) -> Result<()> {
        let size = part_bytes(bytes);
        let (mut left, mut done) = (bytes, 0);
        let mut running = FuturesUnordered::new();
        loop {
            while left > 0 && running.len() < STREAMS {
                let length = size.min(left);
                let piece = self.read(&mut file, length)?;
                running.push(upload.put_part(piece.into()).map_ok(move |()| length));
                left -= length;
            }
            let Some(part) = running.next().await else { return Ok(()) };
            done += part.map_err(|error| (self.wrong)(&error))?;
            self.tell(done)?;
        }
    }

    fn tell(&self, sent: u64) -> Result<()> {
        self.progress.sent.store(sent, Ordering::Relaxed);
        if self.progress.stop.load(Ordering::Relaxed) { Err(Error::Canceled) } else { Ok(()) }
    }

    fn read(&self, file: &mut File, bytes: u64) -> Result<Vec<u8>> {
        let mut piece = vec![0; bytes as usize];
        file.read_exact(&mut piece).map_err(self.unreadable)?;
        Ok(piece)
    }
}

/// All parts but the last are of one size, which some servers insist on.
fn part_bytes(bytes: u64) -> u64 {
    PART_BYTES.max(bytes.div_ceil(MAX_PARTS))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn no_object_has_more_parts_than_are_taken() {
        for bytes in [1, PART_BYTES, PART_BYTES * MAX_PARTS, PART_BYTES * MAX_PARTS + 1, 4 << 40] {
            assert!(bytes.div_ceil(part_bytes(bytes)) <= MAX_PARTS, "{bytes}");
        }
    }

    async fn send(bytes: u64, stop: bool) -> (Result<()>, u64, Option<Vec<u8>>) {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..bytes).map(|at| (at / 1000) as u8).collect();
        std::io::Write::write_all(&mut file, &content).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let (store, key) = (InMemory::new(), Path::from("blob"));
        let progress = Progress { stop: AtomicBool::new(stop), ..Progress::default() };
        let target = Target {
            store: &store,
            key: &key,
            wrong: &|error| panic!("{error}"),
            unreadable: &|error| panic!("{error}"),
            progress: &progress,
        };
        let outcome = target.send(file, bytes).await;
        let stored = match store.get(&key).await {
            Ok(object) => Some(object.bytes().await.unwrap().to_vec()),
            Err(_) => None,
        };
        assert!(stored.as_ref().is_none_or(|stored| *stored == content));
        (outcome, progress.sent.into_inner(), stored)
    }

    #[tokio::test]
    async fn what_is_sent_in_parts_arrives_whole() {
        for bytes in [0, 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES + 7] {
            let (outcome, told, stored) = send(bytes, false).await;
            outcome.unwrap();
            assert_eq!((told, stored.unwrap().len() as u64), (bytes, bytes));
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_there_in_part() {
        let (outcome, told, stored) = send(5 * PART_BYTES, true).await;
        assert!(matches!(outcome, Err(Error::Canceled)) && told < 5 * PART_BYTES && stored.is_none());
    }
}

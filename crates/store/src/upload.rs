//! Receiving a blob: into a temporary file, hashed on the way, named only when the digest is right.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tempfile::NamedTempFile;

use crate::digest::Hasher;
use crate::home::{self, unwatched};
use crate::store::Inner;
use crate::{Digest, Error, Result, durable};

/// A trip to a blocking thread costs some microseconds; bodies arrive in pieces of 16 KiB and less. Collecting this
/// much first makes the trips cheap and the memory of an upload bounded.
const COLLECT: usize = 1 << 20;

/// A blob on its way in. Dropped before [`Upload::commit`], it leaves nothing behind.
pub struct Upload {
    expected: Digest,
    collected: Vec<Bytes>,
    collected_bytes: usize,
    /// `None` after a failed write, or while a blocking thread has it.
    sink: Option<Sink>,
}

/// The part that blocking threads work on.
struct Sink {
    file: NamedTempFile,
    hasher: Hasher,
    open: Open,
}

/// Counted, because nothing is pruned while an upload is open.
pub(crate) struct Open(pub(crate) Arc<Inner>);

// === impl Upload ===

impl Upload {
    pub(crate) fn start(inner: Arc<Inner>, expected: Digest) -> Result<Upload> {
        inner.uploads.fetch_add(1, Ordering::SeqCst);
        let open = Open(inner);
        let file = durable::temporary(open.0.home.incoming())?;
        let sink = Sink { file, hasher: Hasher::default(), open };
        Ok(Upload { expected, collected: Vec::new(), collected_bytes: 0, sink: Some(sink) })
    }

    /// Takes the next bytes. Waits for the disk, so a fast sender is slowed down.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.collected_bytes += bytes.len();
        self.collected.push(bytes);
        if self.collected_bytes < COLLECT {
            return Ok(());
        }
        let pieces = self.take();
        let sink = self.sink.take().ok_or(Error::Canceled)?;
        self.sink = Some(blocking(move || sink.write(pieces)).await?);
        Ok(())
    }

    /// Verifies the digest, makes the blob durable and names it. Says whether it is new.
    ///
    /// # Errors
    /// [`Error::Mismatch`]; the bytes are gone then.
    pub async fn commit(mut self) -> Result<bool> {
        let pieces = self.take();
        let sink = self.sink.take().ok_or(Error::Canceled)?;
        let expected = self.expected;
        blocking(move || sink.write(pieces)?.finish(&expected)).await
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.collected_bytes = 0;
        std::mem::take(&mut self.collected)
    }
}

// === impl Sink ===

impl Sink {
    fn write(mut self, pieces: Vec<Bytes>) -> Result<Sink> {
        for piece in pieces {
            self.hasher.update(&piece);
            // Through the file itself: a temporary one puts its path into errors, which have it already.
            self.file.as_file_mut().write_all(&piece).map_err(Error::io("write", self.file.path()))?;
        }
        Ok(self)
    }

    fn finish(self, expected: &Digest) -> Result<bool> {
        let Sink { file, hasher, open } = self;
        let actual = hasher.finish();
        if actual != *expected {
            return Err(Error::Mismatch { expected: expected.to_string(), actual: actual.to_string() });
        }
        let home = &open.0.home;
        if home.touch(expected)? {
            return Ok(false);
        }
        durable::settle(file, &home.local(expected))?;
        home::publish(&**home, expected, &mut unwatched)?;
        Ok(true)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Task)?
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn a_full_disk_is_told_with_one_path() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut upload = store.upload(Hasher::default().finish()).await.unwrap();
        let sink = upload.sink.as_mut().unwrap();
        let place = NamedTempFile::new_in(folder.path()).unwrap().into_temp_path();
        let full = File::options().write(true).open("/dev/full").unwrap();
        sink.file = NamedTempFile::from_parts(full, place);
        let error = upload.write(Bytes::from(vec![0; COLLECT])).await.unwrap_err().to_string();
        assert!(
            error.starts_with("write `") && error.ends_with("`: No space left on device (os error 28)"),
            "{error}"
        );
        assert_eq!(error.matches(&*folder.path().to_string_lossy()).count(), 1, "{error}");
    }
}

//! One blob on its way in: its parts in parallel, resumed where they were cut, verified before it gets its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};
use tokio::time::{Instant, timeout, timeout_at};

use super::parts::{Files, plan};
use super::{Error, Tuning};
use crate::cache::Cache;
use crate::directory::{is_same, touch};
use crate::{Digest, Result, durable};

pub(crate) use super::parts::Part;

/// A part writes this much at once: the memory of a download is this for each stream.
const BUFFER_BYTES: usize = 1 << 20;
/// How often a part's progress is kept. A kill costs at most this for each stream.
const SAVE_BYTES: u64 = 4 << 20;
/// A try that brought this much was no failure, however it ended.
const FRUITFUL_BYTES: u64 = 1 << 20;
/// Fewer bytes than these in the time of a stall are one, too: a server that drips would hold us for years.
const ALIVE_BYTES: u64 = 1 << 10;

/// How far a download is, for everybody who waits for it.
#[derive(Default)]
pub(crate) struct Progress {
    completed: AtomicU64,
}

/// All that the tasks of one download need.
pub(crate) struct Download {
    /// Where the blob gets its name.
    pub(crate) folder: PathBuf,
    /// That the folder is one, and has a bound.
    pub(crate) cache: Option<Arc<Cache>>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) digest: Digest,
    pub(crate) total: u64,
    pub(crate) progress: Arc<Progress>,
    pub(crate) tuning: Tuning,
}

/// Where the bytes of blobs come from: a registry, or a bucket.
pub(crate) trait Source: Send + Sync + 'static {
    /// Asks for what is missing of a part of a blob of `total` bytes.
    ///
    /// # Errors
    /// [`Error::NoRanges`] from one that sends only the whole, unless the part is all of it.
    fn open<'a>(
        &'a self,
        digest: &'a Digest,
        total: u64,
        part: &'a Part,
    ) -> BoxFuture<'a, Result<Answer, Error>>;

    /// Where that is, for texts.
    fn url(&self, digest: &Digest) -> String;
}

/// Bytes on their way.
pub(crate) struct Answer {
    /// They begin where the blob does, whatever was asked for.
    pub(crate) is_whole: bool,
    pub(crate) chunks: BoxStream<'static, Result<Bytes, Error>>,
}

// === impl Progress ===

impl Progress {
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    fn set(&self, bytes: u64) {
        self.completed.store(bytes, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        self.completed.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take_back(&self, bytes: u64) {
        self.completed.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// === impl Download ===

impl Download {
    /// Brings the blob, unless it is there when we have the right to.
    ///
    /// # Errors
    /// After a digest that is wrong nothing is left; after anything else what can be resumed.
    pub(crate) async fn run(self) -> Result<()> {
        let files = Files::new(self.folder.clone(), &self.digest);
        let Some(claim) = self.claim(&files).await? else { return Ok(()) };
        let (prepared, cache, digest, total) =
            (files.clone(), self.cache.clone(), self.digest.clone(), self.total);
        let (kept, _claim) = blocking(move || {
            // Held until the file has its full length, which is what counts for others.
            let room = cache.map(|cache| cache.make_room(&digest, total)).transpose();
            if room.is_err() && claim.metadata().is_ok_and(|metadata| metadata.len() == 0) {
                prepared.discard()?;
            }
            let _room = room?;
            prepare(&prepared, &claim, total).map(|parts| (parts, claim))
        })
        .await?;
        let parts = kept.unwrap_or_else(|| plan(self.total, &self.tuning));
        let outcome = match self.bring(&files, parts).await {
            // It sends only the whole: then the whole it is, in one stream.
            Err(crate::Error::Transfer(Error::NoRanges { .. })) => {
                let stale = files.clone();
                blocking(move || stale.forget()).await?;
                self.bring(&files, vec![Part::whole(self.total)]).await
            }
            outcome => outcome,
        };
        match outcome {
            Ok(()) => self.settle(files).await,
            Err(crate::Error::Transfer(error)) if error.is_lie() || self.progress.completed() == 0 => {
                blocking(move || files.discard()).await?;
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }

    /// The right to write the partial file: a lock on it, which ends with the process that has it. `None` when
    /// another process has brought the blob meanwhile.
    async fn claim(&self, files: &Files) -> Result<Option<File>> {
        let mut tick = tokio::time::interval(self.tuning.tick);
        loop {
            tick.tick().await;
            let (blob, files) = (self.target(), files.clone());
            let claimed = blocking(move || {
                if touch(&blob) {
                    return Ok(Claim::Brought);
                }
                match claim_file(&files)? {
                    // Brought while we waited for the lock.
                    Claim::Ours(_) if touch(&blob) => files.discard().map(|()| Claim::Brought),
                    claim => Ok(claim),
                }
            });
            match claimed.await? {
                Claim::Brought => return Ok(None),
                Claim::Ours(file) => return Ok(Some(file)),
                // Not ours to hurry; who waits sees how far it is.
                Claim::Theirs { completed } => self.progress.set(completed.min(self.total)),
            }
        }
    }

    async fn bring(&self, files: &Files, parts: Vec<Part>) -> Result<()> {
        self.progress.set(parts.iter().map(|part| part.completed).sum());
        let missing = parts.into_iter().filter(|part| !part.is_done());
        stream::iter(missing.map(|part| self.part(files, part)))
            .buffer_unordered(self.tuning.streams)
            .try_collect::<()>()
            .await
    }

    /// One part, in as many tries as are sensible.
    async fn part(&self, files: &Files, mut part: Part) -> Result<()> {
        let mut tries = 0;
        loop {
            let before = part.completed;
            let error = match self.try_part(files, &mut part).await {
                Ok(()) => return Ok(()),
                Err(crate::Error::Transfer(error)) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            if part.completed.saturating_sub(before) >= FRUITFUL_BYTES {
                tries = 0;
            }
            tries += 1;
            tracing::debug!(digest = %self.digest, part = part.n, tries, %error, "part is tried again");
            if tries >= self.tuning.tries {
                return Err(Error::Exhausted(Box::new(error)).into());
            }
            tokio::time::sleep(self.tuning.pause(tries)).await;
        }
    }

    async fn try_part(&self, files: &Files, part: &mut Part) -> Result<()> {
        let answer = timeout(self.tuning.stall, self.source.open(&self.digest, self.total, part)).await;
        let Answer { is_whole, chunks } = answer.unwrap_or_else(|_| Err(self.stalled()))?;
        if is_whole {
            self.progress.take_back(part.completed);
            part.completed = 0;
        }
        let mut sink = Sink::open(files, part).await?;
        let received = self.receive(chunks, part, &mut sink).await;
        // What came is kept, whatever comes next.
        sink.keep(part).await?;
        received
    }

    /// Reads until the part is whole, and not a byte more.
    async fn receive(
        &self,
        mut chunks: BoxStream<'static, Result<Bytes, Error>>,
        part: &mut Part,
        sink: &mut Sink,
    ) -> Result<()> {
        let limit = self.tuning.stall;
        let (mut deadline, mut seen) = (Instant::now() + limit, 0);
        loop {
            let chunk = timeout_at(deadline, chunks.next()).await.map_err(|_| self.stalled())?;
            let Some(chunk) = chunk.transpose()? else { break };
            let length = chunk.len() as u64;
            if length > part.size - part.completed - sink.unsaved {
                let (digest, limit) = (self.digest.to_string(), self.total);
                return Err(Error::TooMuch { digest, limit }.into());
            }
            seen += length;
            if seen >= ALIVE_BYTES {
                (deadline, seen) = (Instant::now() + limit, 0);
            }
            sink.write(&chunk, part).await?;
            self.progress.add(length);
        }
        if part.completed + sink.unsaved < part.size {
            let reason = format!("ended after {} of {} bytes", part.completed + sink.unsaved, part.size);
            let url = self.source.url(&self.digest);
            return Err(Error::Connection { method: "GET".to_owned(), url, reason }.into());
        }
        Ok(())
    }

    fn stalled(&self) -> Error {
        let (method, url) = ("GET".to_owned(), self.source.url(&self.digest));
        Error::Stalled { method, url, seconds: self.tuning.stall.as_secs() }
    }

    fn target(&self) -> PathBuf {
        self.folder.join(self.digest.file_name())
    }

    /// Verifies, makes durable, names.
    async fn settle(&self, files: Files) -> Result<()> {
        let canceled = StopOnDrop::default();
        let stop = Arc::clone(&canceled.0);
        let (target, want) = (self.target(), self.digest.clone());
        blocking(move || {
            let partial = files.data();
            let file = File::open(&partial).map_err(crate::Error::io("open", &partial))?;
            let reader = Stoppable { file: &file, stop };
            let got = Digest::of_reader(reader).map_err(crate::Error::io("read", &partial))?;
            if got != want {
                files.discard()?;
                return Err(Error::Mismatch { want: want.to_string(), got: got.to_string() }.into());
            }
            file.sync_all().map_err(crate::Error::io("sync", &partial))?;
            std::fs::rename(&partial, &target).map_err(crate::Error::io("rename to", &target))?;
            durable::sync_parent(&target)?;
            files.forget()
        })
        .await
    }
}

enum Claim {
    Ours(File),
    Theirs { completed: u64 },
    Brought,
}

fn claim_file(files: &Files) -> Result<Claim> {
    let partial = &files.data();
    let theirs = || Claim::Theirs { completed: files.completed() };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(partial).map_err(crate::Error::io("open", partial))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(theirs()),
        // A file system without locks: as Ollama does, without one.
        Err(TryLockError::Error(error)) => {
            tracing::warn!(path = %partial.display(), %error, "a download cannot be locked");
        }
    }
    // The holder before us may have given the file its name while we waited for the lock.
    if is_same(&file, partial) { Ok(Claim::Ours(file)) } else { Ok(theirs()) }
}

/// The parts that can be gone on with, and a partial file of the right length.
fn prepare(files: &Files, claim: &File, total: u64) -> Result<Option<Vec<Part>>> {
    let path = files.data();
    let length = claim.metadata().map_err(crate::Error::io("stat", &path))?.len();
    let kept = if length == total { files.load(total)? } else { None };
    if kept.is_none() {
        files.forget()?;
        claim.set_len(total).map_err(crate::Error::io("make room in", &path))?;
    }
    Ok(kept)
}

/// Where a part writes.
struct Sink {
    files: Files,
    file: BufWriter<tokio::fs::File>,
    /// Bytes of the part that its state does not tell yet.
    unsaved: u64,
}

// === impl Sink ===

impl Sink {
    async fn open(files: &Files, part: &Part) -> Result<Sink> {
        let path = files.data();
        let io = |error| crate::Error::io("write", &path)(error);
        let mut file = tokio::fs::OpenOptions::new().write(true).open(&path).await.map_err(io)?;
        let io = |error| crate::Error::io("write", &path)(error);
        file.seek(std::io::SeekFrom::Start(part.next())).await.map_err(io)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Sink { files: files.clone(), file, unsaved: 0 })
    }

    async fn write(&mut self, chunk: &[u8], part: &mut Part) -> Result<()> {
        let path = self.files.data();
        self.file.write_all(chunk).await.map_err(crate::Error::io("write", &path))?;
        self.unsaved += chunk.len() as u64;
        if self.unsaved >= SAVE_BYTES { self.keep(part).await } else { Ok(()) }
    }

    /// The bytes first, then the state that tells of them.
    async fn keep(&mut self, part: &mut Part) -> Result<()> {
        if self.unsaved == 0 {
            return Ok(());
        }
        let path = self.files.data();
        self.file.flush().await.map_err(crate::Error::io("write", &path))?;
        part.completed += std::mem::take(&mut self.unsaved);
        let (files, part) = (self.files.clone(), part.clone());
        blocking(move || files.save(&part)).await
    }
}

/// A file that reads as broken when nobody waits for it any more.
struct Stoppable<'a> {
    file: &'a File,
    stop: Arc<AtomicBool>,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("nobody waits for it any more"));
        }
        self.file.read(buffer)
    }
}

#[derive(Default)]
pub(super) struct StopOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| crate::Error::Task)?
}

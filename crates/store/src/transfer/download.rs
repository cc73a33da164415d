//! One blob on its way in: its parts in parallel, resumed where they were cut, verified before it gets its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};
use tokio::time::{Instant, timeout, timeout_at};

use super::parts::{Files, Part, plan};
use super::session::{Session, broken, stalled};
use super::{Error, Tuning};
use crate::directory::touch;
use crate::store::Inner;
use crate::{Digest, Result, durable};

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
pub(super) struct Progress {
    completed: AtomicU64,
}

/// All that the tasks of one download need.
pub(super) struct Download {
    pub(super) inner: Arc<Inner>,
    pub(super) session: Arc<Session>,
    pub(super) digest: Digest,
    pub(super) total: u64,
    pub(super) progress: Arc<Progress>,
}

// === impl Progress ===

impl Progress {
    pub(super) fn completed(&self) -> u64 {
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
    pub(super) async fn run(self) -> Result<()> {
        let files = Files::new(self.inner.home.incoming().to_owned(), &self.digest);
        let Some(claim) = self.claim(&files).await? else { return Ok(()) };
        let (prepared, total) = (files.clone(), self.total);
        let (kept, _claim) =
            blocking(move || prepare(&prepared, &claim, total).map(|parts| (parts, claim))).await?;
        let parts = kept.unwrap_or_else(|| plan(self.total, self.tuning()));
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
        let mut tick = tokio::time::interval(self.tuning().tick);
        loop {
            tick.tick().await;
            let (blob, files) = (self.inner.home.local(&self.digest), files.clone());
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
            .buffer_unordered(self.tuning().streams)
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
            if tries >= self.tuning().tries {
                return Err(Error::Exhausted(Box::new(error)).into());
            }
            tokio::time::sleep(self.tuning().pause(tries)).await;
        }
    }

    async fn try_part(&self, files: &Files, part: &mut Part) -> Result<()> {
        let url = self.session.origin.url(&format!("blobs/{}", self.digest))?;
        let asked = format!("{}-{}", part.next(), part.end() - 1);
        let range = format!("bytes={asked}").parse().expect("two numbers and a dash are a header");
        let headers = HeaderMap::from_iter([(RANGE, range)]);
        let limit = self.tuning().stall;
        let response = timeout(limit, self.session.get(url.clone(), &headers))
            .await
            .unwrap_or_else(|_| Err(stalled(&Method::GET, &url, limit)))?;
        self.check(&response, part, &asked)?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            self.progress.take_back(part.completed);
            part.completed = 0;
        }
        let mut sink = Sink::open(files, part).await?;
        let received = self.receive(response, &url, part, &mut sink).await;
        // What came is kept, whatever comes next.
        sink.keep(part).await?;
        received
    }

    /// Whether the answer is what was asked for, before a byte of it is read.
    fn check(&self, response: &Response, part: &Part, asked: &str) -> Result<(), Error> {
        let digest = || self.digest.to_string();
        let lies = |got| Error::Size { digest: digest(), expected: self.total, got };
        if response.status() != StatusCode::PARTIAL_CONTENT {
            if part.size != self.total {
                return Err(Error::NoRanges { digest: digest() });
            }
            return match response.content_length() {
                Some(length) if length != self.total => Err(lies(length)),
                _ => Ok(()),
            };
        }
        let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let got = header.and_then(|text| text.strip_prefix("bytes ")).unwrap_or_default();
        let (range, total) = got.split_once('/').unwrap_or((got, "*"));
        match total.parse() {
            Ok(total) if total != self.total => Err(lies(total)),
            _ if range != asked => {
                Err(Error::Range { digest: digest(), asked: asked.to_owned(), got: got.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Reads until the part is whole, and not a byte more.
    async fn receive(
        &self,
        mut response: Response,
        url: &Url,
        part: &mut Part,
        sink: &mut Sink,
    ) -> Result<()> {
        let limit = self.tuning().stall;
        let (mut deadline, mut seen) = (Instant::now() + limit, 0);
        loop {
            let chunk = timeout_at(deadline, response.chunk()).await;
            let chunk = chunk.map_err(|_| stalled(&Method::GET, url, limit))?;
            let chunk = chunk.map_err(|error| broken(&Method::GET, url, &error))?;
            let Some(chunk) = chunk else { break };
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
            let (method, url) = (Method::GET.to_string(), url.to_string());
            return Err(Error::Connection { method, url, reason }.into());
        }
        Ok(())
    }

    /// Verifies, makes durable, names.
    async fn settle(&self, files: Files) -> Result<()> {
        let canceled = StopOnDrop::default();
        let stop = Arc::clone(&canceled.0);
        let (inner, want) = (Arc::clone(&self.inner), self.digest.clone());
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
            let target = inner.home.local(&want);
            std::fs::rename(&partial, &target).map_err(crate::Error::io("rename to", &target))?;
            durable::sync_parent(&target)?;
            files.forget()
        })
        .await
    }

    fn tuning(&self) -> &Tuning {
        &self.session.config.tuning
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

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
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

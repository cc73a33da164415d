//! The home in an S3-compatible bucket, with a folder of this machine where blobs come in and are kept for a while.

mod access;
mod keys;
mod requests;
mod send;
mod source;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3ConfigKey;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientConfigKey, ObjectMeta, RetryConfig};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::cache::{BlobFile, Cache};
use crate::home::{Entry, Header, Home, MAX_MANIFEST, Place, Section, Sent, Stamp};
use crate::transfer::download::Download;
use crate::transfer::downloads::Downloads;
use crate::transfer::{Tuning, install_crypto};
use crate::{Digest, Error, Name, Pruned, Result, durable};
pub use access::Access;
use keys::Keys;
use requests::{ANSWER, Requests, reason};
use send::Target;
use source::Object;

/// One request with a part of a blob as its body: some 64 KiB a second at least.
const REQUEST: Duration = Duration::from_secs(5 * 60);
const CONNECT: Duration = Duration::from_secs(10);
/// A blob that is younger than this need not be touched: well below the grace of pruning.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// What is first read of a GGUF: most headers are not longer than a few of these.
const HEAD_BYTES: u64 = 1 << 20;
/// Real headers are below 32 MiB, and this much is held in memory.
const MAX_HEAD_BYTES: u64 = 128 << 20;

pub(crate) struct Bucket {
    requests: Requests,
    keys: Keys,
    cache: Arc<Cache>,
    fills: Downloads,
    tuning: Tuning,
}

// === impl Bucket ===

impl Bucket {
    /// Opens a bucket that is there, by its name and the prefix of its keys. Blocking.
    pub(crate) fn open(
        (name, prefix): (&str, &str),
        access: &Access,
        cache: Cache,
        tuning: Tuning,
    ) -> Result<Bucket> {
        let url = if prefix.is_empty() { format!("s3://{name}") } else { format!("s3://{name}/{prefix}") };
        let wrong = |reason: String| Error::Bucket { action: "open", url: url.clone(), reason };
        let handle = Handle::try_current().map_err(|error| wrong(error.to_string()))?;
        install_crypto();
        let retry = RetryConfig {
            max_retries: 3,
            retry_timeout: ANSWER / 2,
            backoff: BackoffConfig { max_backoff: Duration::from_secs(4), ..BackoffConfig::default() },
        };
        let seconds = |limit: Duration| format!("{} s", limit.as_secs());
        let builder = access
            .builder()
            .with_bucket_name(name)
            .with_retry(retry)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), seconds(REQUEST))
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), seconds(CONNECT));
        let store = builder.build().map_err(|error| wrong(reason(&error)))?;
        let keys = Keys::new(Key::parse(prefix).map_err(|error| wrong(error.to_string()))?);
        let requests = Requests { store: Arc::new(store), url, handle };
        requests.check(&keys.manifests())?;
        Ok(Bucket { requests, keys, cache: Arc::new(cache), fills: Downloads::default(), tuning })
    }

    fn object(&self, digest: &Digest) -> Object {
        let key = self.keys.blob(digest);
        Object { store: Arc::clone(&self.requests.store), url: self.requests.url_of(&key), key }
    }

    /// Since it was written, or touched.
    fn age_of(&self, digest: &Digest, written: &ObjectMeta) -> Result<Duration> {
        let age = age(written);
        if age <= FRESH {
            return Ok(age);
        }
        let touched = self.requests.head(&self.keys.touch(digest))?;
        Ok(touched.map_or(age, |touched| age.min(self::age(&touched))))
    }

    /// Brings a blob to the cache, together with whoever wants it, too.
    fn fill(&self, digest: &Digest, total: u64, told: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let runtime = self.requests.handle.enter();
        let mut fill = self.fills.join(digest, |progress| Download {
            folder: self.cache.blobs().to_owned(),
            cache: Some(Arc::clone(&self.cache)),
            source: Arc::new(self.object(digest)),
            tuning: self.tuning.clone(),
            digest: digest.clone(),
            total,
            progress,
        });
        drop(runtime);
        // `told` is asked between two pieces of the work and not in it, because it may block.
        loop {
            match self.requests.handle.block_on(async { timeout(self.tuning.tick, &mut fill.outcome).await })
            {
                Ok(ended) => return ended.map_err(Error::Shared),
                Err(_) => told(fill.progress.completed(), total)?,
            }
        }
    }

    /// Reads as much as the header takes and no more than twice that.
    fn head_of(&self, digest: &Digest, total: u64) -> Result<gguf::Gguf, gguf::Error> {
        let object = self.object(digest);
        let unreadable = |error: crate::transfer::Error| gguf::Error::Io {
            action: "read",
            path: PathBuf::from(&object.url),
            source: std::io::Error::other(error.to_string()),
        };
        let most = total.min(MAX_HEAD_BYTES);
        let (mut head, mut wanted) = (Vec::new(), HEAD_BYTES.min(most));
        loop {
            let range = head.len() as u64..wanted;
            let mut rest = object.clone().range(digest.clone(), total, range);
            let read = self.requests.handle.block_on(async {
                let limit = self.tuning.stall;
                loop {
                    match timeout(limit, rest.next()).await {
                        Ok(None) => return Ok(()),
                        Ok(Some(chunk)) => head.extend_from_slice(&chunk?),
                        Err(_) => {
                            let (method, url) = ("GET".to_owned(), object.url.clone());
                            return Err(crate::transfer::Error::Stalled {
                                method,
                                url,
                                seconds: limit.as_secs(),
                            });
                        }
                    }
                }
            });
            read.map_err(unreadable)?;
            match gguf::Gguf::parse_head(&head, total) {
                Err(gguf::Error::Header { end, .. }) if wanted < most => {
                    let end = u64::try_from(end).unwrap_or(u64::MAX);
                    wanted = end.max(2 * wanted).min(most);
                }
                parsed => return parsed,
            }
        }
    }
}

impl Home for Bucket {
    fn entries(&self) -> Result<Vec<Entry>> {
        let found = self.requests.list(&self.keys.manifests())?;
        let entry =
            |meta: &ObjectMeta| Some(Entry { name: self.keys.name(&meta.location)?, stamp: stamp(meta) });
        let mut entries: Vec<Entry> = found.iter().filter_map(entry).collect();
        entries.sort_by(|one, other| one.name.parts().cmp(&other.name.parts()));
        Ok(entries)
    }

    fn find(&self, name: &Name) -> Result<Option<Entry>> {
        match self.requests.head(&self.keys.manifest(name))? {
            Some(meta) => Ok(Some(Entry { name: name.clone(), stamp: stamp(&meta) })),
            None => Ok(keys::find(self.entries()?, name)),
        }
    }

    fn spelling(&self, name: &Name) -> Result<Name> {
        let entries = self.entries()?;
        match keys::find(entries.clone(), name) {
            Some(entry) => Ok(entry.name),
            None => Name::from_parts(keys::spelling(&entries, name).each_ref().map(String::as_str)),
        }
    }

    fn read_manifest(&self, name: &Name) -> Result<Vec<u8>> {
        let found = self.requests.read("manifest", &self.keys.manifest(name), MAX_MANIFEST)?;
        found.ok_or_else(|| Error::NotFound(name.shortest()))
    }

    fn write_manifest(&self, name: &Name, bytes: &[u8]) -> Result<()> {
        self.requests.write(&self.keys.manifest(name), bytes)
    }

    fn remove_manifest(&self, name: &Name) -> Result<()> {
        self.requests.delete(&self.keys.manifest(name))
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.requests.head(&self.keys.blob(digest))?.map(|meta| meta.size))
    }

    fn age(&self, digest: &Digest) -> Result<Option<Duration>> {
        let found = self.requests.head(&self.keys.blob(digest))?;
        found.map(|meta| self.age_of(digest, &meta)).transpose()
    }

    fn touch(&self, digest: &Digest) -> Result<bool> {
        let Some(meta) = self.requests.head(&self.keys.blob(digest))? else { return Ok(false) };
        if self.age_of(digest, &meta)? > FRESH
            // A bucket that we may only read still serves its blobs.
            && let Err(error) = self.requests.write(&self.keys.touch(digest), &[])
        {
            tracing::debug!(%digest, %error, "blob cannot be touched");
        }
        Ok(true)
    }

    fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.cache.read(digest, limit) {
            return Ok(Some(bytes));
        }
        let key = self.keys.blob(digest);
        let Some(bytes) = self.requests.read("blob", &key, limit)? else { return Ok(None) };
        let got = Digest::of(&bytes);
        if got != *digest {
            return Err(self.requests.error(
                "read",
                &key,
                format!("it is damaged: its bytes are those of {got}"),
            ));
        }
        self.cache.keep(digest, &bytes);
        Ok(Some(bytes))
    }

    fn section(&self, digest: &Digest, total: u64, range: Range<u64>) -> Section {
        let stream = self.object(digest).range(digest.clone(), total, range);
        stream.map_err(std::io::Error::other).boxed()
    }

    fn header(&self, digest: &Digest) -> Result<Header, gguf::Error> {
        let url = || PathBuf::from(self.requests.url_of(&self.keys.blob(digest)));
        let io = |source| gguf::Error::Io { action: "open", path: url(), source };
        if let Ok(Some(file)) = self.cache.hold(digest) {
            return Header::of(file.path());
        }
        match self.size(digest) {
            Ok(Some(bytes)) => Ok(Header { gguf: self.head_of(digest, bytes)?, bytes }),
            Ok(None) => Err(io(std::io::ErrorKind::NotFound.into())),
            Err(error) => Err(io(std::io::Error::other(error.to_string()))),
        }
    }

    fn publish(&self, digest: &Digest, sent: Sent<'_>) -> Result<()> {
        let (path, key) = (self.local(digest), self.keys.blob(digest));
        let unreadable = |error| Error::io("read", &path)(error);
        let file = match File::open(&path) {
            Ok(file) => file,
            // Somebody else has published it meanwhile.
            Err(_) if self.size(digest)?.is_some() => return Ok(()),
            Err(error) => return Err(unreadable(error)),
        };
        let bytes = file.metadata().map_err(unreadable)?.len();
        let progress = send::Progress::default();
        let target = Target {
            store: &*self.requests.store,
            key: &key,
            wrong: &|error| self.requests.error("write", &key, reason(error)),
            unreadable: &unreadable,
            progress: &progress,
        };
        // `sent` is asked between two pieces of the work and not in it, because it may block.
        let mut sending = std::pin::pin!(target.send(file, bytes));
        let mut given_up = Ok(());
        loop {
            match self.requests.handle.block_on(async { timeout(self.tuning.tick, &mut sending).await }) {
                Ok(outcome) => break given_up.and(outcome)?,
                Err(_) if given_up.is_ok() => given_up = sent(progress.sent.load(Ordering::Relaxed)),
                Err(_) => progress.stop.store(true, Ordering::Relaxed),
            }
        }
        // It was on its way only; who runs it fills the cache.
        if let Err(error) = durable::remove(&path) {
            tracing::warn!(%error, "a blob that came in cannot be removed");
        }
        Ok(())
    }

    fn fetch(&self, digest: &Digest, told: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<BlobFile> {
        // What was filled a moment ago goes last; twice would be a wonder.
        for _ in 0..3 {
            if let Some(file) = self.cache.hold(digest)? {
                return Ok(file);
            }
            let absent = || Error::Absent { digest: digest.to_string(), place: self.requests.url.clone() };
            let total = self.size(digest)?.ok_or_else(absent)?;
            self.fill(digest, total, told)?;
        }
        Err(Error::Absent { digest: digest.to_string(), place: self.cache.blobs().display().to_string() })
    }

    fn cached(&self, digest: &Digest) -> Option<BlobFile> {
        self.cache.hold(digest).ok().flatten()
    }

    fn remove_blob(&self, digest: &Digest) -> Result<()> {
        self.requests.delete(&self.keys.blob(digest))?;
        self.requests.delete(&self.keys.touch(digest))
    }

    fn sweep(&self, grace: Duration, is_used: &dyn Fn(&Digest) -> bool) -> Result<Pruned> {
        let mut pruned = self.cache.sweep(grace)?;
        let is_old = |meta: &ObjectMeta| age(meta) > grace;
        for blob in self.requests.list(&self.keys.blobs())?.iter().filter(|blob| is_old(blob)) {
            let Some(digest) = keys::digest(&blob.location).filter(|digest| !is_used(digest)) else {
                continue;
            };
            if self.age_of(&digest, blob)? > grace {
                self.remove_blob(&digest)?;
                pruned.files += 1;
                pruned.bytes += blob.size;
            }
        }
        for touched in self.requests.list(&self.keys.touches())?.iter().filter(|touched| is_old(touched)) {
            self.requests.delete(&touched.location)?;
        }
        Ok(pruned)
    }

    fn incoming(&self) -> &Path {
        self.cache.blobs()
    }

    fn place(&self, what: Place<'_>) -> PathBuf {
        let key = match what {
            Place::Manifest(name) => self.keys.manifest(name),
            Place::Blob(digest) => self.keys.blob(digest),
        };
        PathBuf::from(self.requests.url_of(&key))
    }

    fn runtime(&self) -> Option<&Handle> {
        Some(&self.requests.handle)
    }
}

/// A HEAD tells whole seconds, a listing more: what both tell is the stamp.
fn stamp(meta: &ObjectMeta) -> Stamp {
    let seconds = u64::try_from(meta.last_modified.timestamp()).unwrap_or(0);
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Stamp { modified, version: format!("{}-{}", meta.size, meta.e_tag.as_deref().unwrap_or_default()) }
}

/// By our clock and the bucket's; an object from the future is new.
fn age(meta: &ObjectMeta) -> Duration {
    SystemTime::now().duration_since(meta.last_modified.into()).unwrap_or_default()
}

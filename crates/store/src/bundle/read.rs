//! A tar that somebody sends: every blob verified as it comes, manifests kept until all of it is known to be whole.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use tar::EntryType;

use super::entry::Place;
use super::write::BLOCK;
use super::{Error, MAX_ENTRIES, MAX_MANIFESTS};
use crate::home::MAX_MANIFEST;
use crate::pins::Pins;
use crate::store::Inner;
use crate::transfer::{Bar, Tell};
use crate::{Digest, Manifest, Name, Result, Store, remove};

/// A path, or the list of a pax header: more is no path of ours.
const MAX_NAME_BYTES: u64 = 64 << 10;
/// Tars are padded to ten KiB or so; what follows the end beyond that is another file.
const MAX_PADDING: u64 = 1 << 20;

/// Who sends nothing for so long has gone; an upload that is open keeps the store from being pruned.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything of a file is in the store but the manifests. Dropped before all of them are written, it removes the blobs
/// that no manifest names.
pub struct Loaded {
    inner: Arc<Inner>,
    models: Vec<(Name, Vec<u8>)>,
    new: HashSet<Digest>,
    pins: Vec<Pins>,
}

/// Reads one file.
pub struct Reader<S> {
    source: S,
    buffer: BytesMut,
    read: u64,
    /// Headers so far, those of folders and of long names included.
    headers: u64,
}

/// A file's header, and what was said about it before.
struct Entry {
    kind: EntryType,
    path: String,
    size: u64,
}

// === impl Loaded ===

impl Loaded {
    /// The models of the file.
    pub fn names(&self) -> Vec<Name> {
        self.models.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn settle(&self, inner: &Inner, name: &Name) -> Result<()> {
        for (_, bytes) in self.models.iter().filter(|(known, _)| known == name) {
            let name = inner.home.spelling(name)?;
            let old = remove::replaced(inner, &name);
            inner.home.write_manifest(&name, bytes)?;
            remove::orphans_of(inner, old);
        }
        Ok(())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.new.is_empty() {
            return;
        }
        // It lists manifests, which in a folder takes milliseconds, after a load that moved gigabytes.
        self.pins.clear();
        remove::remove_orphans_aside(&self.inner, self.new.drain());
    }
}

// === impl Reader ===

impl<S, E> Reader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    pub fn new(source: S) -> Reader<S> {
        Reader { source, buffer: BytesMut::new(), read: 0, headers: 0 }
    }

    /// Reads all of the file into the store; see [`Loaded`].
    pub async fn load(mut self, store: &Store, tell: &Tell) -> Result<Loaded> {
        let inner = store.inner();
        let mut loaded = Loaded { inner, models: Vec::new(), new: HashSet::new(), pins: Vec::new() };
        let (mut places, mut manifest_bytes) = (HashSet::new(), 0);
        while let Some(entry) = self.next().await? {
            if entry.kind == EntryType::Directory {
                continue;
            }
            if !matches!(entry.kind, EntryType::Regular | EntryType::Continuous) {
                return Err(Error::Kind(entry.path).into());
            }
            let place = Place::parse(&entry.path)?;
            if !places.insert(place.clone()) {
                return Err(Error::Twice(entry.path).into());
            }
            match place {
                Place::Blob(digest) => self.blob(store, &mut loaded, (digest, entry.size), tell).await?,
                Place::Manifest(name) => {
                    bound("the bytes of a manifest", MAX_MANIFEST, entry.size)?;
                    manifest_bytes += entry.size;
                    bound("the bytes of all manifests", MAX_MANIFESTS, manifest_bytes)?;
                    let bytes = self.take(entry.size).await?;
                    loaded.models.push((name, bytes.to_vec()));
                }
            }
            self.skip(entry.size.next_multiple_of(BLOCK) - entry.size).await?;
        }
        self.expect_end().await?;
        if loaded.models.is_empty() {
            return Err(Error::Empty.into());
        }
        check(loaded).await
    }

    async fn blob(
        &mut self,
        store: &Store,
        loaded: &mut Loaded,
        (digest, size): (Digest, u64),
        tell: &Tell,
    ) -> Result<()> {
        loaded.pins.push(loaded.inner.pins.pin([digest.clone()]));
        let bar = Bar::new("loading", &digest, size);
        let mut upload = store.upload(digest.clone()).await?;
        let mut left = size;
        while left > 0 {
            let chunk = self.some(left).await?;
            left -= chunk.len() as u64;
            upload.write(chunk).await?;
            tell.tick(bar.at(size - left))?;
        }
        if upload.commit().await? {
            loaded.new.insert(digest);
        }
        tell.say(bar.at(size)).await
    }

    /// The next entry that is a file or folder; `None` at the end of the tar.
    async fn next(&mut self) -> Result<Option<Entry>> {
        let (mut long, mut pax_size) = (None, None);
        loop {
            let block = self.take(BLOCK).await?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            self.headers += 1;
            bound("the number of entries", MAX_ENTRIES as u64, self.headers)?;
            let header = tar::Header::from_byte_slice(&block);
            let size = checked(header)?;
            match header.entry_type() {
                EntryType::GNULongName => long = Some(text(&self.small(size).await?)),
                EntryType::XHeader => {
                    let bytes = self.small(size).await?;
                    for extension in tar::PaxExtensions::new(&bytes).flatten() {
                        match extension.key() {
                            Ok("path") => long = Some(text(extension.value_bytes())),
                            Ok("size") => {
                                pax_size = extension.value().ok().and_then(|size| size.parse().ok())
                            }
                            _ => {}
                        }
                    }
                }
                EntryType::XGlobalHeader => drop(self.small(size).await?),
                kind => {
                    let path = long.unwrap_or_else(|| text(&header.path_bytes()));
                    return Ok(Some(Entry { kind, path, size: pax_size.unwrap_or(size) }));
                }
            }
        }
    }

    /// The content of a header about the next one.
    async fn small(&mut self, size: u64) -> Result<Bytes> {
        bound("the bytes of a name", MAX_NAME_BYTES, size)?;
        let bytes = self.take(size).await?;
        self.skip(size.next_multiple_of(BLOCK) - size).await?;
        Ok(bytes)
    }

    /// Exactly `count` bytes, which the caller has bounded.
    async fn take(&mut self, count: u64) -> Result<Bytes> {
        while (self.buffer.len() as u64) < count {
            if !self.fill().await? {
                return Err(Error::Truncated(self.read).into());
            }
        }
        Ok(self.buffer.split_to(count as usize).freeze())
    }

    /// At least one byte, at most `count`.
    async fn some(&mut self, count: u64) -> Result<Bytes> {
        if self.buffer.is_empty() && !self.fill().await? {
            return Err(Error::Truncated(self.read).into());
        }
        let length = count.min(self.buffer.len() as u64) as usize;
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn skip(&mut self, count: u64) -> Result<()> {
        self.take(count).await.map(|_| ())
    }

    /// A second block of zeros, and padding.
    async fn expect_end(&mut self) -> Result<()> {
        let mut seen = self.buffer.len() as u64;
        loop {
            if self.buffer.iter().any(|byte| *byte != 0) {
                return Err(Error::Garbage("bytes follow its end".to_owned()).into());
            }
            self.buffer.clear();
            if !self.fill().await? {
                break;
            }
            seen += self.buffer.len() as u64;
            bound("the bytes after the end", MAX_PADDING, seen)?;
        }
        if seen < BLOCK { Err(Error::Truncated(self.read).into()) } else { Ok(()) }
    }

    async fn fill(&mut self) -> Result<bool> {
        let next = tokio::time::timeout(PATIENCE, self.source.next()).await;
        match next.map_err(|_| Error::Body(format!("nothing came for {} s", PATIENCE.as_secs())))? {
            None => Ok(false),
            Some(Ok(chunk)) => {
                self.read += chunk.len() as u64;
                self.buffer.extend_from_slice(&chunk);
                Ok(true)
            }
            Some(Err(error)) => Err(Error::Body(error.to_string()).into()),
        }
    }
}

/// That a header is one; answers the size of its content.
fn checked(header: &tar::Header) -> Result<u64, Error> {
    let garbage = |reason: &str| Error::Garbage(reason.to_owned());
    let sum = header.cksum().map_err(|_| garbage("a header has no checksum"))?;
    let bytes = header.as_bytes();
    let actual: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum();
    // The field of the sum itself counts as spaces.
    if sum != actual + 8 * u32::from(b' ') {
        return Err(garbage("a header has a wrong checksum"));
    }
    header.entry_size().map_err(|_| garbage("a header has no size"))
}

fn bound(what: &'static str, limit: u64, got: u64) -> Result<(), Error> {
    if got > limit { Err(Error::TooMuch { what, limit, got }) } else { Ok(()) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned()
}

/// That each model has all of its blobs, in their lengths.
async fn check(loaded: Loaded) -> Result<Loaded> {
    let checking = tokio::task::spawn_blocking(move || {
        for (name, bytes) in &loaded.models {
            let named = name.shortest();
            let manifest = Manifest::parse(bytes)
                .map_err(|error| Error::Manifest { name: named.clone(), reason: error.to_string() })?;
            for layer in manifest.blobs() {
                let digest = layer.digest.to_string();
                match loaded.inner.home.size(&layer.digest)? {
                    Some(size) if size == layer.size => {}
                    Some(got) => {
                        let expected = layer.size;
                        return Err(Error::Size { name: named, digest, expected, got }.into());
                    }
                    None => return Err(Error::Missing { name: named, digest }.into()),
                }
            }
        }
        Ok(loaded)
    });
    checking.await.map_err(|_| crate::Error::Task)?
}

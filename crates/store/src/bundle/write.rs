//! Stored models as a tar, streamed: nothing of it is in memory but headers and manifests.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::entry::Place;
use crate::pins::Pins;
use crate::store::Inner;
use crate::{Error, Name, Result};

/// A tar is cut into these.
pub(super) const BLOCK: u64 = 512;
const CHUNK_BYTES: usize = 256 << 10;

/// A file to be, and how long it will be.
pub struct Bundle {
    pub bytes: u64,
    entries: Vec<Entry>,
    /// Nobody removes what is still to be read.
    pins: Pins,
}

struct Entry {
    header: Vec<u8>,
    content: Content,
    size: u64,
}

enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Bundle {
    /// Looks everything up, so that what is missing is said before the first byte. Blocking.
    pub(crate) fn begin(inner: &Inner, names: &[Name]) -> Result<Bundle> {
        let (mut entries, mut digests, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let mut manifests = Vec::new();
        for name in names {
            let entry = inner.directory.find(name)?.ok_or_else(|| Error::NotFound(name.shortest()))?;
            if seen.insert(Place::Manifest(entry.name.clone())) {
                let bytes = inner.directory.read_manifest(&entry.name)?;
                manifests.push((inner.directory.parse_manifest(&entry.name, &bytes)?, entry.name, bytes));
            }
        }
        let pins = inner.pins.pin(
            manifests.iter().flat_map(|(manifest, ..)| manifest.blobs()).map(|layer| layer.digest.clone()),
        );
        for (manifest, name, bytes) in manifests {
            for layer in manifest.blobs() {
                let place = Place::Blob(layer.digest.clone());
                if !seen.insert(place.clone()) {
                    continue;
                }
                let path = inner.directory.blob_path(&layer.digest);
                let size = match std::fs::metadata(&path) {
                    Ok(metadata) => metadata.len(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let (name, digest) = (name.shortest(), layer.digest.to_string());
                        return Err(Error::Incomplete { name, digest });
                    }
                    Err(error) => return Err(Error::io("stat blob", &path)(error)),
                };
                digests.push(Entry { header: header(&place, size)?, content: Content::File(path), size });
            }
            let size = bytes.len() as u64;
            let header = header(&Place::Manifest(name), size)?;
            entries.push(Entry { header, content: Content::Bytes(bytes), size });
        }
        // Manifests last: who unpacks it by hand has no model that is not whole.
        digests.append(&mut entries);
        let length = |entry: &Entry| entry.header.len() as u64 + entry.size.next_multiple_of(BLOCK);
        let bytes = digests.iter().map(length).sum::<u64>() + 2 * BLOCK;
        Ok(Bundle { bytes, entries: digests, pins })
    }

    /// The bytes of the file.
    pub fn into_stream(self) -> BoxStream<'static, io::Result<Bytes>> {
        let pins = self.pins;
        let entries = stream::iter(self.entries).flat_map(Entry::into_stream);
        let end = stream::once(async { Ok(zeros(2 * BLOCK)) });
        entries
            .chain(end)
            .inspect(move |_| {
                let _held = &pins;
            })
            .boxed()
    }
}

impl Entry {
    fn into_stream(self) -> BoxStream<'static, io::Result<Bytes>> {
        let Entry { header, content, size } = self;
        let padding = zeros(size.next_multiple_of(BLOCK) - size);
        let content = match content {
            Content::Bytes(bytes) => stream::once(async { Ok(Bytes::from(bytes)) }).boxed(),
            Content::File(path) => file(path, size),
        };
        let header = stream::once(async { Ok(Bytes::from(header)) });
        header.chain(content).chain(stream::once(async { Ok(padding) })).boxed()
    }
}

/// Exactly `size` bytes, or an error that cuts the answer.
fn file(path: PathBuf, size: u64) -> BoxStream<'static, io::Result<Bytes>> {
    let opened = async move {
        let file = tokio::fs::File::open(path).await?;
        Ok(ReaderStream::with_capacity(file.take(size), CHUNK_BYTES))
    };
    let left = Arc::new(AtomicU64::new(size));
    let counted = Arc::clone(&left);
    let chunks = opened.try_flatten_stream().inspect_ok(move |chunk: &Bytes| {
        counted.fetch_sub(chunk.len() as u64, Ordering::Relaxed);
    });
    let end = stream::once(async move {
        match left.load(Ordering::Relaxed) {
            0 => Ok(Bytes::new()),
            left => Err(io::Error::other(format!("a blob is {left} bytes shorter than before"))),
        }
    });
    chunks.chain(end).boxed()
}

/// The header, with what comes before it when the path is long.
fn header(place: &Place, size: u64) -> Result<Vec<u8>> {
    let path = place.path();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    // The same models make the same file.
    header.set_mtime(0);
    let mut builder = tar::Builder::new(Vec::new());
    let written = builder.append_data(&mut header, &path, io::empty());
    written.map_err(Error::io("name an entry", path.as_ref()))?;
    Ok(std::mem::take(builder.get_mut()))
}

fn zeros(count: u64) -> Bytes {
    Bytes::from(vec![0; count as usize])
}

//! Stored models as a tar, streamed: nothing of it is in memory but headers and manifests.

use std::collections::HashSet;
use std::io;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::entry::Place;
use crate::home::Section;
use crate::pins::Pins;
use crate::store::Inner;
use crate::{Error, Name, Result};

/// A tar is cut into these.
pub(super) const BLOCK: u64 = 512;

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
    Blob(Section),
}

impl Bundle {
    /// Looks everything up, so that what is missing is said before the first byte. Blocking.
    pub(crate) fn begin(inner: &Inner, names: &[Name]) -> Result<Bundle> {
        let (mut entries, mut digests, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let mut manifests = Vec::new();
        for name in names {
            let entry = inner.home.find(name)?.ok_or_else(|| Error::NotFound(name.shortest()))?;
            if seen.insert(Place::Manifest(entry.name.clone())) {
                let bytes = inner.home.read_manifest(&entry.name)?;
                manifests.push((inner.shelf.parse_manifest(&entry.name, &bytes)?, entry.name, bytes));
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
                let Some(size) = inner.home.size(&layer.digest)? else {
                    let (name, digest) = (name.shortest(), layer.digest.to_string());
                    return Err(Error::Incomplete { name, digest });
                };
                let content = Content::Blob(inner.home.section(&layer.digest, size, 0..size));
                digests.push(Entry { header: header(&place, size)?, content, size });
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
            Content::Blob(section) => section,
        };
        let header = stream::once(async { Ok(Bytes::from(header)) });
        header.chain(content).chain(stream::once(async { Ok(padding) })).boxed()
    }
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

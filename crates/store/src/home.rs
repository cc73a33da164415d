//! Where manifests and blobs last: the seam between what the store does and where it keeps it. Everything here blocks.
//!
//! What a home promises is in `tests/laws`, which every home is held to.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use gguf::Gguf;
use tokio::runtime::Handle;

use crate::cache::BlobFile;
use crate::{Digest, Name, Pruned, Result, durable};

/// Docker's registry takes manifests up to this size, so no valid one is larger.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;

/// A folder in Ollama's layout, or something that is as good as one.
///
/// Bytes come in through a folder of this machine, [`Home::incoming`]: a blob is written there, verified, given its name
/// ([`Home::local`]) and then made to last by [`Home::publish`]. A manifest is written when all of its blobs last.
pub(crate) trait Home: Send + Sync + 'static {
    /// All manifests with a valid name, parsed or not, sorted by their names.
    fn entries(&self) -> Result<Vec<Entry>>;

    /// The manifest of a name, in whatever spelling it was stored; the exact one is preferred.
    fn find(&self, name: &Name) -> Result<Option<Entry>>;

    /// How to spell a name that is about to be written, so that no two differ by case only: each part that is there
    /// already keeps its spelling.
    fn spelling(&self, name: &Name) -> Result<Name>;

    /// The bytes of a manifest.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::Oversized`].
    fn read_manifest(&self, name: &Name) -> Result<Vec<u8>>;

    /// Puts a manifest in its place for good, or leaves everything as it was.
    fn write_manifest(&self, name: &Name, bytes: &[u8]) -> Result<()>;

    /// Removes a manifest for good; one that is not there is no error.
    fn remove_manifest(&self, name: &Name) -> Result<()>;

    /// The bytes of a blob; `None` if it is not there.
    fn size(&self, digest: &Digest) -> Result<Option<u64>>;

    /// How long ago a blob was written or touched; `None` if it is not there.
    fn age(&self, digest: &Digest) -> Result<Option<Duration>>;

    /// Makes a blob look new, so that it is spared until a manifest names it. `false` if it is not there.
    fn touch(&self, digest: &Digest) -> Result<bool>;

    /// A blob that is small enough to be held in memory; `None` if it is not there.
    ///
    /// # Errors
    /// [`crate::Error::Oversized`] above `limit` bytes.
    fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>>;

    /// A part of a blob of `total` bytes. It ends early, with an error, when the bytes do. Not blocking.
    fn section(&self, digest: &Digest, total: u64, range: Range<u64>) -> Section;

    /// What a GGUF says of itself; of its weights nothing is read.
    ///
    /// # Errors
    /// [`gguf::Error::Io`] of the kind `NotFound` if the blob is not there.
    fn header(&self, digest: &Digest) -> Result<Header, gguf::Error>;

    /// Makes a blob last that has its name in [`Home::incoming`], where it stays when this fails. `sent` hears how many
    /// bytes are on their way, and ends it by an error.
    fn publish(&self, digest: &Digest, sent: Sent<'_>) -> Result<()>;

    /// Brings a blob to this machine, where it is not there. `told` hears how many of all bytes are there, and ends it
    /// by an error.
    fn fetch(&self, digest: &Digest, told: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<BlobFile>;

    /// A whole blob on this machine, if it is there.
    fn cached(&self, digest: &Digest) -> Option<BlobFile>;

    /// One that is not there is no error.
    fn remove_blob(&self, digest: &Digest) -> Result<()>;

    /// Removes what is older than `grace` and was never whole, and blobs that nobody uses.
    fn sweep(&self, grace: Duration, is_used: &dyn Fn(&Digest) -> bool) -> Result<Pruned>;

    /// Where blobs come in.
    fn incoming(&self) -> &Path;

    /// Where a blob lies on this machine, if it does.
    fn local(&self, digest: &Digest) -> PathBuf {
        self.incoming().join(digest.file_name())
    }

    /// For texts that people read.
    fn place(&self, what: Place<'_>) -> PathBuf;

    /// Where what blocks may run, for a home that must not be asked on a thread of the async runtime.
    fn runtime(&self) -> Option<&Handle> {
        None
    }
}

/// The bytes of a part of a blob.
pub(crate) type Section = BoxStream<'static, io::Result<Bytes>>;

/// Hears of bytes that are on their way; an error ends it.
pub(crate) type Sent<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// What has a place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Manifest(&'a Name),
    Blob(&'a Digest),
}

/// A manifest that has a valid name.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) stamp: Stamp,
}

/// Tells one version of a manifest from the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) modified: SystemTime,
    /// Whatever else differs: two writes within one tick of a clock can have the same time.
    pub(crate) version: String,
}

/// The head of a GGUF blob.
#[derive(Debug)]
pub struct Header {
    pub gguf: Gguf,
    /// Of all of the blob.
    pub bytes: u64,
}

// === impl Header ===

impl Header {
    /// Of a file.
    pub(crate) fn of(path: &Path) -> Result<Header, gguf::Error> {
        let file = gguf::File::open(path)?;
        let bytes = file.len();
        Ok(Header { gguf: file.into_header(), bytes })
    }
}

/// Publishes what came in; of what cannot be published nothing stays.
pub(crate) fn publish(home: &dyn Home, digest: &Digest, sent: Sent<'_>) -> Result<()> {
    home.publish(digest, sent).inspect_err(|_| {
        if let Err(error) = durable::remove(&home.local(digest)) {
            tracing::warn!(%error, "a blob that came in cannot be removed");
        }
    })
}

/// For a blob whose way nobody watches.
pub(crate) fn unwatched(_: u64) -> Result<()> {
    Ok(())
}

//! The home on a file system, in Ollama's folder layout. A blob that comes in has its place there already.
//!
//! ```text
//! manifests/<host>/<namespace>/<model>/<tag>    JSON
//! blobs/sha256-<64 hex>
//! ```

mod sweep;

use std::fs::{self, File, FileTimes, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, TryFutureExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::cache::BlobFile;
use crate::home::{Entry, Header, Home, MAX_MANIFEST, Place, Section, Sent, Stamp};
use crate::name::Part;
use crate::{Digest, Error, Name, Pruned, Result, durable};
pub(crate) use sweep::Sweep;

/// Large enough that the system calls do not matter, small enough that a bar moves.
const CHUNK_BYTES: usize = 256 << 10;

/// A models folder.
pub(crate) struct Directory {
    root: PathBuf,
    blobs: PathBuf,
}

// === impl Directory ===

impl Directory {
    /// Opens the folder and makes what is missing of it.
    pub(crate) fn open(root: PathBuf) -> Result<Directory> {
        let directory = Directory { blobs: root.join("blobs"), root };
        durable::create_directories(&directory.manifests())?;
        durable::create_directories(&directory.blobs)?;
        directory.rename_old_blobs()?;
        Ok(directory)
    }

    fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    fn manifest_path(&self, name: &Name) -> PathBuf {
        self.manifests().join(name.path())
    }

    fn stamp(&self, name: &Name) -> Result<Option<Stamp>> {
        let path = self.manifest_path(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(stamp(&metadata))),
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io("stat manifest", &path)(error)),
        }
    }

    /// Goes down one level for each part of a name. Files that cannot be a manifest are passed over.
    fn walk(&self, parts: &mut Vec<String>, found: &mut Vec<Entry>) -> Result<()> {
        let Some(kind) = Part::ALL.get(parts.len()) else {
            let name = Name::from_parts(std::array::from_fn(|level| parts[level].as_str()))?;
            found.extend(self.stamp(&name)?.map(|stamp| Entry { name, stamp }));
            return Ok(());
        };
        let directory = parts.iter().fold(self.manifests(), |path, part| path.join(part));
        for child in children(&directory)? {
            if kind.accepts(&child) {
                parts.push(child);
                self.walk(parts, found)?;
                parts.pop();
            }
        }
        Ok(())
    }

    /// Ollama's first versions wrote `sha256:`; every later one renames at start, and so do we.
    fn rename_old_blobs(&self) -> Result<()> {
        for name in children(&self.blobs)? {
            if let Some(hex) = name.strip_prefix("sha256:") {
                let (old, new) = (self.blobs.join(&name), self.blobs.join(format!("sha256-{hex}")));
                fs::rename(&old, &new).map_err(Error::io("rename blob", &old))?;
            }
        }
        Ok(())
    }
}

impl Home for Directory {
    fn entries(&self) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        self.walk(&mut Vec::new(), &mut found)?;
        Ok(found)
    }

    fn find(&self, name: &Name) -> Result<Option<Entry>> {
        if let Some(stamp) = self.stamp(name)? {
            return Ok(Some(Entry { name: name.clone(), stamp }));
        }
        let Some(parts) = search(&self.manifests(), &name.parts())? else { return Ok(None) };
        let stored = Name::from_parts(std::array::from_fn(|level| parts[level].as_str()))?;
        Ok(self.stamp(&stored)?.map(|stamp| Entry { name: stored, stamp }))
    }

    fn spelling(&self, name: &Name) -> Result<Name> {
        if let Some(entry) = self.find(name)? {
            return Ok(entry.name);
        }
        let mut directory = self.manifests();
        let mut parts = name.parts().map(str::to_owned);
        for part in &mut parts {
            if let Some(stored) = matching(&directory, part)?.into_iter().next() {
                *part = stored;
            }
            directory.push(&part);
        }
        Name::from_parts(parts.each_ref().map(String::as_str))
    }

    fn read_manifest(&self, name: &Name) -> Result<Vec<u8>> {
        let path = self.manifest_path(name);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(name.shortest()),
            _ => Error::io("open manifest", &path)(error),
        })?;
        read_bounded(file, &path, "manifest", MAX_MANIFEST)
    }

    fn write_manifest(&self, name: &Name, bytes: &[u8]) -> Result<()> {
        let path = self.manifest_path(name);
        let folder = path.parent().unwrap_or(&path).to_owned();
        // A delete of the last neighbour may remove the folder between our making it and our writing into it.
        // Three such deletes in a row would be a wonder.
        let mut attempts = 3;
        loop {
            attempts -= 1;
            durable::create_directories(&folder)?;
            match durable::write(&path, bytes) {
                Err(Error::Io { source, .. }) if attempts > 0 && source.kind() == io::ErrorKind::NotFound => {
                }
                Err(error) => {
                    durable::remove_empty_directories(&folder, &self.manifests());
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    fn remove_manifest(&self, name: &Name) -> Result<()> {
        let path = self.manifest_path(name);
        durable::remove(&path)?;
        durable::sync_parent(&path)?;
        durable::remove_empty_directories(path.parent().unwrap_or(&path), &self.manifests());
        Ok(())
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.local(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io("stat blob", &path)(error)),
        }
    }

    fn age(&self, digest: &Digest) -> Result<Option<Duration>> {
        let path = self.local(digest);
        match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            // From the future: as young as can be.
            Ok(modified) => Ok(Some(SystemTime::now().duration_since(modified).unwrap_or_default())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io("stat blob", &path)(error)),
        }
    }

    fn touch(&self, digest: &Digest) -> Result<bool> {
        Ok(touch(&self.local(digest)))
    }

    fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = self.local(digest);
        match File::open(&path) {
            Ok(file) => read_bounded(file, &path, "blob", limit).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open blob", &path)(error)),
        }
    }

    fn section(&self, digest: &Digest, _: u64, range: Range<u64>) -> Section {
        section(self.local(digest), range)
    }

    fn header(&self, digest: &Digest) -> Result<Header, gguf::Error> {
        Header::of(&self.local(digest))
    }

    fn publish(&self, _: &Digest, _: Sent<'_>) -> Result<()> {
        Ok(())
    }

    fn fetch(&self, digest: &Digest, _: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<BlobFile> {
        let place = || self.root.display().to_string();
        self.cached(digest).ok_or_else(|| Error::Absent { digest: digest.to_string(), place: place() })
    }

    fn cached(&self, digest: &Digest) -> Option<BlobFile> {
        let path = self.local(digest);
        path.is_file().then(|| BlobFile::for_good(path))
    }

    fn remove_blob(&self, digest: &Digest) -> Result<()> {
        durable::remove(&self.local(digest)).map(drop)
    }

    fn sweep(&self, grace: Duration, is_used: &dyn Fn(&Digest) -> bool) -> Result<Pruned> {
        let mut sweep = Sweep::new(grace);
        sweep.blobs(&self.blobs, is_used)?;
        sweep.manifests(&self.manifests(), 0)?;
        Ok(sweep.pruned)
    }

    fn incoming(&self) -> &Path {
        &self.blobs
    }

    fn place(&self, what: Place<'_>) -> PathBuf {
        match what {
            Place::Manifest(name) => self.manifest_path(name),
            Place::Blob(digest) => self.local(digest),
        }
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Stamp { modified, version: format!("{}-{inode}", metadata.len()) }
}

/// Makes a file look new. `false` if it is not there.
pub(crate) fn touch(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    // A folder that we may only read still serves its blobs.
    if let Err(error) = file.set_times(FileTimes::new().set_modified(SystemTime::now())) {
        tracing::debug!(path = %path.display(), %error, "blob cannot be touched");
    }
    true
}

/// Whether a path still leads to the file that was opened by it.
#[cfg(unix)]
pub(crate) fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

#[cfg(not(unix))]
pub(crate) fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Exactly the bytes of a range, or an error at the end; the file is opened when it is first read.
pub(crate) fn section(path: PathBuf, range: Range<u64>) -> Section {
    let length = range.end.saturating_sub(range.start);
    let opened = async move {
        let mut file = tokio::fs::File::open(path).await?;
        file.seek(io::SeekFrom::Start(range.start)).await?;
        Ok(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES))
    };
    let left = Arc::new(AtomicU64::new(length));
    let counted = Arc::clone(&left);
    let chunks = opened.try_flatten_stream().inspect_ok(move |chunk: &Bytes| {
        counted.fetch_sub(chunk.len() as u64, Ordering::Relaxed);
    });
    let end = stream::once(async move { left.load(Ordering::Relaxed) });
    let short = end.filter_map(async |left| match left {
        0 => None,
        left => Some(Err(io::Error::other(format!("a blob is {left} bytes shorter than before")))),
    });
    chunks.chain(short).boxed()
}

/// The names in a directory, sorted; one that is not there is empty.
pub(crate) fn children(directory: &Path) -> Result<Vec<String>> {
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in read {
        let name = entry.map_err(Error::io("list", directory))?.file_name();
        names.extend(name.into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// The children of a directory that are spelled like `part` but for case, the exact one first.
fn matching(directory: &Path, part: &str) -> Result<Vec<String>> {
    let mut names = children(directory)?;
    names.retain(|name| name.eq_ignore_ascii_case(part));
    names.sort_by_key(|name| name != part);
    Ok(names)
}

/// The stored spelling of the remaining `parts` below `directory`.
fn search(directory: &Path, parts: &[&str]) -> Result<Option<Vec<String>>> {
    let Some((part, rest)) = parts.split_first() else {
        return Ok(directory.is_file().then(Vec::new));
    };
    for stored in matching(directory, part)? {
        if let Some(mut found) = search(&directory.join(&stored), rest)? {
            found.insert(0, stored);
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

pub(crate) fn read_bounded(file: File, path: &Path, what: &'static str, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let got = bytes.len() as u64;
    if got > limit {
        let got = fs::metadata(path).map_or(got, |metadata| metadata.len());
        return Err(Error::Oversized { what, path: path.to_owned(), limit, got });
    }
    Ok(bytes)
}

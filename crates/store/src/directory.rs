//! Ollama's folder layout: where things lie, which manifests there are, and what was read of them before.
//!
//! ```text
//! manifests/<host>/<namespace>/<model>/<tag>    JSON
//! blobs/sha256-<64 hex>
//! ```

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::name::Part;
use crate::weights::Weights;
use crate::{Digest, Error, Layer, Manifest, Model, Name, Result, durable};

/// Docker's registry takes manifests up to this size, so no valid one is larger.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;

/// A folder and a cache of what lies in it.
pub(crate) struct Directory {
    root: PathBuf,
    models: Mutex<HashMap<Name, (Stamp, Arc<Model>)>>,
    weights: Mutex<HashMap<Digest, Arc<Weights>>>,
}

/// A manifest file that has a valid name.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) stamp: Stamp,
}

/// Tells one version of a file from the next. The inode is part of it because two writes within one tick of the
/// file system's clock can have the same time and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) modified: SystemTime,
    bytes: u64,
    inode: u64,
}

/// Every blob that a manifest names.
pub(crate) struct References {
    pub(crate) digests: HashSet<Digest>,
    /// A manifest could not be parsed; the digests in its text are counted, but nobody knows if they are all.
    pub(crate) corrupt: bool,
}

// === impl Directory ===

impl Directory {
    /// Opens the folder and makes what is missing of it.
    pub(crate) fn open(root: PathBuf) -> Result<Directory> {
        let directory = Directory { root, models: Mutex::default(), weights: Mutex::default() };
        durable::create_directories(&directory.manifests())?;
        durable::create_directories(&directory.blobs())?;
        directory.rename_old_blobs()?;
        Ok(directory)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn manifest_path(&self, name: &Name) -> PathBuf {
        self.manifests().join(name.path())
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.file_name())
    }

    /// All manifests with a valid name, parsed or not.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        self.walk(&mut Vec::new(), &mut found)?;
        Ok(found)
    }

    /// The manifest of a name, in whatever spelling it was stored; the exact one is preferred.
    pub(crate) fn find(&self, name: &Name) -> Result<Option<Entry>> {
        if let Some(stamp) = self.stamp(name)? {
            return Ok(Some(Entry { name: name.clone(), stamp }));
        }
        let Some(parts) = search(&self.manifests(), &name.parts())? else { return Ok(None) };
        let stored = Name::from_parts(std::array::from_fn(|level| parts[level].as_str()))?;
        Ok(self.stamp(&stored)?.map(|stamp| Entry { name: stored, stamp }))
    }

    /// How to spell a name that is about to be written, so that no two differ by case only: each part that is
    /// there already keeps its spelling.
    pub(crate) fn spelling(&self, name: &Name) -> Result<Name> {
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

    /// The bytes of a manifest.
    pub(crate) fn read_manifest(&self, name: &Name) -> Result<Vec<u8>> {
        let path = self.manifest_path(name);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(name.shortest()),
            _ => Error::io("open manifest", &path)(error),
        })?;
        read_bounded(file, &path, "manifest", MAX_MANIFEST)
    }

    pub(crate) fn parse_manifest(&self, name: &Name, bytes: &[u8]) -> Result<Manifest> {
        let json = |source| Error::Json { what: "manifest", path: self.manifest_path(name), source };
        Manifest::parse(bytes).map_err(json)
    }

    /// A blob small enough to be held in memory. `name` is the model that needs it.
    pub(crate) fn read_blob(&self, name: &Name, layer: &Layer, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(&layer.digest);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::Incomplete { name: name.shortest(), digest: layer.digest.to_string() }
            }
            _ => Error::io("open blob", &path)(error),
        })?;
        read_bounded(file, &path, "blob", limit)
    }

    /// The model of an entry, from the cache if its manifest is the one that was read then.
    pub(crate) fn model(&self, entry: &Entry) -> Result<Arc<Model>> {
        if let Some(model) = self.cached(entry) {
            return Ok(model);
        }
        let (model, complete) = Model::load(self, entry)?;
        let model = Arc::new(model);
        if complete {
            lock(&self.models).insert(entry.name.clone(), (entry.stamp, Arc::clone(&model)));
        }
        Ok(model)
    }

    /// What a GGUF says about itself; each file is parsed once.
    pub(crate) fn weights(&self, digest: &Digest) -> Result<Arc<Weights>, gguf::Error> {
        if let Some(weights) = lock(&self.weights).get(digest) {
            return Ok(Arc::clone(weights));
        }
        let file = gguf::File::open(&self.blob_path(digest))?;
        let weights = Arc::new(Weights::of(file.header()));
        lock(&self.weights).insert(digest.clone(), Arc::clone(&weights));
        Ok(weights)
    }

    /// Drops what the cache holds of names that are not in `entries`, which is a full listing.
    pub(crate) fn forget_all_but(&self, entries: &[Entry]) {
        let names: HashSet<&Name> = entries.iter().map(|entry| &entry.name).collect();
        let mut models = lock(&self.models);
        models.retain(|name, _| names.contains(name));
        let used: HashSet<&Digest> = models
            .values()
            .flat_map(|(_, model)| model.manifest.layers.iter().map(|layer| &layer.digest))
            .collect();
        lock(&self.weights).retain(|digest, _| used.contains(digest));
    }

    /// Every blob that is named by a manifest.
    pub(crate) fn references(&self) -> Result<References> {
        let mut references = References { digests: HashSet::new(), corrupt: false };
        for entry in self.entries()? {
            match self.cached(&entry) {
                Some(model) => references.add(&model.manifest),
                None => references.read(self, &entry.name)?,
            }
        }
        Ok(references)
    }

    fn cached(&self, entry: &Entry) -> Option<Arc<Model>> {
        let models = lock(&self.models);
        models.get(&entry.name).filter(|(stamp, _)| *stamp == entry.stamp).map(|(_, model)| Arc::clone(model))
    }

    fn stamp(&self, name: &Name) -> Result<Option<Stamp>> {
        let path = self.manifest_path(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(Stamp::of(&metadata))),
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
        for name in children(&self.blobs())? {
            if let Some(hex) = name.strip_prefix("sha256:") {
                let (old, new) = (self.blobs().join(&name), self.blobs().join(format!("sha256-{hex}")));
                fs::rename(&old, &new).map_err(Error::io("rename blob", &old))?;
            }
        }
        Ok(())
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Stamp { modified, bytes: metadata.len(), inode }
    }
}

// === impl References ===

impl References {
    fn add(&mut self, manifest: &Manifest) {
        self.digests.extend(manifest.blobs().map(|layer| layer.digest.clone()));
    }

    fn read(&mut self, directory: &Directory, name: &Name) -> Result<()> {
        let bytes = match directory.read_manifest(name) {
            // Somebody deleted it while we were walking.
            Err(Error::NotFound(_)) => return Ok(()),
            result => result?,
        };
        match Manifest::parse(&bytes) {
            Ok(manifest) => self.add(&manifest),
            Err(error) => {
                tracing::warn!(name = %name, %error, "manifest cannot be parsed");
                self.corrupt = true;
                self.digests.extend(digests_in(&bytes));
            }
        }
        Ok(())
    }
}

/// What looks like a digest in a damaged manifest: its blobs may yet be wanted.
fn digests_in(bytes: &[u8]) -> Vec<Digest> {
    let text = String::from_utf8_lossy(bytes);
    let tail = |start: usize| text.get(start..start + "sha256:".len() + 64);
    text.match_indices("sha256").filter_map(|(start, _)| Digest::parse(tail(start)?).ok()).collect()
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

fn read_bounded(file: File, path: &Path, what: &'static str, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let got = bytes.len() as u64;
    if got > limit {
        let got = fs::metadata(path).map_or(got, |metadata| metadata.len());
        return Err(Error::Oversized { what, path: path.to_owned(), limit, got });
    }
    Ok(bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A cache is as good after a panic as before it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Removing: a model with the blobs that only it uses, and at start-up whatever no model uses.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::directory::children;
use crate::store::Inner;
use crate::transfer::parts::PARTIAL;
use crate::{Digest, Error, Manifest, Name, Result, durable};

/// Ollama's grace: a blob may be uploaded some time before the manifest that names it is written.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// A download that was cut can be gone on with for so long after its last byte: a night, or a power cut. Ollama removes
/// it at its next start.
const PARTIAL_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// What start-up pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub files: usize,
    pub bytes: u64,
    /// Nothing was looked at: pruning is off, an upload is open, or a manifest is damaged.
    pub skipped: bool,
}

/// Removes a name and what only it used.
pub(crate) fn delete(inner: &Inner, name: &Name) -> Result<()> {
    let entry = inner.directory.find(name)?.ok_or_else(|| Error::NotFound(name.shortest()))?;
    let old = replaced(inner, &entry.name);
    let path = inner.directory.manifest_path(&entry.name);
    durable::remove(&path)?;
    durable::sync_parent(&path)?;
    durable::remove_empty_directories(path.parent().unwrap_or(&path), &inner.directory.manifests());
    // The name is gone and stays gone; a blob that cannot be removed is for pruning.
    remove_orphans(inner, old.iter().flat_map(Manifest::blobs).map(|layer| &layer.digest));
    Ok(())
}

/// The manifest that is about to be replaced or deleted, if there is one that can be read.
pub(crate) fn replaced(inner: &Inner, name: &Name) -> Option<Manifest> {
    let bytes = inner.directory.read_manifest(name).ok()?;
    inner.directory.parse_manifest(name, &bytes).ok()
}

/// Removes what only a replaced manifest used.
pub(crate) fn orphans_of(inner: &Inner, old: Option<Manifest>) {
    if inner.prune {
        remove_orphans(inner, old.iter().flat_map(Manifest::blobs).map(|layer| &layer.digest));
    }
}

/// Removes those of `candidates` that no manifest names and no running operation has pinned. A failure costs disk
/// space only, so it is logged and the operation that led here succeeds.
pub(crate) fn remove_orphans<'a>(inner: &Inner, candidates: impl IntoIterator<Item = &'a Digest>) {
    let candidates: HashSet<&Digest> = candidates.into_iter().collect();
    if candidates.is_empty() {
        return;
    }
    let pins = inner.pins.hold();
    let references = match inner.directory.references() {
        Ok(references) => references,
        Err(error) => {
            tracing::warn!(%error, "blobs are kept: manifests cannot be listed");
            return;
        }
    };
    let is_orphan =
        |digest: &&&Digest| !references.digests.contains(**digest) && !pins.contains_key(**digest);
    for digest in candidates.iter().filter(is_orphan) {
        if let Err(error) = durable::remove(&inner.directory.blob_path(digest)) {
            tracing::warn!(%error, "blob cannot be removed");
        }
    }
}

/// Removes old blobs that nothing names, old files that are no blobs, and empty folders of manifests.
pub(crate) fn prune(inner: &Inner) -> Result<Pruned> {
    let skipped = Pruned { skipped: true, ..Pruned::default() };
    let pins = inner.pins.hold();
    if !inner.prune || inner.uploads.load(Ordering::SeqCst) > 0 {
        return Ok(skipped);
    }
    let references = inner.directory.references()?;
    if references.corrupt {
        tracing::warn!("nothing is pruned: a manifest is damaged");
        return Ok(skipped);
    }
    let mut pruned = Pruned::default();
    let blobs = inner.directory.blobs();
    let names = children(&blobs)?;
    // All files of one download stay or go together: some parts of it may be complete for long.
    let is_young = |name: &&String| age(&blobs.join(name)).is_some_and(|age| age <= PARTIAL_GRACE);
    let resumable: HashSet<&str> = names.iter().filter(is_young).filter_map(|name| download(name)).collect();
    for name in &names {
        if download(name).is_some_and(|download| resumable.contains(download)) {
            continue;
        }
        let digest = Digest::parse(name).ok().filter(|digest| digest.file_name() == *name);
        let is_used = |digest: &Digest| references.digests.contains(digest) || pins.contains_key(digest);
        if !digest.as_ref().is_some_and(is_used) {
            pruned.remove_if_old(&blobs.join(name))?;
        }
    }
    prune_manifests(&inner.directory.manifests(), 0, &mut pruned)?;
    Ok(pruned)
}

/// The blob that a partial file is of.
fn download(name: &str) -> Option<&str> {
    let (blob, _) = name.split_once(PARTIAL)?;
    Digest::parse(blob).is_ok().then_some(blob)
}

/// Since the last write. `None` for what is not there, or is from the future.
fn age(path: &Path) -> Option<Duration> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(modified).ok()
}

impl Pruned {
    fn remove_if_old(&mut self, path: &Path) -> Result<()> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        if metadata.is_file() && age(path).is_some_and(|age| age > GRACE) && durable::remove(path)? {
            self.files += 1;
            self.bytes += metadata.len();
        }
        Ok(())
    }
}

/// Temporary files that a dead process left, and folders without a manifest. Depth counts from `manifests/`.
fn prune_manifests(directory: &Path, depth: usize, pruned: &mut Pruned) -> Result<()> {
    for name in children(directory)? {
        let path = directory.join(&name);
        if name.starts_with(durable::TEMPORARY) {
            pruned.remove_if_old(&path)?;
        } else if depth < 3 && path.is_dir() {
            prune_manifests(&path, depth + 1, pruned)?;
            // Only works if it is empty, which is what we want; a writer that wants it makes it again.
            let _ = fs::remove_dir(&path);
        }
    }
    Ok(())
}

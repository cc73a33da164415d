//! Removing: a model with the blobs that only it uses, and at start-up whatever no model uses.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use crate::store::Inner;
use crate::{Digest, Error, Manifest, Name, Result};

/// Nobody sees the uploads of other processes, and a client may upload for long before it makes a model of what it has
/// sent: with a grace of an hour, for a day.
const SHARED_GRACES: u32 = 24;

/// What pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub files: usize,
    pub bytes: u64,
    /// Nothing was looked at: pruning is off, an upload is open, or a manifest is damaged.
    pub skipped: bool,
}

/// Removes a name and what only it used.
pub(crate) fn delete(inner: &Inner, name: &Name) -> Result<()> {
    let entry = inner.home.find(name)?.ok_or_else(|| Error::NotFound(name.shortest()))?;
    let old = replaced(inner, &entry.name);
    inner.home.remove_manifest(&entry.name)?;
    // The name is gone and stays gone; a blob that cannot be removed is for pruning.
    remove_orphans(inner, old.iter().flat_map(Manifest::blobs).map(|layer| &layer.digest));
    Ok(())
}

/// The manifest that is about to be replaced or deleted, if there is one that can be read.
pub(crate) fn replaced(inner: &Inner, name: &Name) -> Option<Manifest> {
    let bytes = inner.home.read_manifest(name).ok()?;
    inner.shelf.parse_manifest(name, &bytes).ok()
}

/// Removes what only a replaced manifest used.
pub(crate) fn orphans_of(inner: &Inner, old: Option<Manifest>) {
    if inner.prune {
        remove_orphans(inner, old.iter().flat_map(Manifest::blobs).map(|layer| &layer.digest));
    }
}

/// The same from a `Drop`, on whatever thread that is.
pub(crate) fn remove_orphans_aside(inner: &Arc<Inner>, candidates: impl IntoIterator<Item = Digest>) {
    let candidates: Vec<Digest> = candidates.into_iter().collect();
    match inner.home.runtime() {
        None => remove_orphans(inner, &candidates),
        Some(runtime) => {
            let inner = Arc::clone(inner);
            runtime.spawn_blocking(move || remove_orphans(&inner, &candidates));
        }
    }
}

/// Removes those of `candidates` that no manifest names and no running operation has pinned. A failure costs space only,
/// so it is logged and the operation that led here succeeds.
pub(crate) fn remove_orphans<'a>(inner: &Inner, candidates: impl IntoIterator<Item = &'a Digest>) {
    let candidates: HashSet<&Digest> = candidates.into_iter().collect();
    if candidates.is_empty() {
        return;
    }
    let (pins, _held) = pinned(inner);
    let references = match inner.shelf.references() {
        Ok(references) => references,
        Err(error) => {
            tracing::warn!(%error, "blobs are kept: manifests cannot be listed");
            return;
        }
    };
    let is_orphan = |digest: &&&Digest| !references.digests.contains(**digest) && !pins.contains(**digest);
    for digest in candidates.iter().filter(is_orphan) {
        let removed = match is_spared(inner, digest) {
            Ok(false) => inner.home.remove_blob(digest),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "blob cannot be removed");
        }
    }
}

/// Whether somebody in another process may be about to name a blob: nobody here knows what is pinned there, but who
/// wants a blob makes it look new first. Pruning takes it later.
fn is_spared(inner: &Inner, digest: &Digest) -> Result<bool> {
    Ok(inner.shared && inner.home.age(digest)?.is_some_and(|age| age <= inner.grace))
}

/// Makes everything that is pinned here look new, for processes that do not know our pins.
pub(crate) fn keep_young(inner: &Inner) -> Result<()> {
    let (pins, _) = pinned(inner);
    pins.iter().try_for_each(|digest| inner.home.touch(digest).map(drop))
}

/// What is pinned, and the guard under which that stays so. A bucket may be silent for long, and whoever wants a pin
/// would wait: there the touch that comes with every pin has to do.
fn pinned(inner: &Inner) -> (HashSet<Digest>, Option<MutexGuard<'_, HashMap<Digest, usize>>>) {
    let held = inner.pins.hold();
    let pins = held.keys().cloned().collect();
    (pins, inner.home.runtime().is_none().then_some(held))
}

/// Removes old blobs that nothing names, old files that are no blobs, and empty folders of manifests.
pub(crate) fn prune(inner: &Inner) -> Result<Pruned> {
    let skipped = Pruned { skipped: true, ..Pruned::default() };
    let (pins, _held) = pinned(inner);
    if !inner.prune || inner.uploads.load(Ordering::SeqCst) > 0 {
        return Ok(skipped);
    }
    let references = inner.shelf.references()?;
    if references.corrupt {
        tracing::warn!("nothing is pruned: a manifest is damaged");
        return Ok(skipped);
    }
    let grace = if inner.shared { inner.grace * SHARED_GRACES } else { inner.grace };
    inner.home.sweep(grace, &|digest| references.digests.contains(digest) || pins.contains(digest))
}

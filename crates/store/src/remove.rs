//! Removing: a model with the blobs that only it uses, and at start-up whatever no model uses.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::store::Inner;
use crate::{Digest, Error, Manifest, Name, Result};

/// Ollama's grace: a blob may be uploaded some time before the manifest that names it is written.
const GRACE: Duration = Duration::from_secs(60 * 60);

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

/// Removes those of `candidates` that no manifest names and no running operation has pinned. A failure costs space only,
/// so it is logged and the operation that led here succeeds.
pub(crate) fn remove_orphans<'a>(inner: &Inner, candidates: impl IntoIterator<Item = &'a Digest>) {
    let candidates: HashSet<&Digest> = candidates.into_iter().collect();
    if candidates.is_empty() {
        return;
    }
    let pins = inner.pins.hold();
    let references = match inner.shelf.references() {
        Ok(references) => references,
        Err(error) => {
            tracing::warn!(%error, "blobs are kept: manifests cannot be listed");
            return;
        }
    };
    let is_orphan =
        |digest: &&&Digest| !references.digests.contains(**digest) && !pins.contains_key(**digest);
    for digest in candidates.iter().filter(is_orphan) {
        if let Err(error) = inner.home.remove_blob(digest) {
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
    let references = inner.shelf.references()?;
    if references.corrupt {
        tracing::warn!("nothing is pruned: a manifest is damaged");
        return Ok(skipped);
    }
    inner.home.sweep(GRACE, &|digest| references.digests.contains(digest) || pins.contains_key(digest))
}

//! Removing what was left: files that were never whole, blobs that nobody uses, folders without a manifest.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::children;
use crate::transfer::parts::PARTIAL;
use crate::{Digest, Pruned, Result, durable};

/// A download that was cut can be gone on with for so long after its last byte: a night, or a power cut. Ollama removes
/// it at its next start.
const PARTIAL_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// One round over a folder.
pub(crate) struct Sweep {
    grace: Duration,
    pub(crate) pruned: Pruned,
}

// === impl Sweep ===

impl Sweep {
    pub(crate) fn new(grace: Duration) -> Sweep {
        Sweep { grace, pruned: Pruned::default() }
    }

    /// Old files that are no blobs, and old blobs that nobody uses.
    pub(crate) fn blobs(&mut self, folder: &Path, is_used: &dyn Fn(&Digest) -> bool) -> Result<()> {
        let names = children(folder)?;
        // All files of one download stay or go together: some parts of it may be complete for long.
        let is_young = |name: &&String| age(&folder.join(name)).is_some_and(|age| age <= PARTIAL_GRACE);
        let resumable: HashSet<&str> =
            names.iter().filter(is_young).filter_map(|name| download(name)).collect();
        for name in &names {
            if download(name).is_some_and(|download| resumable.contains(download)) {
                continue;
            }
            let digest = Digest::parse(name).ok().filter(|digest| digest.file_name() == *name);
            if !digest.as_ref().is_some_and(is_used) {
                self.remove_if_old(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Temporary files that a dead process left, and folders without a manifest. Depth counts from `manifests/`.
    pub(super) fn manifests(&mut self, folder: &Path, depth: usize) -> Result<()> {
        for name in children(folder)? {
            let path = folder.join(&name);
            if name.starts_with(durable::TEMPORARY) {
                self.remove_if_old(&path)?;
            } else if depth < 3 && path.is_dir() {
                self.manifests(&path, depth + 1)?;
                // Only works if it is empty, which is what we want; a writer that wants it makes it again.
                let _ = fs::remove_dir(&path);
            }
        }
        Ok(())
    }

    fn remove_if_old(&mut self, path: &Path) -> Result<()> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        if metadata.is_file() && age(path).is_some_and(|age| age > self.grace) && durable::remove(path)? {
            self.pruned.files += 1;
            self.pruned.bytes += metadata.len();
        }
        Ok(())
    }
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

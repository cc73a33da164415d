//! Blobs that a manifest will name in a moment, counted.
//!
//! Who removes blobs holds the board for as long as that takes; who is about to use one pins it first and looks
//! whether it is there then. Within this process; across processes young blobs are spared (`remove`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Digest;

/// All that is pinned now.
#[derive(Clone, Default)]
pub(crate) struct Board {
    counts: Arc<Mutex<HashMap<Digest, usize>>>,
}

/// Blobs in use by an operation that runs now; free again when dropped.
pub struct Pins {
    board: Board,
    digests: Vec<Digest>,
}

impl Board {
    /// Keeps blobs from being removed until the guard is dropped.
    pub(crate) fn pin(&self, digests: impl IntoIterator<Item = Digest>) -> Pins {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut counts = self.hold();
        for digest in &digests {
            *counts.entry(digest.clone()).or_default() += 1;
        }
        drop(counts);
        Pins { board: self.clone(), digests }
    }

    /// Nothing is pinned or freed until the guard is dropped.
    pub(crate) fn hold(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut counts = self.board.hold();
        for digest in &self.digests {
            // By the entry, not by a look at all: a bundle pins its blobs one by one.
            if let Entry::Occupied(mut pinned) = counts.entry(digest.clone()) {
                *pinned.get_mut() -= 1;
                if *pinned.get() == 0 {
                    pinned.remove();
                }
            }
        }
    }
}

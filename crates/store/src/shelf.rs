//! A home, and what was read of it before.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::home::{Entry, Home, Place, Stamp};
use crate::weights::Weights;
use crate::{Digest, Error, Layer, Manifest, Model, Name, Result};

/// A model takes some round trips, one after the other. Each reader has a header in memory meanwhile, which may be some
/// 30 MiB with its vocabulary.
const READERS: usize = 8;

pub(crate) struct Shelf {
    pub(crate) home: Arc<dyn Home>,
    models: Mutex<HashMap<Name, (Stamp, Arc<Model>)>>,
    weights: Mutex<HashMap<Digest, Arc<Weights>>>,
}

/// Every blob that a manifest names.
pub(crate) struct References {
    pub(crate) digests: HashSet<Digest>,
    /// A manifest could not be parsed; the digests in its text are counted, but nobody knows if they are all.
    pub(crate) corrupt: bool,
}

// === impl Shelf ===

impl Shelf {
    pub(crate) fn new(home: Arc<dyn Home>) -> Shelf {
        Shelf { home, models: Mutex::default(), weights: Mutex::default() }
    }

    pub(crate) fn parse_manifest(&self, name: &Name, bytes: &[u8]) -> Result<Manifest> {
        let path = || self.home.place(Place::Manifest(name));
        Manifest::parse(bytes).map_err(|source| Error::Json { what: "manifest", path: path(), source })
    }

    /// A blob small enough to be held in memory. `name` is the model that needs it.
    pub(crate) fn read_blob(&self, name: &Name, layer: &Layer, limit: u64) -> Result<Vec<u8>> {
        self.home
            .read_blob(&layer.digest, limit)?
            .ok_or_else(|| Error::Incomplete { name: name.shortest(), digest: layer.digest.to_string() })
    }

    /// The model of an entry, from the cache if its manifest is the one that was read then.
    pub(crate) fn model(&self, entry: &Entry) -> Result<Arc<Model>> {
        if let Some(model) = self.cached(entry) {
            return Ok(model);
        }
        let (model, complete) = Model::load(self, entry)?;
        let model = Arc::new(model);
        if complete {
            lock(&self.models).insert(entry.name.clone(), (entry.stamp.clone(), Arc::clone(&model)));
        }
        Ok(model)
    }

    /// The models of a listing, in its order. What was not read before is read by several threads, where it is far away.
    pub(crate) fn models(&self, entries: &[Entry]) -> Vec<Result<Arc<Model>>> {
        let is_far = self.home.runtime().is_some();
        let unread: Vec<&Entry> =
            entries.iter().filter(|entry| is_far && self.cached(entry).is_none()).collect();
        std::thread::scope(|scope| {
            for share in unread.chunks(unread.len().div_ceil(READERS).max(1)) {
                // What fails here fails below, where it is told.
                scope.spawn(move || share.iter().for_each(|entry| drop(self.model(entry))));
            }
        });
        entries.iter().map(|entry| self.model(entry)).collect()
    }

    /// What a GGUF says about itself; each is parsed once.
    pub(crate) fn weights(&self, digest: &Digest) -> Result<Arc<Weights>, gguf::Error> {
        if let Some(weights) = lock(&self.weights).get(digest) {
            return Ok(Arc::clone(weights));
        }
        let weights = Arc::new(Weights::of(&self.home.header(digest)?.gguf));
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
        for entry in self.home.entries()? {
            match self.cached(&entry) {
                Some(model) => references.add(&model.manifest),
                None => references.read(&*self.home, &entry.name)?,
            }
        }
        Ok(references)
    }

    /// A model as it was when it was last read.
    pub(crate) fn remembered(&self, name: &Name) -> Option<Arc<Model>> {
        lock(&self.models).get(name).map(|(_, model)| Arc::clone(model))
    }

    fn cached(&self, entry: &Entry) -> Option<Arc<Model>> {
        let models = lock(&self.models);
        models.get(&entry.name).filter(|(stamp, _)| *stamp == entry.stamp).map(|(_, model)| Arc::clone(model))
    }
}

// === impl References ===

impl References {
    fn add(&mut self, manifest: &Manifest) {
        self.digests.extend(manifest.blobs().map(|layer| layer.digest.clone()));
    }

    fn read(&mut self, home: &dyn Home, name: &Name) -> Result<()> {
        let bytes = match home.read_manifest(name) {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A cache is as good after a panic as before it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

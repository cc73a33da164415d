//! The handle: async at the border, plain file I/O on blocking threads inside.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use api::ollama::{Progress, ShowRequest, ShowResponse};

use crate::bucket::{Access, Bucket};
use crate::bundle::{Bundle, Loaded};
use crate::cache::{BlobFile, Cache};
use crate::create::{self, Conversion, Made, Reporter};
use crate::directory::Directory;
use crate::home::{Header, Home};
use crate::location::Location;
use crate::lock::Locks;
use crate::making::NewBlob;
use crate::pins::Board;
use crate::shelf::Shelf;
use crate::transfer::Tuning;
use crate::upload::Upload;
use crate::{CreateSpec, Digest, Error, Model, Name, Pins, Pruned, Result, remove, show, unfinished};

/// Ollama's grace: a blob may be uploaded some time before the manifest that names it is written.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// What an operator sets, and what tests make shorter.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub location: Location,
    /// Where a bucket's blobs come in and are kept for a while; a folder needs none.
    pub cache: PathBuf,
    /// Of what is kept there; 0 = no bound.
    pub cache_bytes: u64,
    /// Whether blobs that a create or a copy orphans are removed, and whether [`Store::prune`] does anything
    /// (`OLLAMA_NOPRUNE` says no).
    pub prune: bool,
    /// Whether other processes may write to it, too: what looks like an orphan here may be what they are about to name,
    /// so young ones are left to [`Store::prune`]. A bucket is always shared.
    pub shared: bool,
    /// How long nobody removes a blob that has no name.
    pub grace: Duration,
    /// How blobs are brought from a bucket.
    pub tuning: Tuning,
    pub access: Access,
}

/// A models folder or a bucket. Cheap to clone; all clones share locks and caches.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What the operations work on.
pub(crate) struct Inner {
    pub(crate) home: Arc<dyn Home>,
    pub(crate) shelf: Shelf,
    pub(crate) prune: bool,
    pub(crate) shared: bool,
    pub(crate) grace: Duration,
    pub(crate) pins: Board,
    pub(crate) uploads: AtomicUsize,
    locks: Locks,
}

// === impl StoreConfig ===

impl From<Location> for StoreConfig {
    fn from(location: Location) -> StoreConfig {
        let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
        StoreConfig {
            location,
            cache: home.join(".ollama/cache"),
            cache_bytes: 0,
            prune: true,
            shared: false,
            grace: GRACE,
            tuning: Tuning::default(),
            access: Access::from_environment(),
        }
    }
}

impl From<PathBuf> for StoreConfig {
    fn from(root: PathBuf) -> StoreConfig {
        StoreConfig::from(Location::Folder(root))
    }
}

impl From<&Path> for StoreConfig {
    fn from(root: &Path) -> StoreConfig {
        StoreConfig::from(root.to_owned())
    }
}

// === impl Store ===

impl Store {
    /// Opens a models folder, and makes it if it is not there; or a bucket, which must be there. For start-up. Blocking,
    /// a bucket therefore by [`Store::connect`].
    pub fn open(config: impl Into<StoreConfig>) -> Result<Store> {
        let StoreConfig { location, cache, cache_bytes, prune, shared, grace, tuning, access } =
            config.into();
        let (home, shared): (Arc<dyn Home>, bool) = match location {
            Location::Folder(root) => (Arc::new(Directory::open(root)?), shared),
            Location::Bucket { name, prefix } => {
                let cache = Cache::open(cache, cache_bytes)?;
                (Arc::new(Bucket::open((&name, &prefix), &access, cache, tuning)?), true)
            }
        };
        unfinished::sweep(home.incoming());
        let inner = Inner {
            shelf: Shelf::new(Arc::clone(&home)),
            home,
            prune,
            shared,
            grace,
            pins: Board::default(),
            uploads: AtomicUsize::new(0),
            locks: Locks::default(),
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Opens either, from the async runtime that requests to the bucket will run on.
    pub async fn connect(config: impl Into<StoreConfig>) -> Result<Store> {
        let config = config.into();
        tokio::task::spawn_blocking(move || Store::open(config)).await.map_err(|_| Error::Task)?
    }

    /// All models, newest first. One that cannot be read is left out with a warning.
    pub async fn list(&self) -> Result<Vec<Arc<Model>>> {
        self.blocking(Inner::list).await
    }

    /// A model by its name, in any case.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Incomplete`] when a blob that it needs is not there.
    pub async fn get(&self, name: &Name) -> Result<Arc<Model>> {
        let name = name.clone();
        self.blocking(move |inner| inner.get(&name)).await
    }

    /// Makes a second name for the same blobs. Copying a name onto itself does nothing.
    pub async fn copy(&self, source: &Name, destination: &Name) -> Result<()> {
        let (source, destination) = (source.clone(), destination.clone());
        let guard = self.inner.locks.lock(&destination).await;
        self.blocking(move |inner| {
            let _guard = guard;
            inner.copy(&source, &destination)
        })
        .await
    }

    /// Removes a name, and the blobs that no other name uses.
    pub async fn delete(&self, name: &Name) -> Result<()> {
        let name = name.clone();
        let guard = self.inner.locks.lock(&name).await;
        self.blocking(move |inner| {
            let _guard = guard;
            remove::delete(inner, &name)
        })
        .await
    }

    /// Whether a blob is there. Who asks wants to use it, so it counts as young from now on: pruning must not take
    /// it between this answer and the create.
    pub async fn has_blob(&self, digest: &Digest) -> bool {
        let digest = digest.clone();
        self.blocking(move |inner| inner.home.touch(&digest)).await.unwrap_or(false)
    }

    /// Where a blob lies or would lie on this machine.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.inner.home.local(digest)
    }

    /// What a GGUF says of itself. Blocking.
    ///
    /// # Errors
    /// [`gguf::Error::Io`] of the kind `NotFound` when it is not in the store.
    pub fn header(&self, digest: &Digest) -> Result<Header, gguf::Error> {
        self.inner.home.header(digest)
    }

    /// A whole blob on this machine, if it is here. Blocking.
    pub fn cached(&self, digest: &Digest) -> Option<BlobFile> {
        self.inner.home.cached(digest)
    }

    /// A whole blob on this machine, brought here if it must be. `progress` hears how many of all bytes are here; a
    /// break gives up, and what has come is gone on with the next time. Blocking.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoRoom`], [`Error::Canceled`].
    pub fn fetch(
        &self,
        digest: &Digest,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<BlobFile> {
        self.inner.home.fetch(digest, &mut |completed, total| match progress(completed, total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Canceled),
        })
    }

    /// Starts to receive a blob.
    pub async fn upload(&self, digest: Digest) -> Result<Upload> {
        let shared = Arc::clone(&self.inner);
        self.blocking(move |_| Upload::start(shared, digest)).await
    }

    /// Starts a blob that is made here. Blocking.
    pub fn new_blob(&self) -> Result<NewBlob> {
        NewBlob::start(Arc::clone(&self.inner))
    }

    /// Removes what processes that died while they made a blob have left.
    pub async fn sweep(&self) {
        let swept = self.blocking(|inner| {
            unfinished::sweep(inner.home.incoming());
            Ok(())
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "nothing was swept");
        }
    }

    /// Removes a blob that no model came of. For drops: it does not wait where that takes long.
    pub fn discard(&self, digest: &Digest) {
        remove::remove_orphans_aside(&self.inner, [digest.clone()]);
    }

    /// What a worker has to make before [`Store::create`] can, if anything.
    pub async fn conversion(&self, spec: &CreateSpec) -> Result<Option<Conversion>> {
        let spec = spec.clone();
        self.blocking(move |inner| create::conversion(inner, &spec)).await
    }

    /// Takes over what a worker has made, so that it goes when no model comes of it.
    ///
    /// # Errors
    /// [`Error::Unmade`] when the blob is not in this store.
    pub async fn adopt(&self, digest: Digest, conversion: &Conversion) -> Result<Made> {
        if !self.has_blob(&digest).await {
            return Err(Error::Unmade { digest: digest.to_string() });
        }
        Ok(Made::new(Arc::clone(&self.inner), digest, conversion))
    }

    /// Makes a model. `progress` is called from a blocking thread; after this future is dropped, the work stops at
    /// the next step and leaves nothing behind.
    pub async fn create(&self, spec: CreateSpec, progress: impl Fn(Progress) + Send + 'static) -> Result<()> {
        let canceled = CancelOnDrop::default();
        let reporter = Reporter::new(Box::new(progress), Arc::clone(&canceled.flag));
        let guard = self.inner.locks.lock(&spec.name).await;
        self.blocking(move |inner| {
            let _guard = guard;
            create::run(inner, &spec, &reporter)
        })
        .await
    }

    /// Models as one file.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Incomplete`].
    pub async fn bundle(&self, names: Vec<Name>) -> Result<Bundle> {
        self.blocking(move |inner| Bundle::begin(inner, &names)).await
    }

    /// Gives a model of a file its name. The caller holds the lock of the name.
    pub async fn settle(&self, loaded: Arc<Loaded>, name: Name) -> Result<()> {
        self.blocking(move |inner| loaded.settle(inner, &name)).await
    }

    /// The answer to `POST /api/show`.
    pub async fn show(&self, name: &Name, request: &ShowRequest) -> Result<ShowResponse> {
        let (name, request) = (name.clone(), request.clone());
        self.blocking(move |inner| show::show(&*inner.home, &*inner.get(&name)?, &request)).await
    }

    /// Keeps the files of a conversion while it takes.
    pub fn pin(&self, conversion: &Conversion) -> Pins {
        self.inner
            .pins
            .pin(conversion.files.iter().map(|(_, digest)| digest.clone()).chain(conversion.base.clone()))
    }

    /// Makes what is in use look new to the other processes that share the store. For every few minutes.
    pub async fn keep_young(&self) -> Result<()> {
        self.blocking(remove::keep_young).await
    }

    /// Removes what no manifest names and is older than an hour, or a day where other processes share the store. For
    /// start-up, and in a cluster again and again; does nothing while an upload is open, when a manifest is damaged, or when pruning is off.
    pub async fn prune(&self) -> Result<Pruned> {
        self.blocking(remove::prune).await
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(|_| Error::Task)?
    }
}

// === impl Inner ===

impl Inner {
    fn list(&self) -> Result<Vec<Arc<Model>>> {
        let entries = self.home.entries()?;
        let mut models = Vec::with_capacity(entries.len());
        for (entry, model) in entries.iter().zip(self.shelf.models(&entries)) {
            match model {
                Ok(model) => models.push(model),
                Err(Error::NotFound(_)) => {}
                Err(error) => tracing::warn!(name = %entry.name, %error, "model cannot be read"),
            }
        }
        self.shelf.forget_all_but(&entries);
        models.sort_by_key(|model| std::cmp::Reverse(seconds(model)));
        Ok(models)
    }

    pub(crate) fn get(&self, name: &Name) -> Result<Arc<Model>> {
        let found = match self.home.find(name) {
            // Who is asked for a loaded model shall not fail for a bucket that is away.
            Err(error @ Error::Bucket { .. }) => {
                let known = self.shelf.remembered(name).ok_or(error)?;
                tracing::warn!(%name, "the bucket is away, the model is served as it was");
                return Ok(known);
            }
            found => found?,
        };
        self.shelf.model(&found.ok_or_else(|| Error::NotFound(name.shortest()))?)
    }

    fn copy(&self, source: &Name, destination: &Name) -> Result<()> {
        let missing = || Error::SourceNotFound(source.shortest());
        let entry = self.home.find(source)?.ok_or_else(missing)?;
        let destination = self.home.spelling(destination)?;
        if entry.name == destination {
            return Ok(());
        }
        let bytes = self.home.read_manifest(&entry.name)?;
        let manifest = self.shelf.parse_manifest(&entry.name, &bytes)?;
        let pins = self.pins.pin(manifest.blobs().map(|layer| layer.digest.clone()));
        if self.home.find(&entry.name)?.is_none() {
            return Err(missing());
        }
        let old = remove::replaced(self, &destination);
        self.home.write_manifest(&destination, &bytes)?;
        drop(pins);
        remove::orphans_of(self, old);
        Ok(())
    }
}

/// Tells the blocking side that nobody waits any more.
#[derive(Default)]
struct CancelOnDrop {
    flag: Arc<AtomicBool>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Relaxed);
    }
}

/// Ollama sorts by whole seconds and keeps the order of names within one.
fn seconds(model: &Model) -> u64 {
    model.modified_at.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

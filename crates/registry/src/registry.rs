//! The registry: one handle on everything that the processes of a cluster know about each other.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    error::{Error, Result},
    keys,
    limits::{self, Limits, Pins},
    locks::Lock,
    permits::{Clerk, Desk, Permit},
    reaper::Reaper,
    records::{CatalogRecord, WorkerRecord, decode, encode},
    retry::{Backoff, Retry},
    session::{Keeper, Session, SessionTasks, Shared},
    store::{Condition, MetadataStore, Op, Outcome},
    tasks::Tasks,
    view::ClusterView,
    watcher::{Views, Watcher},
};

#[derive(Clone, Debug)]
pub struct Config {
    /// Who writes the limits: shown to people.
    pub id: String,
    /// How long a worker or a lock holder that has died is taken for alive.
    pub lease_ttl: Duration,
    /// How long the permits of a worker that is gone stay, when nothing proves that its process is gone too.
    pub permit_grace: Duration,
    /// How much earlier than that a worker that is cut off unloads by itself. It covers what the clocks drift
    /// apart, one request that hangs, and the unloading.
    pub permit_margin: Duration,
    /// How long to wait for the metadata store at the start.
    pub start_timeout: Duration,
}

/// Cheap to clone. The tasks behind it end with the last clone; [`Registry::close`] also waits for them.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn MetadataStore>,
    config: Config,
    views: Views,
    tasks: Tasks,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Config {
        Config {
            id: String::new(),
            lease_ttl: Duration::from_secs(5),
            permit_grace: Duration::from_secs(120),
            permit_margin: Duration::from_secs(15),
            start_timeout: Duration::from_secs(30),
        }
    }
}

// === impl Registry ===

impl Registry {
    /// Takes a first snapshot, waiting for the store if need be, and begins to follow it.
    pub async fn start(store: Arc<dyn MetadataStore>, config: Config) -> Result<Registry> {
        let watcher = first_snapshot(&store, config.start_timeout).await?;
        let views = watcher.views().clone();
        let tasks = Tasks::new();
        tasks.spawn(|stop| watcher.run(stop));
        let reaper = Reaper { store: store.clone(), view: views.subscribe(), grace: config.permit_grace };
        tasks.spawn(|stop| reaper.run(stop));
        Ok(Registry { inner: Arc::new(Inner { store, config, views, tasks }) })
    }

    /// The newest picture of the cluster; costs nothing.
    pub fn view(&self) -> Arc<ClusterView> {
        self.inner.views.newest()
    }

    /// Tells every new picture.
    pub fn changed(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.inner.views.subscribe()
    }

    /// Waits until the picture is as wanted, starting with the newest.
    pub async fn wait_for(
        &self,
        mut is_wanted: impl FnMut(&ClusterView) -> bool,
    ) -> Result<Arc<ClusterView>> {
        let mut changed = self.changed();
        let view = changed.wait_for(|view| is_wanted(view)).await.map_err(|_| Error::Closed)?;
        Ok(view.clone())
    }

    /// Makes a worker known and keeps it known until the session is closed or dropped.
    pub async fn announce(&self, worker: WorkerRecord) -> Result<Session> {
        let Inner { store, config, views, tasks } = &*self.inner;
        if tasks.is_closed() {
            return Err(Error::Closed);
        }
        let shared = Arc::new(Shared::new(worker.clone()));
        let keeper = Keeper::start(store.clone(), shared.clone(), views.subscribe(), config).await?;
        let watches = keeper.watches();
        let (desk, requests) = Desk::new();
        let clerk = Clerk {
            store: store.clone(),
            worker,
            requests,
            session: shared.clone(),
            state: watches.state.clone(),
            view: views.subscribe(),
            books: Default::default(),
        };
        let tasks =
            SessionTasks::new(tasks.spawn(|stop| clerk.run(stop)), tasks.spawn(|stop| keeper.run(stop)));
        Ok(Session::new(shared, desk, watches, tasks))
    }

    /// Asks for the right to have one more model in memory (C1). Answers at once: whoever wants to wait watches
    /// the view for a permit that is given back.
    pub async fn acquire_permit(&self, session: &Session, replica_key: &str) -> Result<Permit> {
        session.desk().acquire(replica_key).await
    }

    pub fn limits(&self) -> Limits {
        self.view().limits()
    }

    /// What a gateway does when it starts: the newest start wins, unless limits are pinned. Answers what holds.
    pub async fn set_limits_from_environment(&self, environment: Limits) -> Result<Limits> {
        limits::set_from_environment(&*self.inner.store, &self.inner.config.id, environment).await
    }

    /// Fixes limits against every environment, beside those that are pinned already.
    pub async fn pin_limits(&self, pins: Pins) -> Result<Limits> {
        limits::pin(&*self.inner.store, &self.inner.config.id, pins).await
    }

    /// Lets the environment of the gateway that started last hold again.
    pub async fn unpin_limits(&self) -> Result<Limits> {
        limits::unpin(&*self.inner.store, &self.inner.config.id).await
    }

    /// Waits for the lock of that name. Dropping the future leaves the line.
    pub async fn lock(&self, name: &str) -> Result<Lock> {
        Lock::acquire(&self.inner.store, &self.inner.tasks, self.inner.config.lease_ttl, name).await
    }

    /// Tells everybody that the model store has changed; call it after the change is durable. Answers the new
    /// count. After an error it may have been counted all the same, which does no harm.
    pub async fn bump_catalog(&self) -> Result<u64> {
        let store = &self.inner.store;
        let mut retry = Retry::contended(keys::CATALOG);
        loop {
            let snapshot = store.range(keys::CATALOG).await?;
            let item = snapshot.get(keys::CATALOG);
            let record = item.map(|item| decode::<CatalogRecord>(&item.value)).transpose();
            let mut record = record
                .map_err(|reason| Error::Unreadable { key: keys::CATALOG.to_owned(), reason })?
                .unwrap_or_default();
            record.count += 1;
            let condition = Condition::unchanged(keys::CATALOG, item);
            let op = Op::put(keys::CATALOG, encode(&record));
            if let Outcome::Committed { .. } = store.txn(&[condition], &[op]).await? {
                return Ok(record.count);
            }
            retry.wait().await?;
        }
    }

    pub fn store(&self) -> &Arc<dyn MetadataStore> {
        &self.inner.store
    }

    /// Ends every session, lock and task that came from here, and waits for them, within a bound.
    pub async fn close(&self) {
        self.inner.tasks.close().await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn first_snapshot(store: &Arc<dyn MetadataStore>, patience: Duration) -> Result<Watcher> {
    let ends = Instant::now() + patience;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        match Watcher::start(store.clone()).await {
            Err(error) if error.is_retryable() && Instant::now() < ends => sleep(backoff.pause()).await,
            result => return Ok(result?),
        }
    }
}

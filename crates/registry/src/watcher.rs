//! The task that keeps the view: a snapshot, then every change, and a new snapshot whenever the watch is lost.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    retry::Backoff,
    store::{Error, MetadataStore, Result},
    view::ClusterView,
};

/// A store that comes back should be seen within a second or two, and one that is down not be hammered.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSE: Duration = Duration::from_secs(1);

/// Where the newest view is read, without waiting for anybody.
#[derive(Clone)]
pub(crate) struct Views {
    newest: Arc<ArcSwap<ClusterView>>,
    changed: watch::Sender<Arc<ClusterView>>,
}

pub(crate) struct Watcher {
    store: Arc<dyn MetadataStore>,
    views: Views,
    backoff: Backoff,
}

// === impl Views ===

impl Views {
    pub fn newest(&self) -> Arc<ClusterView> {
        self.newest.load_full()
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.changed.subscribe()
    }

    fn publish(&self, view: ClusterView) {
        let view = Arc::new(view);
        self.newest.store(view.clone());
        self.changed.send_replace(view);
    }
}

// === impl Watcher ===

impl Watcher {
    /// Takes the first snapshot, so that nobody ever sees an empty view of a full cluster.
    pub async fn start(store: Arc<dyn MetadataStore>) -> Result<Watcher> {
        let view = Arc::new(ClusterView::from_snapshot(store.range("").await?));
        let views = Views { newest: Arc::new(ArcSwap::new(view.clone())), changed: watch::Sender::new(view) };
        Ok(Watcher { store, views, backoff: Backoff::new(LEAST_PAUSE, MOST_PAUSE) })
    }

    pub fn views(&self) -> &Views {
        &self.views
    }

    pub async fn run(mut self, shutdown: CancellationToken) {
        let follow = async {
            let mut from = self.views.newest().revision + 1;
            loop {
                let lost = self.follow(from).await;
                from = self.resync(lost).await;
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }

    /// Applies changes until the watch is lost.
    async fn follow(&mut self, from: i64) -> Error {
        let mut watch = match self.store.watch("", from).await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        loop {
            let changes = match watch.next().await {
                Some(Ok(changes)) => changes,
                Some(Err(error)) => return error,
                None => return Error::Unavailable("the watch has ended".into()),
            };
            self.backoff.reset();
            let mut view = ClusterView::clone(&self.views.newest());
            if view.apply(changes) {
                self.views.publish(view);
            }
        }
    }

    /// Takes snapshots until one succeeds; answers where the next watch begins. Meanwhile the last view stays,
    /// marked stale.
    async fn resync(&mut self, lost: Error) -> i64 {
        match &lost {
            Error::Compacted { .. } => debug!(error = %lost, "watch lost, the view is taken anew"),
            _ => warn!(error = %lost, "metadata store lost, the last view stays"),
        }
        let since = Instant::now();
        loop {
            sleep(self.backoff.pause()).await;
            match self.store.range("").await {
                Ok(snapshot) => {
                    let last = self.views.newest();
                    let mut view = ClusterView::from_snapshot(snapshot);
                    view.setbacks = last.setbacks;
                    if view.revision < last.revision {
                        error!(was = last.revision, is = view.revision, "metadata store has lost revisions");
                        view.setbacks += 1;
                    }
                    let from = view.revision + 1;
                    info!(revision = view.revision, behind = ?since.elapsed(), "view is current again");
                    self.views.publish(view);
                    return from;
                }
                Err(error) => {
                    debug!(%error, "snapshot failed");
                    self.mark_stale(since);
                }
            }
        }
    }

    fn mark_stale(&self, since: Instant) {
        let newest = self.views.newest();
        if newest.stale_since.is_none() {
            let mut view = ClusterView::clone(&newest);
            view.stale_since = Some(since);
            self.views.publish(view);
        }
    }
}

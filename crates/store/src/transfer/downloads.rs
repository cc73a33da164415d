//! The downloads of this process: who wants a blob that is coming already waits for that one. The last one to leave
//! stops it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio_util::task::AbortOnDropHandle;

use super::download::{Download, Progress};
use crate::{Digest, Error, Result};

type Outcome = BoxFuture<'static, Result<(), Arc<Error>>>;

#[derive(Default)]
pub(crate) struct Downloads {
    running: Mutex<HashMap<Digest, Running>>,
}

struct Running {
    outcome: WeakShared<Outcome>,
    progress: Arc<Progress>,
}

/// A share in a download. When the last one is dropped, the task is.
pub(crate) struct Subscription {
    pub(crate) outcome: Shared<Outcome>,
    pub(crate) progress: Arc<Progress>,
}

impl Downloads {
    /// Joins the download of `digest`, or starts one. `make` gets the progress that subscribers will read.
    pub(crate) fn join(&self, digest: &Digest, make: impl FnOnce(Arc<Progress>) -> Download) -> Subscription {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Digests come from manifests of strangers: forget what has ended, so that the map has a bound.
        running
            .retain(|_, download| download.outcome.upgrade().is_some_and(|shared| shared.peek().is_none()));
        if let Some(Running { outcome, progress }) = running.get(digest)
            && let Some(outcome) = outcome.upgrade()
        {
            return Subscription { outcome, progress: Arc::clone(progress) };
        }
        let progress = Arc::new(Progress::default());
        // A task of its own: a subscriber whose client reads slowly must not slow down the others.
        let task = AbortOnDropHandle::new(tokio::spawn(make(Arc::clone(&progress)).run()));
        let outcome = task.map(|ended| ended.unwrap_or(Err(Error::Task)).map_err(Arc::new)).boxed().shared();
        let weak = outcome.downgrade().expect("a future that was never polled is alive");
        running.insert(digest.clone(), Running { outcome: weak, progress: Arc::clone(&progress) });
        Subscription { outcome, progress }
    }
}

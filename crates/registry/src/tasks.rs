//! The owner of every task that the registry spawns: each has a way to be told to end, and somebody who waits.

use std::{future::Future, time::Duration};

use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

/// A task that is told to end finishes what it does with the store and revokes its lease: a few requests, each
/// within the store's own limit.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    closing: CancellationToken,
}

// === impl Tasks ===

impl Tasks {
    pub fn new() -> Tasks {
        Tasks { tracker: TaskTracker::new(), closing: CancellationToken::new() }
    }

    /// Runs a task that ends soon after its token is cancelled, which happens at the latest when all are closed.
    pub fn spawn<F>(&self, task: impl FnOnce(CancellationToken) -> F) -> (CancellationToken, JoinHandle<()>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.closing.child_token();
        let handle = self.tracker.spawn(task(token.clone()));
        (token, handle)
    }

    pub fn cancel(&self) {
        self.tracker.close();
        self.closing.cancel();
    }

    pub async fn close(&self) {
        self.cancel();
        if timeout(CLOSE_TIMEOUT, self.tracker.wait()).await.is_err() {
            warn!(left = self.tracker.len(), within = ?CLOSE_TIMEOUT, "registry tasks did not end");
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closing.is_cancelled()
    }
}

//! Ends replicas whose time has come: one task, which looks at the table at every change and at the next expiry.

use std::sync::{PoisonError, Weak};

use tokio::time::{Instant, sleep_until};

use super::Inner;

/// Runs until the tracker of its tasks is closed, or nobody is left.
pub async fn keep(inner: Weak<Inner>) {
    let Some(mut changes) = inner.upgrade().map(|inner| inner.changes.watch()) else { return };
    loop {
        let wake = {
            let Some(inner) = inner.upgrade() else { return };
            if inner.tasks.is_closed() {
                return;
            }
            let mut table = inner.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.expire(Instant::now())
        };
        let expiry = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = expiry => {}
        }
    }
}

//! The limit of loaded models when it shrinks (contract C1): what is idle goes first, what is busy goes when it is idle.
//!
//! One gateway of the cluster does this at a time. Several, each with a picture of its own, would choose different
//! replicas and end too many.

use registry::placement;

use super::{LOOK_AGAIN, Shared};

/// Whoever holds it keeps the limit, for as long as it lives.
const LOCK: &str = "limit";

impl Shared {
    /// Never returns: it is dropped with the gateway.
    pub(super) async fn keep_limit(&self) {
        loop {
            match self.registry.lock(LOCK).await {
                Ok(lock) => tokio::select! {
                    () = self.end_surplus() => {}
                    () = lock.lost() => {}
                },
                Err(error) => tracing::debug!(%error, "cannot take the lock of the limit, trying again"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Returns when the registry has ended.
    async fn end_surplus(&self) {
        let (mut views, mut changes) = (self.registry.changed(), self.cluster.changes());
        loop {
            let view = self.registry.view();
            // Statuses change with every request, and hardly ever is there anything to do.
            if view.permits.len() > view.max_loaded_models() as usize {
                for victim in placement::surplus(&view, &self.live()) {
                    self.evict(&victim).await;
                }
            }
            let more = tokio::select! {
                more = views.changed() => more.is_ok(),
                more = changes.changed() => more.is_ok(),
            };
            if !more {
                return;
            }
        }
    }
}

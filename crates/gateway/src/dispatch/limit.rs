//! The limit of loaded models when it shrinks (contract C1): what is idle goes first, what is busy goes when it is idle.
//!
//! Every gateway does this. They see the same cluster and choose the same replicas, and to end one twice is to end it
//! once.

use registry::placement;

use super::Shared;

impl Shared {
    /// Never returns: it is dropped with the gateway.
    pub(super) async fn keep_limit(&self) {
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

//! Tells everybody who watches the worker that something is different. What is different they look up themselves, so
//! any number of changes between two looks is one.

use tokio::sync::watch;

/// The one bell of a worker. Cheap to clone; ringing it never blocks and works from any thread.
#[derive(Clone, Debug)]
pub struct Changes(watch::Sender<u64>);

impl Changes {
    pub fn notify(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Sees every change after this call.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Default for Changes {
    fn default() -> Changes {
        Changes(watch::Sender::new(0))
    }
}

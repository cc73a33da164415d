//! The state of the worker as a stream: once at the start, then after every change.

use std::time::Duration;

use futures::{Stream, stream};
use protocol::v1::WorkerStatus;
use tokio::{sync::watch, time::sleep};

use crate::replicas::Replicas;

/// Changes that come closer together are told as one: a busy worker changes thousands of times a second, and no
/// gateway decides better for knowing each. The first change after a quiet time is told at once.
const GAP: Duration = Duration::from_millis(5);

struct Watch {
    replicas: Replicas,
    changes: watch::Receiver<u64>,
    is_first: bool,
}

pub fn watch(replicas: Replicas) -> impl Stream<Item = WorkerStatus> + Send {
    let changes = replicas.changes().watch();
    let watch = Watch { replicas, changes, is_first: true };
    stream::unfold(watch, async |mut watch| {
        if !watch.is_first {
            sleep(GAP).await;
            watch.changes.changed().await.ok()?;
        }
        watch.is_first = false;
        Some((watch.replicas.status(), watch))
    })
}

//! The service that keeps [`Cluster`] in step with the registry: one task per worker in the view follows that
//! worker's `Status` stream, reconnects with a bounded pause, and ends when the worker leaves the view.

use std::collections::HashMap;
use std::time::Duration;

use protocol::v1::{StatusRequest, WorkerStatus};
use registry::{ClusterView, Registry, WorkerRecord};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use api::Error;

use super::{Client, Cluster, Peer, lazy_channel};

/// A worker that restarts is back within a second or two; asking it this often costs nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Who a follower follows; any difference means a new process or a new address.
#[derive(Clone, PartialEq, Eq)]
struct Identity {
    boot_id: String,
    address: String,
}

struct Follower {
    identity: Identity,
    task: AbortHandle,
}

/// Owns the follower tasks; ending it ends them.
struct Followers<'a> {
    cluster: &'a Cluster,
    /// Channels for addresses that are no network addresses, such as the worker in this process.
    injected: &'a HashMap<String, Channel>,
    by_worker: HashMap<String, Follower>,
    tasks: JoinSet<()>,
}

impl Cluster {
    /// Runs until the shutdown.
    pub async fn run(
        &self,
        registry: &Registry,
        injected: &HashMap<String, Channel>,
        shutdown: CancellationToken,
    ) {
        let mut changed = registry.changed();
        let mut followers =
            Followers { cluster: self, injected, by_worker: HashMap::new(), tasks: JoinSet::new() };
        loop {
            changed.borrow_and_update();
            followers.reconcile(&registry.view());
            self.notify();
            tokio::select! {
                () = shutdown.cancelled() => break,
                outcome = changed.changed() => if outcome.is_err() { break },
                Some(_) = followers.tasks.join_next() => {}
            }
        }
        followers.tasks.shutdown().await;
    }

    fn connect(&self, worker: &str, channel: Channel) -> Client {
        let peer = Peer::new(channel, self.new_connection());
        let client = peer.client.clone();
        self.lock().insert(worker.to_owned(), peer);
        client
    }

    fn heard(&self, worker: &str, status: WorkerStatus) {
        if let Some(peer) = self.lock().get_mut(worker) {
            peer.counted();
            peer.status = Some(status);
        }
        self.notify();
    }

    fn lost(&self, worker: &str) {
        let connection = self.new_connection();
        if let Some(peer) = self.lock().get_mut(worker) {
            peer.counted();
            peer.status = None;
            peer.connection = connection;
        }
        self.notify();
    }
}

impl Followers<'_> {
    fn reconcile(&mut self, view: &ClusterView) {
        let mut current = HashMap::new();
        for record in view.workers.values() {
            let identity = Identity { boot_id: record.boot_id.clone(), address: record.address.clone() };
            match self.by_worker.remove(&record.id) {
                Some(follower) if follower.identity == identity => {
                    current.insert(record.id.clone(), follower);
                }
                older => {
                    if let Some(older) = older {
                        older.task.abort();
                    }
                    if let Some(task) = self.follow(record) {
                        current.insert(record.id.clone(), Follower { identity, task });
                    }
                }
            }
        }
        for (worker, gone) in std::mem::replace(&mut self.by_worker, current) {
            gone.task.abort();
            self.cluster.lock().remove(&worker);
        }
    }

    fn follow(&mut self, record: &WorkerRecord) -> Option<AbortHandle> {
        let channel = match self.injected.get(&record.address) {
            Some(channel) => Ok(channel.clone()),
            None => lazy_channel(&record.address),
        };
        match channel {
            Ok(channel) => {
                let client = self.cluster.connect(&record.id, channel);
                Some(self.tasks.spawn(follow(self.cluster.clone(), record.id.clone(), client)))
            }
            Err(error) => {
                tracing::error!(worker = record.id, %error, "cannot use a worker's record");
                None
            }
        }
    }
}

async fn follow(cluster: Cluster, worker: String, mut client: Client) {
    let mut pause = FIRST_PAUSE;
    let mut was_up = true;
    loop {
        let outcome = listen(&cluster, &worker, &mut client).await;
        cluster.lost(&worker);
        let up = matches!(outcome, Ok(heard) if heard > 0);
        if up || was_up {
            let error =
                outcome.err().map_or_else(|| "the stream ended".to_owned(), |error| error.to_string());
            tracing::warn!(worker, error, "lost the worker, trying again");
        }
        was_up = up;
        pause = if up { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

/// Takes in one stream until it ends; how many statuses it brought.
async fn listen(cluster: &Cluster, worker: &str, client: &mut Client) -> Result<u64, Error> {
    let mut heard = 0;
    let mut statuses = client.status(StatusRequest {}).await.map_err(|status| of(&status))?.into_inner();
    loop {
        match statuses.message().await {
            Ok(Some(status)) => {
                heard += 1;
                cluster.heard(worker, status);
            }
            Ok(None) => return Ok(heard),
            // It was up: what follows is a reconnect, which the caller logs.
            Err(_) if heard > 0 => return Ok(heard),
            Err(status) => return Err(of(&status)),
        }
    }
}

fn of(status: &tonic::Status) -> Error {
    protocol::from_status(status)
}

//! Loading a replica: one gateway at a time per model, victims first, then the load itself with its progress.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use api::{Code, Error, Result};
use protocol::v1::{LoadRequest, ReplicaStatus, UnloadRequest};
use registry::ReplicaId;
use registry::placement::{self, Plan, Reason};

use crate::admission::{LoadFailure, Loaded};
use crate::errand::Errand;

use super::{LOOK_AGAIN, Shared, Standing};

impl Shared {
    /// Loads the model where placement says, after making room there. Plans only once it holds the lock, and again
    /// after every change: another gateway may have loaded the model meanwhile, another model may have taken the
    /// place that was made.
    pub(super) async fn load_somewhere(
        &self,
        errand: &Errand,
        standing: &Standing,
    ) -> Result<Loaded, LoadFailure> {
        let lock = self.registry.lock(&format!("load/{}", errand.replica_key())).await;
        let lock = lock.map_err(|error| LoadFailure { link: None, error: error.into() })?;
        let outcome = self.make_room_and_load(errand, standing).await;
        lock.release().await;
        outcome
    }

    async fn make_room_and_load(&self, errand: &Errand, standing: &Standing) -> Result<Loaded, LoadFailure> {
        let mut evicted = BTreeSet::new();
        loop {
            let mut changes = self.cluster.changes();
            let demand = self.demand(errand, standing);
            match placement::plan(&self.registry.view(), &self.live(), &demand) {
                Plan::Load { worker, evict } if evict.is_empty() => {
                    let link = self.cluster.link(&worker);
                    let loaded = self.load_on(errand, &worker, errand.first_keep_alive_ns).await;
                    return loaded.map(|()| Loaded::Here).map_err(|error| LoadFailure { link, error });
                }
                Plan::Load { evict, .. } => {
                    for victim in evict {
                        if evicted.insert((victim.worker.clone(), victim.replica_key.clone())) {
                            self.evict(&victim).await;
                        }
                    }
                }
                Plan::Wait(Reason::Unloading) if !evicted.is_empty() => {}
                Plan::Use(_) | Plan::Wait(_) => return Ok(Loaded::Changed),
            }
            // Until the victims are gone. One that was loaded again at once would be waited for in vain.
            if tokio::time::timeout(LOOK_AGAIN, changes.changed()).await.is_err() {
                return Ok(Loaded::Changed);
            }
        }
    }

    /// Asks for the end of a replica. Whether it ends is seen in the status of its worker, and a worker that cannot
    /// be asked has none that stands in the way.
    pub(super) async fn evict(&self, victim: &ReplicaId) {
        let ReplicaId { worker, replica_key } = victim;
        let Some(mut client) = self.cluster.client(worker) else { return };
        let request = UnloadRequest { replica_key: replica_key.clone() };
        match client.unload(request).await {
            Ok(_) => tracing::info!(worker, replica_key, "evicting a model to make room"),
            Err(status) => {
                let error = protocol::from_status(&status);
                tracing::warn!(worker, replica_key, %error, "cannot evict a model");
            }
        }
    }

    /// Asks one worker to have it loaded, and waits until it is.
    pub(super) async fn load_on(
        &self,
        errand: &Errand,
        worker: &str,
        keep_alive_ns: Option<i64>,
    ) -> Result<()> {
        let mut client = self.client(worker)?;
        let request = LoadRequest {
            model: Some(errand.model.clone()),
            options: Some(errand.load),
            num_parallel: self.registry.limits().num_parallel,
            keep_alive_ns,
        };
        let what = format!("worker `{worker}` to load model `{}`", errand.model.name);
        let opened = self.patiently(&what, client.load(request)).await?;
        let mut progress = opened.map_err(|status| protocol::from_status(&status))?.into_inner();
        loop {
            let step = self.patiently(&what, progress.message()).await?;
            match step.map_err(|status| protocol::from_status(&status))? {
                Some(step) => match step.ready {
                    Some(ready) => return self.loaded(worker, ready),
                    None => tracing::debug!(worker, fraction = step.fraction, "model is being loaded"),
                },
                None => return Err(Error::unavailable(format!("worker `{worker}` ended the load halfway"))),
            }
        }
    }

    /// The worker's status stream will say it too, but perhaps not before we look.
    fn loaded(&self, worker: &str, ready: ReplicaStatus) -> Result<()> {
        tracing::debug!(worker, model = ready.name, slots = ready.slots, "model is loaded");
        self.cluster.learn(worker, ready);
        Ok(())
    }

    fn client(&self, worker: &str) -> Result<crate::cluster::Client> {
        let unknown = || Error::unavailable(format!("worker `{worker}` has left the cluster"));
        self.cluster.client(worker).ok_or_else(unknown)
    }

    /// Waits for one step, as long as the operator allows.
    async fn patiently<T>(&self, what: &str, step: impl Future<Output = T>) -> Result<T> {
        let Some(patience) = self.load_timeout else { return Ok(step.await) };
        tokio::time::timeout(patience, step).await.map_err(|_| timed_out(what, patience))
    }
}

fn timed_out(what: &str, patience: Duration) -> Error {
    // Ollama answers 500 here, so this is no `Code::Timeout`.
    Error::new(Code::Internal, format!("timed out waiting for {what} - no progress for {patience:?}"))
}

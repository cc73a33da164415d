//! Loading a replica: one gateway at a time per model, victims first, then the load itself with its progress.

use std::future::Future;
use std::time::Duration;

use api::{Code, Error, Result};
use protocol::v1::{LoadRequest, ReplicaStatus, UnloadRequest};
use registry::ReplicaId;
use registry::placement::{self, Plan};

use crate::admission::{LoadFailure, Loaded};
use crate::errand::Errand;

use super::{Avoided, Shared};

impl Shared {
    /// Loads the model where placement says. It looks again once it holds the lock: another gateway may have loaded
    /// the model meanwhile, and then there is nothing to do.
    pub(super) async fn load_somewhere(
        &self,
        errand: &Errand,
        avoid: &Avoided,
        has_loaded: bool,
    ) -> Result<Loaded, LoadFailure> {
        let lock = self.registry.lock(&format!("load/{}", errand.replica_key())).await;
        let lock = lock.map_err(|error| LoadFailure { link: None, error: error.into() })?;
        let demand = self.demand(errand, avoid, has_loaded);
        let plan = placement::plan(&self.registry.view(), &self.live(), &demand);
        let outcome = match plan {
            Plan::Load { worker, evict } => {
                let link = self.cluster.link(&worker);
                let loaded = async {
                    for victim in &evict {
                        self.evict(victim).await?;
                    }
                    self.load_on(errand, &worker, errand.first_keep_alive_ns).await?;
                    Ok(Loaded::Here)
                };
                loaded.await.map_err(|error| LoadFailure { link, error })
            }
            Plan::Use(_) | Plan::Wait(_) => Ok(Loaded::Changed),
        };
        lock.release().await;
        outcome
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

    /// Unloads a replica and waits until its memory and its permit are free.
    async fn evict(&self, victim: &ReplicaId) -> Result<()> {
        let ReplicaId { worker, replica_key } = victim;
        tracing::info!(worker, replica_key, "evicting a model to make room");
        let mut client = self.client(worker)?;
        let request = UnloadRequest { replica_key: replica_key.clone() };
        client.unload(request).await.map_err(|status| protocol::from_status(&status))?;
        let gone = async {
            let mut changes = self.cluster.changes();
            while self.cluster.has(worker, replica_key) && changes.changed().await.is_ok() {}
        };
        self.patiently(&format!("worker `{worker}` to unload `{replica_key}`"), gone).await
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

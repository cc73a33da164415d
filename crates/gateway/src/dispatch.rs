//! Dispatch: from an errand to an open stream on a worker.
//!
//! A newcomer that finds a free slot takes it. Everybody else stands in the line of its model; the head of the line
//! looks at the cluster whenever something changes there and takes a slot, loads a replica, or goes on waiting.
//! A worker that turns out to be busy, empty or dead sends the request back to the front of the line, a bounded
//! number of times. Dropping any future in here cancels all that it has begun.

mod decide;
mod journey;
mod limit;
mod load;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use api::{Code, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use protocol::v1::{
    EmbedRequest, EmbedResponse, GenerateChunk, GenerateRequest, RerankRequest, RerankResponse, UnloadRequest,
};
use registry::Registry;
use tonic::{Status, Streaming};

use crate::admission::{Admission, End, Load, LoadFailure, Loaded, Place, Rank};
use crate::cluster::{Client, Cluster, Slot};
use crate::compose::Composed;
use crate::errand::Errand;
use crate::frames::Parts;
use crate::resume;

use decide::{Decision, Present};
pub use journey::Journey;
use journey::Standing;

/// The head of a line is woken by every change. Should a worker of another version keep one to itself, the head
/// looks again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Cluster,
    registry: Registry,
    admission: Admission,
    /// How long a load may make no progress.
    load_timeout: Option<Duration>,
    /// How long a request waits for a place that others keep busy, before they have to make room.
    patience: Duration,
}

/// How a request came to its worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub worker: String,
    /// Spent waiting for others.
    pub queued: Duration,
    /// Spent waiting for the model.
    pub loaded: Duration,
    /// How much of the prompt its KV cache held; known when the first chunk has come.
    pub cached_tokens: Arc<OnceLock<u64>>,
}

/// What a worker has begun for us. The slot counts as taken until this is dropped.
pub struct Opened<T> {
    pub value: T,
    pub slot: Slot,
    pub route: Route,
}

impl Route {
    /// What clients see as `load_duration`: all the time before the model began.
    pub fn load_time(&self) -> Duration {
        self.queued + self.loaded
    }
}

// === impl Dispatcher ===

impl Dispatcher {
    pub fn new(
        cluster: Cluster,
        registry: Registry,
        load_timeout: Option<Duration>,
        patience: Duration,
    ) -> Dispatcher {
        let admission = Admission::default();
        Dispatcher { shared: Arc::new(Shared { cluster, registry, admission, load_timeout, patience }) }
    }

    pub fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    /// Runs a sequence. The stream goes on when its worker dies.
    pub async fn generate(self, composed: Composed) -> Result<(Parts<GenerateChunk>, Route)> {
        let opened = self.begin(&composed.errand, &composed.request, Journey::new()).await?;
        let route = opened.route.clone();
        Ok((resume::stream(self, composed, opened), route))
    }

    /// Opens the stream of a sequence on some worker.
    pub async fn begin(
        &self,
        errand: &Errand,
        request: &GenerateRequest,
        journey: Journey,
    ) -> Result<Opened<Streaming<GenerateChunk>>> {
        self.open(errand, journey, |mut client| {
            let request = request.clone();
            async move { Ok(client.generate(request).await?.into_inner()) }.boxed()
        })
        .await
    }

    pub async fn embed(&self, errand: &Errand, request: EmbedRequest) -> Result<(EmbedResponse, Route)> {
        let opened = self
            .open(errand, Journey::new(), |mut client| {
                let request = request.clone();
                async move { Ok(client.embed(request).await?.into_inner()) }.boxed()
            })
            .await?;
        Ok((opened.value, opened.route))
    }

    pub async fn rerank(&self, errand: &Errand, request: RerankRequest) -> Result<(RerankResponse, Route)> {
        let opened = self
            .open(errand, Journey::new(), |mut client| {
                let request = request.clone();
                async move { Ok(client.rerank(request).await?.into_inner()) }.boxed()
            })
            .await?;
        Ok((opened.value, opened.route))
    }

    /// Has the model loaded somewhere, and its keep-alive set.
    pub async fn load(&self, errand: &Errand) -> Result<Route> {
        let mut journey = Journey::new();
        loop {
            let Present { worker, context_length } = self.present(errand, &mut journey).await?;
            let link = self.shared.cluster.link(&worker);
            // Loading what is loaded, as it is loaded, sets the keep-alive and nothing else.
            let mut errand = errand.clone();
            errand.load.num_ctx = context_length;
            match self.shared.load_on(&errand, &worker, errand.keep_alive_ns).await {
                Ok(()) => return Ok(journey.route(worker)),
                Err(error) => journey.sent_back(link, error)?,
            }
        }
    }

    /// Ends every replica of a model when it is idle.
    pub async fn unload(&self, replica_key: &str) -> Result<()> {
        for seen in self.shared.cluster.replicas() {
            if seen.status.replica_key != replica_key {
                continue;
            }
            let Some(mut client) = self.shared.cluster.client(&seen.worker) else { continue };
            let request = UnloadRequest { replica_key: replica_key.to_owned() };
            match client.unload(request).await {
                Ok(_) => {}
                // A worker that is gone has nothing loaded.
                Err(status) if protocol::from_status(&status).code == Code::Unavailable => {}
                Err(status) => return Err(protocol::from_status(&status)),
            }
        }
        Ok(())
    }

    /// Ends idle replicas above the limit, now and whenever it was lowered or a worker has died.
    pub async fn keep_limit(&self) {
        self.shared.keep_limit().await;
    }

    async fn open<T>(
        &self,
        errand: &Errand,
        mut journey: Journey,
        call: impl Fn(Client) -> BoxFuture<'static, Result<T, Status>>,
    ) -> Result<Opened<T>> {
        loop {
            let slot = self.slot(errand, &mut journey).await?;
            let route = journey.route(slot.link.worker.clone());
            match call(slot.client()).await {
                Ok(value) => return Ok(Opened { value, slot, route }),
                Err(status) => {
                    let (link, error) = (slot.link.clone(), protocol::from_status(&status));
                    match error.code {
                        Code::Busy => slot.refused(),
                        Code::NotLoaded => slot.missing(),
                        _ => drop(slot),
                    }
                    journey.sent_back(Some(link), error)?;
                }
            }
        }
    }

    async fn slot(&self, errand: &Errand, journey: &mut Journey) -> Result<Slot> {
        let look = |shared: &Shared, journey: &mut Journey| shared.find_slot(errand, journey);
        self.reach(errand, journey, look).await
    }

    async fn present(&self, errand: &Errand, journey: &mut Journey) -> Result<Present> {
        let look = |shared: &Shared, journey: &mut Journey| shared.find_present(errand, journey);
        self.reach(errand, journey, look).await
    }

    /// Waits, and loads, until a look at the cluster finds what it is for.
    async fn reach<T>(
        &self,
        errand: &Errand,
        journey: &mut Journey,
        look: impl Fn(&Shared, &mut Journey) -> Result<Decision<T>>,
    ) -> Result<T> {
        let shared = &self.shared;
        let is_free = !journey.returns && shared.admission.is_clear(errand.replica_key());
        if is_free && let Decision::Found(found) = look(shared, journey)? {
            return Ok(found);
        }
        let end = if journey.returns { End::Front } else { End::Back };
        let limit = shared.max_queue();
        let place =
            shared.admission.join(errand.replica_key(), (end, journey.began), &mut journey.pass, limit)?;
        loop {
            place.turn().await;
            // Before the look: whatever changes after it is seen.
            let mut changes = shared.cluster.changes();
            let rank = place.rank(shared.patience);
            journey.standing.is_overdue = rank == Rank::Overdue;
            journey.standing.elders = place.elders();
            let decision = look(shared, journey)?;
            place.wants_place(decision.wants_place());
            let load = match decision {
                Decision::Found(found) => return Ok(found),
                Decision::Load if rank != Rank::AfterOthers => {
                    Some(shared.clone().share_load(&place, errand, journey))
                }
                Decision::Load | Decision::Wait(_) => {
                    let load = place.current_load();
                    if load.is_none() {
                        journey.pass.wait(&shared.admission, shared.max_queue())?;
                    }
                    load
                }
            };
            let began = Instant::now();
            let ended = tokio::select! {
                ended = finished(load.clone()) => Some(ended),
                _ = changes.changed() => None,
                () = tokio::time::sleep(LOOK_AGAIN) => None,
            };
            if load.is_some() {
                journey.loaded += began.elapsed();
            }
            if let (Some(outcome), Some(load)) = (ended, load) {
                shared.settle(&place, &load, outcome, journey).await?;
            }
        }
    }
}

async fn finished(load: Option<Load>) -> Result<Loaded, LoadFailure> {
    match load {
        Some(load) => load.await,
        None => std::future::pending().await,
    }
}

impl Shared {
    fn max_queue(&self) -> u32 {
        self.registry.view().limits().max_queue
    }

    /// The load that the line of this request shares; begun now if there is none.
    fn share_load(self: Arc<Self>, place: &Place, errand: &Errand, journey: &Journey) -> Load {
        let (errand, standing) = (errand.clone(), journey.standing.clone());
        place.share_load(async move { self.load_somewhere(&errand, &standing).await }.boxed())
    }

    /// Takes in how a load ended. What may work out a moment later is waited for; the rest is the client's answer.
    async fn settle(
        &self,
        place: &Place,
        load: &Load,
        outcome: Result<Loaded, LoadFailure>,
        journey: &mut Journey,
    ) -> Result<()> {
        place.load_ended(load);
        let LoadFailure { link, error } = match outcome {
            Ok(loaded) => {
                journey.standing.has_loaded |= loaded == Loaded::Here;
                return Ok(());
            }
            Err(failure) => failure,
        };
        if !matches!(error.code, Code::Busy | Code::NoPermit) {
            return journey.sent_back(link, error);
        }
        // Somebody else was faster; something changes when it is done.
        journey.pass.wait(&self.admission, self.max_queue())?;
        let mut changes = self.cluster.changes();
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        Ok(())
    }
}

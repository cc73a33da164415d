//! The worker's gRPC service: each call is parsed, answered by the parts it names, and its errors are put on the wire.

mod convert;
mod embed;
mod generate;
mod rerank;
mod status;

use std::sync::Arc;

use api::Error;
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use jiff::civil::Date;
use protocol::{
    to_status,
    v1::{
        ConvertProgress, ConvertRequest, EmbedRequest, EmbedResponse, GenerateChunk, GenerateRequest,
        LoadProgress, LoadRequest, RerankRequest, RerankResponse, StatusRequest, UnloadRequest,
        UnloadResponse, WorkerStatus, worker_server,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

use crate::{converter::Converter, replicas::Replicas};

/// Cheap to clone.
#[derive(Clone)]
pub struct Service {
    replicas: Replicas,
    converter: Option<Converter>,
    /// The local date; some templates tell it to the model.
    today: Arc<dyn Fn() -> Date + Send + Sync>,
    /// Ends what has no end of its own.
    closed: CancellationToken,
}

type Answer<T> = BoxStream<'static, Result<T, Status>>;

// === impl Service ===

impl Service {
    pub fn new(replicas: Replicas, converter: Option<Converter>, closed: CancellationToken) -> Service {
        Service { replicas, converter, today: Arc::new(|| jiff::Zoned::now().date()), closed }
    }
}

#[async_trait]
impl worker_server::Worker for Service {
    type GenerateStream = Answer<GenerateChunk>;
    type LoadStream = Answer<LoadProgress>;
    type StatusStream = Answer<WorkerStatus>;
    type ConvertStream = Answer<ConvertProgress>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Answer<GenerateChunk>>, Status> {
        let request = request.into_inner();
        let request_id = request.request_id.clone();
        let answer = generate::generate(&self.replicas, request, (self.today)()).await;
        if let Err(error) = &answer {
            tracing::debug!(request_id, %error, "sequence refused");
        }
        Ok(Response::new(on_the_wire(answer.map_err(to_status)?)))
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let response = embed::embed(&self.replicas, request.into_inner()).await;
        response.map(Response::new).map_err(to_status)
    }

    async fn rerank(&self, request: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        let response = rerank::rerank(&self.replicas, request.into_inner()).await;
        response.map(Response::new).map_err(to_status)
    }

    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<Answer<LoadProgress>>, Status> {
        let load = self.replicas.load(request.into_inner()).map_err(to_status)?;
        let progress = stream::unfold(load, async |mut load| Some((load.next().await?, load)));
        Ok(Response::new(on_the_wire(progress)))
    }

    async fn unload(&self, request: Request<UnloadRequest>) -> Result<Response<UnloadResponse>, Status> {
        let found = self.replicas.unload(&request.into_inner().replica_key);
        Ok(Response::new(UnloadResponse { found }))
    }

    async fn convert(
        &self,
        request: Request<ConvertRequest>,
    ) -> Result<Response<Answer<ConvertProgress>>, Status> {
        let converting = convert::begin(self.converter.as_ref(), request.into_inner(), &self.closed).await;
        Ok(Response::new(on_the_wire(converting.map_err(to_status)?)))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<Answer<WorkerStatus>>, Status> {
        let statuses = status::watch(self.replicas.clone()).take_until(self.closed.clone().cancelled_owned());
        Ok(Response::new(statuses.map(Ok).boxed()))
    }
}

fn on_the_wire<T: 'static>(answer: impl Stream<Item = Result<T, Error>> + Send + 'static) -> Answer<T> {
    answer.map(|item| item.map_err(to_status)).boxed()
}

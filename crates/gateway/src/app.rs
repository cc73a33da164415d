//! What the handlers share.

use std::future::Future;

use api::Result;
use axum::extract::Request;
use registry::Registry;
use serde::de::DeserializeOwned;
use store::transfer::Transfer;
use store::{Name, Store};

use crate::body;
use crate::call::Call;
use crate::cluster::Cluster;
use crate::compose::Circumstances;
use crate::dispatch::Dispatcher;
use crate::gateway::Config;

pub struct App {
    pub config: Config,
    pub store: Store,
    pub transfer: Transfer,
    pub registry: Registry,
    pub cluster: Cluster,
    pub dispatcher: Dispatcher,
}

impl App {
    /// The JSON body of a request, within the bound.
    pub async fn read<T: DeserializeOwned>(&self, request: Request, when_empty: &'static str) -> Result<T> {
        let (parts, body) = request.into_parts();
        body::read(&parts.headers, body, self.config.max_body_bytes, when_empty).await
    }

    /// The same on a route that stands for another API: the body may be packed, and one of none is told otherwise.
    pub async fn read_translated<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let (parts, body) = request.into_parts();
        body::read_packed(&parts.headers, body, self.config.max_body_bytes, "EOF").await
    }

    pub fn circumstances<'a>(&self, call: &'a Call) -> Circumstances<'a> {
        Circumstances {
            request_id: &call.id,
            context_length: self.config.context_length,
            keep_alive: self.config.keep_alive,
        }
    }

    /// Does what changes a model while no other gateway changes the same name, and tells all that models changed.
    pub async fn write_model<T>(
        &self,
        name: &Name,
        work: impl Future<Output = store::Result<T>>,
    ) -> Result<T> {
        let _lock = self.registry.lock(&format!("model/{}", name.full().to_lowercase())).await?;
        let value = work.await?;
        // The change is durable already; who misses the news finds the model when it looks.
        if let Err(error) = self.registry.bump_catalog().await {
            tracing::warn!(%error, %name, "cannot tell the other gateways about a changed model");
        }
        Ok(value)
    }
}

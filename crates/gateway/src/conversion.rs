//! Has a worker make what a create needs first: the gateway reads no weights. Any worker will do, because all see the
//! same store; one that is lost on the way is replaced by another, from the beginning.

use api::ollama::Progress;
use api::{Code, Error, Result};
use protocol::from_status;
use protocol::v1::{ConvertProgress, ConvertRequest, NamedBlob};
use store::{Conversion, CreateSpec, Digest};
use tokio::sync::mpsc;

use crate::app::App;
use crate::scripted;

/// Ollama reports such work under a digest of zeros, because the result has none yet. Clients cut 12 letters out of it.
const NO_DIGEST: &str = "0000000000000000000";

/// The same spec, with what was made for it. Dropped on the way, everything is given up.
pub async fn prepare(
    app: &App,
    request_id: &str,
    mut spec: CreateSpec,
    tell: &mpsc::Sender<Progress>,
) -> Result<CreateSpec> {
    // At most once for each part of a model: its weights, its adapter, its draft.
    while let Some(conversion) = app.store.conversion(&spec).await? {
        let blob =
            |name: &str, digest: &Digest| NamedBlob { name: name.to_owned(), digest: digest.to_string() };
        let request = ConvertRequest {
            request_id: request_id.to_owned(),
            files: conversion.files.iter().map(|(name, digest)| blob(name, digest)).collect(),
            quantization: conversion.quantization.clone(),
            base: conversion.base.as_ref().map(|digest| blob("the base", digest)),
        };
        let _pins = app.store.pin(&conversion);
        spec.made.push(anywhere(app, &request, &conversion, tell).await?);
    }
    Ok(spec)
}

/// Tries the workers one after the other, those that run the least first, until one is not lost.
async fn anywhere(
    app: &App,
    request: &ConvertRequest,
    conversion: &Conversion,
    tell: &mpsc::Sender<Progress>,
) -> Result<store::Made> {
    let mut failure =
        Error::unavailable("no worker is up that could convert the model, start one and try again");
    for worker in candidates(app) {
        match on(app, &worker, request, tell).await {
            Ok(made) => return Ok(app.store.adopt(made, conversion).await?),
            // The second is how a worker of an older version says that it does not convert.
            Err(error) if matches!(error.code, Code::Unavailable | Code::MethodNotAllowed) => {
                tracing::warn!(worker, %error, "a worker was lost while it converted a model");
                app.store.sweep().await;
                failure = lost(&worker);
            }
            Err(error) => return Err(error),
        }
    }
    Err(failure)
}

/// Workers that are up, stay, and have an engine.
fn candidates(app: &App) -> Vec<String> {
    let view = app.registry.view();
    let replicas = app.cluster.replicas();
    let busy = |worker: &str| -> u32 {
        replicas.iter().filter(|seen| seen.worker == worker).map(|seen| seen.status.slots_used).sum()
    };
    let up = app.cluster.connected().into_iter().filter(|(_, is_draining)| !is_draining);
    let mut workers: Vec<String> = up.map(|(worker, _)| worker).collect();
    workers.retain(|worker| !view.worker(worker).is_some_and(|record| scripted::is_scripted(record)));
    workers.sort_by_key(|worker| (busy(worker), worker.clone()));
    workers
}

async fn on(
    app: &App,
    worker: &str,
    request: &ConvertRequest,
    tell: &mpsc::Sender<Progress>,
) -> Result<Digest> {
    let mut client = app.cluster.client(worker).ok_or_else(|| lost(worker))?;
    let answer = client.convert(request.clone()).await.map_err(|status| from_status(&status))?;
    let mut lines = answer.into_inner();
    while let Some(line) = lines.message().await.map_err(|status| from_status(&status))? {
        let ConvertProgress { status, total, completed, made } = line;
        if !made.is_empty() {
            let none =
                |_| Error::internal(format!("worker `{worker}` answered {made:?}, which is no digest"));
            return Digest::parse(&made).map_err(none);
        }
        let digest = if total > 0 { NO_DIGEST.to_owned() } else { String::new() };
        // Who reads the lines holds this future, so a failure is on its way here already.
        let _ = tell.send(Progress { status, digest, total, completed }).await;
    }
    Err(lost(worker))
}

fn lost(worker: &str) -> Error {
    Error::unavailable(format!("worker `{worker}` was lost while it converted the model, try again"))
}

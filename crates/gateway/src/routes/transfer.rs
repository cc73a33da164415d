//! `POST /api/pull` and `/api/push`: models from and to registries, with their progress as lines.

use std::sync::Arc;

use api::ollama::PullRequest;
use api::{Error, Result, gojson};
use axum::extract::{Request, State};
use axum::response::Response;
use store::Name;
use store::transfer::{Tell, Wish};

use crate::app::App;
use crate::progress;
use crate::resolve;
use crate::respond::Native;
use crate::routes::manage::or;

pub async fn pull(State(app): State<Arc<App>>, request: Request) -> Result<Response, Native> {
    let request: PullRequest = app.read(request, gojson::MISSING_BODY).await?;
    let asked = resolve::pulled_name(or(&request.model, &request.name))?;
    let wish = Wish::parse(&asked, request.insecure)?;
    let work = |lines| async move { bring(&app, &wish, &Tell::new(lines)).await };
    Ok(progress::respond(request.stream.unwrap_or(true), work).await?)
}

pub async fn push(State(app): State<Arc<App>>, request: Request) -> Result<Response, Native> {
    let request: PullRequest = app.read(request, gojson::MISSING_BODY).await?;
    let asked = or(&request.model, &request.name).trim();
    if asked.is_empty() {
        return Err(Error::invalid("model is required").into());
    }
    let wish = Wish::parse(asked, request.insecure)?;
    let work = |lines| async move { Ok(app.transfer.push(&wish, &Tell::new(lines)).await?) };
    Ok(progress::respond(request.stream.unwrap_or(true), work).await?)
}

/// For a create from a model that is not here yet; what is no name is left to the create to refuse.
pub async fn pull_if_missing(app: &App, asked: &str, tell: &Tell) -> Result<()> {
    let Ok(name) = Name::parse(asked.trim()) else { return Ok(()) };
    match app.store.get(&name).await {
        Err(store::Error::NotFound(_)) => bring(app, &Wish::parse(asked, false)?, tell).await,
        _ => Ok(()),
    }
}

/// The lock of the name is held only while it is written: who else pulls the model meanwhile shares the downloads and
/// sees how far they are.
async fn bring(app: &App, wish: &Wish, tell: &Tell) -> Result<()> {
    let pulled = app.transfer.fetch(wish, tell).await?;
    app.write_model(&wish.name, app.transfer.settle(pulled, tell)).await
}

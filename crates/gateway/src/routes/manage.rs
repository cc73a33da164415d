//! Listing, showing, copying and deleting models, and what is loaded.

use std::sync::Arc;

use crate::app::App;
use crate::resolve::{self, Wording};
use crate::respond::{self, Native};
use crate::running;
use api::ollama::{CopyRequest, DeleteRequest, ListResponse, PsResponse, ShowRequest};
use api::{Result, gojson};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, header};

pub async fn tags(State(app): State<Arc<App>>) -> Result<Response, Native> {
    let models = app.store.list().await?;
    Ok(respond::native(&ListResponse { models: models.iter().map(|model| model.listed()).collect() }))
}

pub async fn ps(State(app): State<Arc<App>>) -> Result<Response, Native> {
    let models = running::list(&app.store, app.cluster.replicas()).await;
    Ok(respond::native(&PsResponse { models }))
}

pub async fn show(State(app): State<Arc<App>>, request: Request) -> Result<Response, Native> {
    let is_copilot = is_copilot(request.headers());
    let request: ShowRequest = app.read(request, gojson::MISSING_BODY).await?;
    let asked = or(&request.model, &request.name);
    let model = resolve::model(&app, asked, Wording::Show).await?;
    let mut shown = app.store.show(&model.name, &request).await?;
    if is_copilot {
        shown.model_info.insert("general.basename".to_owned(), asked.into());
    }
    Ok(respond::native(&shown))
}

/// GitHub's chat shows the base name where it means the name, and Ollama gives it that.
fn is_copilot(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with("GitHubCopilotChat/"))
}

pub async fn copy(State(app): State<Arc<App>>, request: Request) -> Result<Response, Native> {
    let CopyRequest { source, destination } = app.read(request, gojson::MISSING_BODY).await?;
    let from = resolve::stored(&source).map_err(|_| store::Error::Source(source.clone()))?;
    let to = resolve::stored(&destination).map_err(|_| store::Error::Destination(destination))?;
    app.write_model(&to, app.store.copy(&from, &to)).await.map_err(|error| match error.code {
        api::Code::NotFound => store::Error::SourceNotFound(source).into(),
        _ => error,
    })?;
    Ok(respond::empty())
}

pub async fn delete(State(app): State<Arc<App>>, request: Request) -> Result<Response, Native> {
    let request: DeleteRequest = app.read(request, gojson::MISSING_BODY).await?;
    let asked = or(&request.model, &request.name);
    let name = resolve::stored(asked).map_err(|_| store::Error::NameIn(asked.to_owned()))?;
    app.write_model(&name, app.store.delete(&name)).await.map_err(|error| match error.code {
        api::Code::NotFound => store::Error::NotFound(asked.to_owned()).into(),
        _ => error,
    })?;
    Ok(respond::empty())
}

/// `model`, or its deprecated spelling.
pub fn or<'a>(model: &'a str, name: &'a str) -> &'a str {
    if model.is_empty() { name } else { model }
}

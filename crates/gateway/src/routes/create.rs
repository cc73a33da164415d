//! `POST /api/create`: progress as lines, or the last of them.

use std::sync::Arc;

use api::ollama::{CreateRequest, Progress};
use api::{Code, Error, Result, gojson};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use store::CreateSpec;
use store::transfer::Tell;
use tokio::sync::mpsc;

use crate::app::App;
use crate::call::Call;
use crate::conversion;
use crate::progress::{self, SUCCESS};
use crate::resolve;
use crate::respond::Native;
use crate::routes::transfer;

pub async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Native> {
    let request: CreateRequest = app.read(request, gojson::MISSING_BODY).await?;
    if !request.remote_host.is_empty() || resolve::is_cloud(&request.from) {
        return Err(Error::new(Code::Forbidden, resolve::NO_CLOUD).into());
    }
    let streams = request.stream.unwrap_or(true);
    let spec = CreateSpec::new(request, app.config.supports)?;
    Ok(progress::respond(streams, |lines| make(app, call.id, spec, lines)).await?)
}

async fn make(
    app: Arc<App>,
    request_id: String,
    spec: CreateSpec,
    lines: mpsc::Sender<Progress>,
) -> Result<()> {
    transfer::pull_if_missing(&app, &spec.request.from, &Tell::new(lines.clone())).await?;
    let name = spec.name.clone();
    let spec = conversion::prepare(&app, &request_id, spec, &lines).await?;
    let tell = move |progress: Progress| {
        // The last line is told when every gateway can see the model. A client that left is noticed by the store
        // itself.
        if progress.status != SUCCESS {
            let _ = lines.blocking_send(progress);
        }
    };
    app.write_model(&name, app.store.create(spec, tell)).await
}

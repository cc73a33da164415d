//! `POST /rerank` under all the paths where clients look for it.

use std::sync::Arc;

use api::rerank::{RerankRequest, RerankResponse, Version};
use api::{Error, Result, gojson};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use protocol::v1;

use crate::app::App;
use crate::call::Call;
use crate::resolve::{self, Wording};
use crate::respond::{self, Cohere, Native};
use crate::{answer, compose};

/// `/api/rerank`: our own, with errors as on Ollama's routes.
pub async fn native(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Response {
    rerank(&app, &call, request, Version::First).await.map_err(Native).into_response()
}

/// `/rerank` and `/v1/rerank`: Cohere's first version, Jina's, vLLM's.
pub async fn first(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Response {
    rerank(&app, &call, request, Version::First).await.map_err(Cohere).into_response()
}

/// `/v2/rerank`: Cohere's second version.
pub async fn second(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Response {
    rerank(&app, &call, request, Version::Second).await.map_err(Cohere).into_response()
}

async fn rerank(app: &Arc<App>, call: &Call, request: Request, version: Version) -> Result<Response> {
    let request: RerankRequest = app.read(request, gojson::MISSING_BODY).await?;
    let ranking = request.check(version)?;
    let model = resolve::model(app, &request.model, Wording::Usual).await?;
    if !model.can("rerank") && !model.can("embedding") {
        return Err(Error::invalid(format!("{:?} does not support rerank", request.model)));
    }
    let errand =
        compose::errand(&model, request.options.as_ref(), request.keep_alive, app.circumstances(call))?;
    let documents = request.documents.0;
    let wanted = v1::RerankRequest {
        request_id: call.id.clone(),
        model: Some(errand.model.clone()),
        query: request.query,
        documents: documents.clone(),
        max_tokens_per_document: ranking.max_tokens_per_document,
        keep_alive_ns: errand.keep_alive_ns,
    };
    let (found, route) = app.dispatcher.rerank(&errand, wanted).await?;
    if found.scores.len() != documents.len() {
        let (scores, wanted) = (found.scores.len(), documents.len());
        return Err(Error::internal(format!("the worker gave {scores} scores for {wanted} documents")));
    }
    let id = format!("rerank-{}", call.id);
    let answer = RerankResponse::new(id, request.model, version, found.prompt_tokens);
    let mut response =
        respond::foreign(&RerankResponse { results: ranking.results(documents, &found.scores), ..answer });
    answer::tell_route(&mut response, &route);
    Ok(response)
}

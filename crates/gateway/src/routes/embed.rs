//! `POST /api/embed` and its elder `/api/embeddings`.

use std::sync::Arc;

use api::ollama::{EmbedRequest, EmbedResponse, EmbeddingsRequest, EmbeddingsResponse};
use api::{Code, Error, KeepAlive, Result, gojson};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use protocol::v1;
use serde_json::{Map, Value};

use crate::app::App;
use crate::call::Call;
use crate::dispatch::Route;
use crate::resolve::{self, Wording};
use crate::respond::{self, Native};
use crate::{answer, compose};

pub async fn embed(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Native> {
    let request: EmbedRequest = app.read(request, gojson::MISSING_BODY).await?;
    let (response, route) = answer(&app, &call, request).await?;
    let mut response = respond::native(&response);
    answer::tell_route(&mut response, &route);
    Ok(response)
}

pub async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Native> {
    let request: EmbeddingsRequest = app.read(request, gojson::MISSING_BODY).await?;
    let wanted = Wanted {
        model: &request.model,
        wording: Wording::Legacy,
        options: request.options.as_ref(),
        keep_alive: request.keep_alive,
        inputs: Some(request.prompt).filter(|prompt| !prompt.is_empty()).into_iter().collect(),
        truncate: true,
        dimensions: 0,
        normalize: false,
    };
    let (mut vectors, route) = run(&app, &call, wanted).await?;
    let vector = vectors.embeddings.pop().unwrap_or_default();
    let embedding = vector.values.into_iter().map(f64::from).collect();
    let mut response = respond::native(&EmbeddingsResponse { embedding });
    answer::tell_route(&mut response, &route);
    Ok(response)
}

/// Also what the OpenAI route translates.
pub async fn answer(app: &Arc<App>, call: &Call, request: EmbedRequest) -> Result<(EmbedResponse, Route)> {
    let wanted = Wanted {
        model: &request.model,
        wording: Wording::Usual,
        options: request.options.as_ref(),
        keep_alive: request.keep_alive,
        inputs: request.input.0,
        truncate: request.truncate.unwrap_or(true),
        // Ollama ignores what makes no sense here.
        dimensions: request.dimensions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        normalize: true,
    };
    let is_empty = wanted.inputs.is_empty();
    // An engine's complaint about an input is the input's fault on this route.
    let (vectors, route) = run(app, call, wanted).await?;
    if is_empty {
        return Ok((EmbedResponse { model: request.model, ..EmbedResponse::default() }, route));
    }
    let response = EmbedResponse {
        model: request.model,
        embeddings: vectors.embeddings.into_iter().map(|vector| vector.values).collect(),
        total_duration: answer::nanos(call.began.elapsed()),
        load_duration: answer::nanos(route.load_time()).max(1),
        prompt_eval_count: vectors.prompt_tokens,
    };
    Ok((response, route))
}

/// What both routes ask for.
struct Wanted<'a> {
    model: &'a str,
    wording: Wording,
    options: Option<&'a Map<String, Value>>,
    keep_alive: Option<KeepAlive>,
    inputs: Vec<String>,
    truncate: bool,
    dimensions: u32,
    normalize: bool,
}

async fn run(app: &Arc<App>, call: &Call, wanted: Wanted<'_>) -> Result<(v1::EmbedResponse, Route)> {
    let model = resolve::model(app, wanted.model, wanted.wording).await?;
    let errand = compose::errand(&model, wanted.options, wanted.keep_alive, app.circumstances(call))?;
    if wanted.inputs.is_empty() {
        let route = app.dispatcher.load(&errand).await?;
        return Ok((v1::EmbedResponse::default(), route));
    }
    let request = v1::EmbedRequest {
        request_id: call.id.clone(),
        model: Some(errand.model.clone()),
        inputs: wanted.inputs,
        truncate: wanted.truncate,
        dimensions: wanted.dimensions,
        normalize: wanted.normalize,
        keep_alive_ns: errand.keep_alive_ns,
        context_length: errand.load.num_ctx,
    };
    app.dispatcher.embed(&errand, request).await.map_err(|error| match (error.code, wanted.wording) {
        (Code::Internal, Wording::Usual) => Error::invalid(error.message),
        _ => error,
    })
}

//! OpenAI's routes: translations to and from the native calls.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::Result;
use api::openai::{
    self, ChatCompletion, ChatCompletionRequest, Completion, CompletionRequest, CompletionStream,
    EmbeddingList, EmbeddingRequest, Header, Model, ModelList, ResponseStream, ResponsesRequest, Stream,
    StreamOptions,
};
use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;

use crate::app::App;
use crate::call::Call;
use crate::resolve::{self, Wording};
use crate::respond::{self, OpenAi};
use crate::routes::{chat, embed, generate};
use crate::{answer, ids};

/// Ollama draws its ids from as many; clients only ever compare them.
const IDS: u64 = 999;
const RESPONSE_IDS: u64 = 999_999;

pub async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, OpenAi> {
    let request: ChatCompletionRequest = app.read_translated(request).await?;
    let streams = request.stream && !request.debug_render_only;
    let header = header("chatcmpl-", &call, &request.model, request.stream_options);
    let answer = chat::answer(&app, &call, request.into_chat()?).await?;
    let translation = streams.then(|| Stream::new(header.clone()));
    let tell = |whole| Ok(respond::foreign(&ChatCompletion::new(&header, whole)));
    Ok(answer.translate(translation, chat::join, tell).await?)
}

pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, OpenAi> {
    let request: CompletionRequest = app.read_translated(request).await?;
    let streams = request.stream && !request.debug_render_only;
    let header = header("cmpl-", &call, &request.model, request.stream_options);
    let answer = generate::answer(&app, &call, request.into_generate()?).await?;
    let translation = streams.then(|| CompletionStream::new(header.clone()));
    let tell = |whole| Ok(respond::foreign(&Completion::new(&header, whole)));
    Ok(answer.translate(translation, generate::join, tell).await?)
}

pub async fn responses(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, OpenAi> {
    let request: ResponsesRequest = app.read_translated(request).await?;
    let id = ids::short("resp_", &call, RESPONSE_IDS);
    let answer = chat::answer(&app, &call, request.to_chat()?).await?;
    let begun = openai::Response::begun(id, now(), &request);
    let searches = request.wants_web_search();
    let translation = request.stream.then(|| ResponseStream::new(begun.clone(), searches));
    let tell = |whole| Ok(respond::foreign(&begun.answered(whole, searches, now())?));
    Ok(answer.translate(translation, chat::join, tell).await?)
}

pub async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, OpenAi> {
    let request: EmbeddingRequest = app.read_translated(request).await?;
    let (request, format) = request.into_embed()?;
    let (response, route) = embed::answer(&app, &call, request).await?;
    let mut response = respond::foreign(&EmbeddingList::new(response, format));
    answer::tell_route(&mut response, &route);
    Ok(response)
}

pub async fn models(State(app): State<Arc<App>>) -> Result<Response, OpenAi> {
    let models = app.store.list().await?;
    let rows = models.iter().map(|model| row(model.name.shortest(), model));
    Ok(respond::foreign(&ModelList::from(rows.collect::<Vec<_>>())))
}

pub async fn model(
    State(app): State<Arc<App>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Response, OpenAi> {
    let asked = super::text(asked);
    let model = resolve::model(&app, &asked, Wording::Show).await?;
    Ok(respond::foreign(&row(asked, &model)))
}

fn header(prefix: &str, call: &Call, model: &str, options: Option<StreamOptions>) -> Header {
    Header {
        id: ids::short(prefix, call, IDS),
        created: now(),
        model: model.to_owned(),
        include_usage: options.is_some_and(|options| options.include_usage),
    }
}

fn row(id: String, model: &store::Model) -> Model {
    Model::new(id, unix_seconds(model.modified_at), model.name.namespace.clone())
}

fn now() -> i64 {
    unix_seconds(SystemTime::now())
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

//! OpenAI's routes: translations to and from the native calls.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::Result;
use api::openai::{
    ChatCompletion, ChatCompletionRequest, EmbeddingList, EmbeddingRequest, Model, ModelList, Stream,
};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;

use crate::answer::{self, Answer};
use crate::app::App;
use crate::call::Call;
use crate::frames;
use crate::resolve::{self, Wording};
use crate::respond::{self, OpenAi};
use crate::routes::{chat, embed};

/// What these routes say to a body of none, unlike the native ones.
const EOF: &str = "EOF";
/// Ollama draws its ids from as many; clients only ever compare them.
const IDS: u32 = 999;

pub async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, OpenAi> {
    let request: ChatCompletionRequest = app.read(request, EOF).await?;
    let streams = request.stream && !request.debug_render_only;
    let include_usage = request.include_usage();
    let id = format!("chatcmpl-{}", rand::random_range(0..IDS));
    let created = unix_seconds(SystemTime::now());
    let (parts, route) = match chat::answer(&app, &call, request.into_chat()?).await? {
        Answer::Whole(whole) => (frames::ready(vec![Ok(whole)]), None),
        Answer::Parts { parts, route } => (parts, Some(route)),
    };
    let mut response = if streams {
        frames::events(parts, Stream::new(id, created, include_usage)).await?
    } else {
        respond::openai(&ChatCompletion::new(id, created, frames::fold(parts, chat::join).await?))
    };
    if let Some(route) = route {
        answer::tell_route(&mut response, &route);
    }
    Ok(response)
}

pub async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, OpenAi> {
    let request: EmbeddingRequest = app.read(request, EOF).await?;
    let (request, format) = request.into_embed()?;
    let (response, route) = embed::answer(&app, &call, request).await?;
    let mut response = respond::openai(&EmbeddingList::new(response, format));
    answer::tell_route(&mut response, &route);
    Ok(response)
}

pub async fn models(State(app): State<Arc<App>>) -> Result<Response, OpenAi> {
    let models = app.store.list().await?;
    let rows = models.iter().map(|model| row(model.name.shortest(), model));
    Ok(respond::openai(&ModelList::from(rows.collect::<Vec<_>>())))
}

pub async fn model(State(app): State<Arc<App>>, Path(asked): Path<String>) -> Result<Response, OpenAi> {
    let model = resolve::model(&app, &asked, Wording::Show).await?;
    Ok(respond::openai(&row(asked, &model)))
}

fn row(id: String, model: &store::Model) -> Model {
    Model::new(id, unix_seconds(model.modified_at), model.name.namespace.clone())
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

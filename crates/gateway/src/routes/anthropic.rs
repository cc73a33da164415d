//! Anthropic's route: a translation to and from the native chat.

use std::sync::Arc;

use api::anthropic::{MessagesRequest, MessagesResponse, Stream};
use api::ollama::ChatRequest;
use api::{Code, Error, Result};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::call::Call;
use crate::ids;
use crate::resolve::{self, Wording};
use crate::respond::{self, Anthropic};
use crate::routes::chat;

/// What a server without ollama.com says to a cloud model that is to search the web.
const NO_SEARCH: &str = "ollama cloud is disabled: web search is unavailable";

pub async fn messages(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Response {
    match answer(&app, &call, request).await {
        Ok(response) => response,
        Err(error) => Anthropic { error, request_id: ids::long("req_", &call) }.into_response(),
    }
}

async fn answer(app: &Arc<App>, call: &Call, request: Request) -> Result<Response> {
    let request: MessagesRequest = app.read_translated(request).await?;
    let searches = request.wants_web_search();
    let id = ids::long("msg_", call);
    let stream = || Stream::new(id.clone(), ids::long("req_", call), &request);
    let translation = request.stream.then(stream);
    let mut chat = request.into_chat()?;
    relax_thinking(app, &mut chat).await;
    let answer = chat::answer(app, call, chat).await.map_err(|error| match error.code {
        Code::Forbidden if searches => Error::new(Code::Forbidden, NO_SEARCH),
        _ => error,
    })?;
    let tell = |whole| Ok(respond::foreign(&MessagesResponse::new(id, whole, searches)));
    answer.translate(translation, chat::join, tell).await
}

/// Clients of this route ask every model to think, for it is all one to Anthropic's.
async fn relax_thinking(app: &App, chat: &mut ChatRequest) {
    if chat.think.as_ref().is_some_and(api::ollama::Think::is_on)
        && let Ok(model) = resolve::model(app, &chat.model, Wording::Usual).await
        && !model.can("thinking")
    {
        tracing::debug!(model = chat.model, "a model that does not think was asked to");
        chat.think = None;
    }
}

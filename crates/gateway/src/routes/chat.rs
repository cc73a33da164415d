//! `POST /api/chat`.

use std::sync::Arc;

use api::ollama::{ChatRequest, ChatResponse, DoneReason, Message};
use api::{KeepAlive, Result, gojson};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt;
use protocol::v1::GenerateChunk;

use crate::answer::{self, Answer, Teller};
use crate::app::App;
use crate::call::Call;
use crate::compose;
use crate::resolve::{self, Wording};
use crate::respond::Native;

pub async fn chat(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Native> {
    let request: ChatRequest = app.read(request, gojson::MISSING_BODY).await?;
    let streams = request.stream.unwrap_or(true) && !request.debug_render_only;
    let answer = answer(&app, &call, request).await?;
    Ok(answer.respond(streams, join).await?)
}

/// Also what the OpenAI route translates.
pub async fn answer(app: &Arc<App>, call: &Call, request: ChatRequest) -> Result<Answer<ChatResponse>> {
    let model = resolve::model(app, &request.model, Wording::Usual).await?;
    let asked = request.model.clone();
    if request.messages.is_empty() && request.keep_alive == Some(KeepAlive::ZERO) {
        app.dispatcher.unload(&model.replica_key()).await?;
        return Ok(Answer::Whole(empty(asked, DoneReason::Unload)));
    }
    compose::check_chat(&model, &request)?;
    let circumstances = app.circumstances(call);
    if request.messages.is_empty() {
        let errand = compose::errand(&model, request.options.as_ref(), request.keep_alive, circumstances)?;
        app.dispatcher.load(&errand).await?;
        return Ok(Answer::Whole(empty(asked, DoneReason::Load)));
    }
    let images = request.messages.iter().map(|message| message.images.len() as u64).sum();
    let composed = compose::chat(&model, request, circumstances)?;
    let (chunks, route) = app.dispatcher.clone().generate(composed).await?;
    let teller = Teller::new(asked, call.began, route.load_time(), images);
    let parts = chunks.filter_map(move |chunk| {
        let part = chunk.map(|chunk| tell(&teller, chunk)).transpose();
        async move { part }
    });
    Ok(Answer::Parts { parts: parts.boxed(), route })
}

fn empty(model: String, reason: DoneReason) -> ChatResponse {
    ChatResponse {
        model,
        created_at: answer::now(),
        message: assistant(String::new()),
        done: true,
        done_reason: Some(reason),
        ..ChatResponse::default()
    }
}

fn assistant(content: String) -> Message {
    Message { role: "assistant".to_owned(), content, ..Message::default() }
}

/// What a client hears of a chunk; `None` for one that has nothing to say.
fn tell(teller: &Teller, chunk: GenerateChunk) -> Option<ChatResponse> {
    if answer::is_silent(&chunk) {
        return None;
    }
    let message = Message {
        thinking: Some(chunk.thinking).filter(|text| !text.is_empty()),
        tool_calls: chunk.tool_calls.into_iter().map(answer::tool_call).collect(),
        ..assistant(chunk.content)
    };
    let mut response = ChatResponse {
        model: teller.model.clone(),
        created_at: answer::now(),
        message,
        logprobs: answer::logprobs(chunk.logprobs),
        ..ChatResponse::default()
    };
    if let Some(done) = chunk.done {
        match teller.rendered(&done) {
            Some(rendered) => response.debug_info = Some(rendered),
            None => {
                response.done = true;
                response.done_reason = Some(answer::reason(&done));
                response.metrics = teller.metrics(&done);
            }
        }
    }
    Some(response)
}

/// The whole answer is the last part with the text of all.
pub fn join(whole: &mut ChatResponse, part: ChatResponse) {
    let ChatResponse { mut message, mut logprobs, .. } = std::mem::replace(whole, part);
    message.content.push_str(&whole.message.content);
    answer::append(&mut message.thinking, whole.message.thinking.take());
    message.tool_calls.append(&mut whole.message.tool_calls);
    answer::extend(&mut logprobs, whole.logprobs.take());
    whole.message = message;
    whole.logprobs = logprobs;
}

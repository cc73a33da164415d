//! `POST /api/generate`.

use std::sync::Arc;

use api::ollama::{DoneReason, GenerateRequest, GenerateResponse};
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

pub async fn generate(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Native> {
    let request: GenerateRequest = app.read(request, gojson::MISSING_BODY).await?;
    let streams = request.stream.unwrap_or(true) && !request.debug_render_only;
    let answer = answer(&app, &call, request).await?;
    Ok(answer.respond(streams, join).await?)
}

/// Also what the OpenAI route translates.
pub async fn answer(
    app: &Arc<App>,
    call: &Call,
    request: GenerateRequest,
) -> Result<Answer<GenerateResponse>> {
    let model = resolve::model(app, &request.model, Wording::Generate).await?;
    let asked = request.model.clone();
    if request.prompt.is_empty() && request.keep_alive == Some(KeepAlive::ZERO) {
        app.dispatcher.unload(&model.replica_key()).await?;
        return Ok(Answer::Whole(empty(asked, DoneReason::Unload)));
    }
    compose::check_generate(&model, &request)?;
    let circumstances = app.circumstances(call);
    if request.prompt.is_empty() {
        let errand = compose::errand(&model, request.options.as_ref(), request.keep_alive, circumstances)?;
        app.dispatcher.load(&errand).await?;
        return Ok(Answer::Whole(empty(asked, DoneReason::Load)));
    }
    let images = request.images.len() as u64;
    let composed = compose::generate(&model, request, circumstances)?;
    let (chunks, route) = app.dispatcher.clone().generate(composed).await?;
    let teller = Teller::new(asked, call.began, route.load_time(), images);
    let parts = chunks.filter_map(move |chunk| {
        let part = chunk.map(|chunk| tell(&teller, chunk)).transpose();
        async move { part }
    });
    Ok(Answer::Parts { parts: parts.boxed(), route })
}

fn empty(model: String, reason: DoneReason) -> GenerateResponse {
    GenerateResponse {
        model,
        created_at: answer::now(),
        done: true,
        done_reason: Some(reason),
        ..GenerateResponse::default()
    }
}

/// What a client hears of a chunk; `None` for one that has nothing to say.
fn tell(teller: &Teller, chunk: GenerateChunk) -> Option<GenerateResponse> {
    if answer::is_silent(&chunk) {
        return None;
    }
    let mut response = GenerateResponse {
        model: teller.model.clone(),
        created_at: answer::now(),
        response: chunk.content,
        thinking: Some(chunk.thinking).filter(|text| !text.is_empty()),
        tool_calls: chunk.tool_calls.into_iter().map(answer::tool_call).collect(),
        logprobs: answer::logprobs(chunk.logprobs),
        ..GenerateResponse::default()
    };
    if let Some(done) = chunk.done {
        match teller.rendered(&done) {
            Some(rendered) => response.debug_info = Some(rendered),
            None => {
                response.done = true;
                response.done_reason = Some(answer::reason(&done));
                response.metrics = teller.metrics(&done);
                response.context = Some(done.context).filter(|tokens| !tokens.is_empty());
            }
        }
    }
    Some(response)
}

/// The whole answer is the last part with the text of all.
pub fn join(whole: &mut GenerateResponse, part: GenerateResponse) {
    let GenerateResponse { mut response, mut thinking, mut tool_calls, mut logprobs, .. } =
        std::mem::replace(whole, part);
    response.push_str(&whole.response);
    answer::append(&mut thinking, whole.thinking.take());
    tool_calls.append(&mut whole.tool_calls);
    answer::extend(&mut logprobs, whole.logprobs.take());
    whole.response = response;
    whole.thinking = thinking;
    whole.tool_calls = tool_calls;
    whole.logprobs = logprobs;
}

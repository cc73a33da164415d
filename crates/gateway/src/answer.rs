//! What a worker's chunks have in common when they become answers: times, counts, tool calls, log probabilities.

use std::time::{Duration, Instant, SystemTime};

use api::events::Translation;
use api::ollama::{DebugInfo, DoneReason, Logprob, Metrics, ToolCall, ToolCallFunction, TopLogprob};
use api::{Result, gojson};
use axum::response::Response;
use http::HeaderValue;
use protocol::v1::{self, Done, GenerateChunk, done::Reason};
use serde::Serialize;

use crate::dispatch::Route;
use crate::frames::{self, Parts};
use crate::respond;

/// One object that is known already, or parts that are still coming.
pub enum Answer<T> {
    Whole(T),
    Parts { parts: Parts<T>, route: Route },
}

/// Knows what every part of an answer says besides its text.
#[derive(Clone, Debug)]
pub struct Teller {
    /// As the client wrote it.
    pub model: String,
    began: Instant,
    load: Duration,
    images: u64,
}

impl<T: Serialize + Send + 'static> Answer<T> {
    /// As one object or as lines; `join` puts the parts together. Load and unload are always one object.
    pub async fn respond(self, streams: bool, join: impl FnMut(&mut T, T)) -> Result<Response> {
        match self {
            Answer::Whole(whole) => Ok(respond::native(&whole)),
            Answer::Parts { parts, route } => {
                let mut response = if streams {
                    frames::ndjson(parts).await?
                } else {
                    respond::native(&frames::fold(parts, join).await?)
                };
                tell_route(&mut response, &route);
                Ok(response)
            }
        }
    }
}

impl<T: Send + 'static> Answer<T> {
    /// In the words of another API: as a stream where there is a `translation`, else as the one object that `tell`
    /// makes of the parts that `join` has put together.
    pub async fn translate<S>(
        self,
        translation: Option<S>,
        join: impl FnMut(&mut T, T),
        tell: impl FnOnce(T) -> Result<Response>,
    ) -> Result<Response>
    where
        S: Translation<Part = T> + Send + 'static,
    {
        let (parts, route) = match self {
            Answer::Whole(whole) => (frames::ready(vec![Ok(whole)]), None),
            Answer::Parts { parts, route } => (parts, Some(route)),
        };
        let mut response = match translation {
            Some(translation) => frames::events(parts, translation).await?,
            None => tell(frames::fold(parts, join).await?)?,
        };
        if let Some(route) = route {
            tell_route(&mut response, &route);
        }
        Ok(response)
    }
}

/// Why it was slow, if it was.
pub fn tell_route(response: &mut Response, route: &Route) {
    let headers = response.headers_mut();
    if let Ok(worker) = HeaderValue::from_str(&route.worker) {
        headers.insert("x-caravan-worker", worker);
    }
    headers.insert("x-caravan-queue-ms", HeaderValue::from(route.queued.as_millis() as u64));
    headers.insert("x-caravan-load-ms", HeaderValue::from(route.loaded.as_millis() as u64));
    if let Some(cached_tokens) = route.cached_tokens.get() {
        headers.insert("x-caravan-cached-tokens", HeaderValue::from(*cached_tokens));
    }
}

// === impl Teller ===

impl Teller {
    pub fn new(model: String, began: Instant, load: Duration, images: u64) -> Teller {
        Teller { model, began, load, images }
    }

    pub fn metrics(&self, done: &Done) -> Metrics {
        Metrics {
            total_duration: nanos(self.began.elapsed()),
            // Never zero: clients and tests of Ollama take zero for "not measured".
            load_duration: nanos(self.load).max(1),
            prompt_eval_count: done.prompt_tokens,
            prompt_eval_duration: done.prompt_duration_ns,
            eval_count: done.eval_tokens,
            eval_duration: done.eval_duration_ns,
            cached_tokens: done.cached_tokens,
        }
    }

    /// What `_debug_render_only` is answered with.
    pub fn rendered(&self, done: &Done) -> Option<DebugInfo> {
        let is_rendered = done.reason() == Reason::Rendered;
        is_rendered.then(|| DebugInfo { rendered_template: done.rendered.clone(), image_count: self.images })
    }
}

pub fn now() -> String {
    gojson::timestamp_utc(SystemTime::now())
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub fn reason(done: &Done) -> DoneReason {
    match done.reason() {
        Reason::Length => DoneReason::Length,
        Reason::Stop | Reason::Rendered => DoneReason::Stop,
    }
}

/// A chunk whose text is still held back says nothing.
pub fn is_silent(chunk: &GenerateChunk) -> bool {
    chunk.done.is_none()
        && chunk.content.is_empty()
        && chunk.thinking.is_empty()
        && chunk.tool_calls.is_empty()
        && chunk.logprobs.is_empty()
}

pub fn tool_call(call: v1::ToolCall) -> ToolCall {
    let arguments = serde_json::from_str(&call.arguments).unwrap_or_default();
    let function = ToolCallFunction { index: call.index, name: call.name, arguments };
    ToolCall { id: Some(call.id).filter(|id| !id.is_empty()), function }
}

pub fn logprobs(logprobs: Vec<v1::Logprob>) -> Option<Vec<Logprob>> {
    let top = |top: v1::Logprob| TopLogprob { token: top.token, logprob: top.logprob, bytes: top.bytes };
    let logprobs = logprobs.into_iter().map(|one| Logprob {
        token: one.token,
        logprob: one.logprob,
        bytes: one.bytes,
        top_logprobs: one.top.into_iter().map(top).collect(),
    });
    Some(logprobs.collect::<Vec<_>>()).filter(|logprobs| !logprobs.is_empty())
}

/// Joins two texts of which either may be missing.
pub fn append(text: &mut Option<String>, more: Option<String>) {
    match (text.as_mut(), more) {
        (Some(text), Some(more)) => text.push_str(&more),
        (None, more) => *text = more,
        (Some(_), None) => {}
    }
}

/// Joins two lists of which either may be missing.
pub fn extend<T>(list: &mut Option<Vec<T>>, more: Option<Vec<T>>) {
    match (list.as_mut(), more) {
        (Some(list), Some(more)) => list.extend(more),
        (None, more) => *list = more,
        (Some(_), None) => {}
    }
}

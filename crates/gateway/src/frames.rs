//! Streams as bytes: one JSON object per line for Ollama's clients, server-sent events for those of other APIs.
//!
//! Nothing is buffered: a frame leaves as soon as it is known. The first item is awaited before the answer begins, so
//! that an error which comes before it has a real HTTP status. An error that comes later is the last frame.

use std::convert::Infallible;
use std::pin::Pin;

use api::events::{Events, Translation};
use api::{Error, Result};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, BoxStream, Peekable};
use futures::{Stream, StreamExt};
use http::{HeaderValue, header};
use serde::Serialize;

use crate::respond;

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// An answer in parts. After an error there is nothing.
pub type Parts<T> = BoxStream<'static, Result<T>>;

/// One JSON object per line.
pub async fn ndjson<T: Serialize + Send + 'static>(parts: Parts<T>) -> Result<Response> {
    let parts = begun(parts).await?;
    let lines = parts.map(|part| match part {
        Ok(part) => respond::line(&part),
        Err(error) => {
            respond::log(&error);
            respond::line(&respond::error_body(&error))
        }
    });
    Ok(streamed(lines, NDJSON))
}

/// Server-sent events. An error in the middle becomes a frame of its own, and the stream still ends as it should.
pub async fn events<T>(parts: Parts<T::Part>, mut translation: T) -> Result<Response>
where
    T: Translation<Part: Send> + Send + 'static,
{
    let parts = begun(parts).await?;
    let parts = parts.map(Some).chain(stream::iter([None]));
    let frames = parts.map(move |part| {
        let mut events = Events::default();
        match part {
            Some(Ok(part)) => translation.push(part, &mut events),
            Some(Err(error)) => {
                respond::log(&error);
                translation.fail(&error, &mut events);
            }
            None => translation.end(&mut events),
        }
        events.into_bytes()
    });
    Ok(streamed(frames, EVENTS))
}

/// Waits for the first part; an error in its place is the answer.
async fn begun<T: Send + 'static>(parts: Parts<T>) -> Result<Peekable<Parts<T>>> {
    let mut parts = parts.peekable();
    match Pin::new(&mut parts).peek().await {
        Some(Err(error)) => Err(error.clone()),
        Some(Ok(_)) => Ok(parts),
        None => Err(Error::internal("the answer has no parts")),
    }
}

fn streamed(frames: impl Stream<Item = Vec<u8>> + Send + 'static, kind: HeaderValue) -> Response {
    let mut frames = frames.filter(|frame| std::future::ready(!frame.is_empty())).boxed();
    // The body is read after the handler has returned; its log lines still belong to the request.
    let span = tracing::Span::current();
    let frames = stream::poll_fn(move |context| span.in_scope(|| frames.poll_next_unpin(context)));
    let mut response =
        Response::new(Body::from_stream(frames.map(|frame| Ok::<_, Infallible>(Bytes::from(frame)))));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Everything that a stream brings, one after the other, when a client wants one object.
pub async fn fold<T: Send + 'static>(mut parts: Parts<T>, mut join: impl FnMut(&mut T, T)) -> Result<T> {
    let mut whole = parts.next().await.ok_or_else(|| Error::internal("the answer has no parts"))??;
    while let Some(part) = parts.next().await {
        join(&mut whole, part?);
    }
    Ok(whole)
}

/// Parts that are known already.
pub fn ready<T: Send + 'static>(parts: Vec<Result<T>>) -> Parts<T> {
    stream::iter(parts).boxed()
}

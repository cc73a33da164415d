//! Streams as bytes: one JSON object per line for Ollama's clients, server-sent events for OpenAI's.
//!
//! Nothing is buffered: a frame leaves as soon as it is known. The first item is awaited before the answer begins, so
//! that an error which comes before it has a real HTTP status. An error that comes later is the last frame.

use std::convert::Infallible;
use std::pin::Pin;

use api::ollama::ChatResponse;
use api::{Error, Result, openai};
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
/// OpenAI's end of a stream.
const DONE: &[u8] = b"data: [DONE]\n\n";

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

/// OpenAI's chunks. An error in the middle becomes a frame of its own, and the stream still ends as it should.
pub async fn events(parts: Parts<ChatResponse>, mut translation: openai::Stream) -> Result<Response> {
    let parts = begun(parts).await?;
    let frames = parts.map(move |part| {
        let mut bytes = Vec::new();
        match part {
            Ok(part) => {
                let done = part.done;
                for chunk in translation.push(part) {
                    event(&mut bytes, &chunk);
                }
                if done {
                    bytes.extend_from_slice(DONE);
                }
            }
            Err(error) => {
                respond::log(&error);
                event(&mut bytes, &openai::ErrorBody::from(&error));
                bytes.extend_from_slice(DONE);
            }
        }
        bytes
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

fn event<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    bytes.extend_from_slice(b"data: ");
    bytes.extend_from_slice(&respond::encode(value));
    bytes.extend_from_slice(b"\n\n");
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

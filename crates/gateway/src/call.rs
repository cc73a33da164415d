//! What every request carries along: its id, and when it came.

use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use tracing::Instrument;

const REQUEST_ID: &str = "x-request-id";
/// Ids are for logs; a longer one is somebody's mistake or attack, and is replaced.
const MAX_ID_BYTES: usize = 128;

#[derive(Clone, Debug)]
pub struct Call {
    /// The caller's own, or one of ours.
    pub id: String,
    pub began: Instant,
}

/// Gives the request its [`Call`], a span for its log lines, and the answer the same id.
pub async fn begin(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = given.filter(|id| is_sane(id)).map_or_else(new_id, str::to_owned);
    let call = Call { id: id.clone(), began: Instant::now() };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", id, %method, path, key = tracing::field::Empty);
    request.extensions_mut().insert(call.clone());
    async move {
        let mut response = next.run(request).await;
        let (status, took) = (response.status().as_u16(), call.began.elapsed());
        tracing::info!(status, took_ms = took.as_millis() as u64, "answered");
        if let Ok(id) = HeaderValue::from_str(&call.id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }
    .instrument(span)
    .await
}

fn is_sane(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn new_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

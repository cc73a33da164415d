//! Answers as bytes: bodies, content types, and the one place where an error becomes an HTTP status.
//!
//! Knows what Ollama's, OpenAI's and Anthropic's answers look like; knows nothing about models.

use std::any::Any;

use api::{Code, Error, anthropic, gojson, openai, rerank::RerankError};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;

/// What Ollama's own routes answer with.
const NATIVE_JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// What its OpenAI routes and the first error of a stream answer with.
const BARE_JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
/// Seconds. A slot becomes free within seconds if the cluster has the right size; a longer pause would waste it.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An error on one of Ollama's own routes.
#[derive(Debug)]
pub struct Native(pub Error);

/// An error in the envelope of OpenAI.
#[derive(Debug)]
pub struct OpenAi(pub Error);

/// An error in the envelope of Anthropic, which names the request.
#[derive(Debug)]
pub struct Anthropic {
    pub error: Error,
    pub request_id: String,
}

/// An error in the envelope of Cohere.
#[derive(Debug)]
pub struct Cohere(pub Error);

impl<E: Into<Error>> From<E> for Native {
    fn from(error: E) -> Native {
        Native(error.into())
    }
}

impl<E: Into<Error>> From<E> for OpenAi {
    fn from(error: E) -> OpenAi {
        OpenAi(error.into())
    }
}

impl IntoResponse for Native {
    fn into_response(self) -> Response {
        log(&self.0);
        failed(&self.0, encode(&error_body(&self.0)), NATIVE_JSON)
    }
}

impl IntoResponse for OpenAi {
    fn into_response(self) -> Response {
        log(&self.0);
        failed(&self.0, line(&openai::ErrorBody::from(&self.0)), BARE_JSON)
    }
}

impl IntoResponse for Anthropic {
    fn into_response(self) -> Response {
        log(&self.error);
        failed(&self.error, line(&anthropic::ErrorBody::new(&self.error, self.request_id)), BARE_JSON)
    }
}

impl IntoResponse for Cohere {
    fn into_response(self) -> Response {
        log(&self.0);
        failed(&self.0, line(&RerankError::from(&self.0)), BARE_JSON)
    }
}

/// `{"error":".."}`
pub fn error_body(error: &Error) -> serde_json::Value {
    json!({ "error": error.message })
}

/// One JSON object, as Ollama's own routes write it.
pub fn native<T: Serialize>(value: &T) -> Response {
    with_type(encode(value), NATIVE_JSON)
}

/// One JSON object that collects what would have been a stream.
pub fn collected<T: Serialize>(value: &T) -> Response {
    with_type(encode(value), BARE_JSON)
}

/// One JSON object, as the routes of other APIs write it: with a newline at the end.
pub fn foreign<T: Serialize>(value: &T) -> Response {
    with_type(line(value), BARE_JSON)
}

/// 200 without a body.
pub fn empty() -> Response {
    StatusCode::OK.into_response()
}

pub fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, TEXT)], "404 page not found").into_response()
}

pub fn method_not_allowed(allow: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, TEXT), (header::ALLOW, HeaderValue::from_static(allow))];
    (StatusCode::METHOD_NOT_ALLOWED, headers, "405 method not allowed").into_response()
}

/// What Ollama's router answers when a handler panics: nothing.
pub fn panicked(reason: Box<dyn Any + Send>) -> Response {
    let text = reason.downcast_ref::<&str>().copied();
    let text = text.or_else(|| reason.downcast_ref::<String>().map(String::as_str));
    tracing::error!(reason = text.unwrap_or("unknown"), "a handler panicked");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// JSON and a newline.
pub fn line<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = encode(value);
    bytes.push(b'\n');
    bytes
}

pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    gojson::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot encode an answer");
        br#"{"error":"cannot encode the answer"}"#.to_vec()
    })
}

/// Logs an error where it is handled, which is here. A client's mistake is not ours to look at, and a full queue
/// would fill the log as well; the metrics show it.
pub fn log(error: &Error) {
    let code = error.code.name();
    match error.code {
        Code::Internal | Code::OutOfMemory => tracing::error!(code, error = error.message, "request failed"),
        Code::Unavailable | Code::Timeout | Code::Remote => {
            tracing::warn!(code, error = error.message, "request not served")
        }
        // Worth a look where it is a model's template; a client's own is not, and the two cannot be told apart.
        Code::Template => tracing::info!(code, error = error.message, "request failed"),
        _ => tracing::debug!(code, error = error.message, "request refused"),
    }
}

fn failed(error: &Error, body: Vec<u8>, kind: HeaderValue) -> Response {
    let mut response = with_type(body, kind);
    *response.status_mut() = StatusCode::from_u16(error.code.http_status())
        .expect("every status of the error table lies between 100 and 999");
    if error.code.http_status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

fn with_type(body: Vec<u8>, kind: HeaderValue) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_that_http_knows() {
        for code in Code::ALL {
            let status = Native(Error::new(code, "why")).into_response().status();
            assert_eq!(status.as_u16(), code.http_status());
        }
    }
}

//! Request bodies: read within a bound, decoded as Go would.

use api::{Code, Error, Result, gojson};
use axum::body::Body;
use http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use crate::intake::{self, Intake};
use crate::packed;

/// A body that is at most so many times too long is read to its end before it is refused, for clients that write all
/// before they read. A longer one is refused unread.
const TIMES_DISCARDED: usize = 2;

/// Reads a JSON body of at most `limit` bytes; `when_empty` is the text for a body of none.
pub async fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    when_empty: &'static str,
) -> Result<T> {
    decode(&collect(headers, body, limit).await?, when_empty)
}

/// The same for a body that may be packed.
pub async fn read_packed<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    when_empty: &'static str,
) -> Result<T> {
    let bytes = collect(headers, body, limit).await?;
    if packed::is_packed(headers) {
        decode(&packed::unpack(bytes).await?, when_empty)
    } else {
        decode(&bytes, when_empty)
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8], when_empty: &'static str) -> Result<T> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid(when_empty));
    }
    gojson::from_slice(bytes)
}

async fn collect(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>> {
    let mut intake = Intake::new(body, intake::JSON);
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = declared
        && length > limit as u64
    {
        if length <= (TIMES_DISCARDED * limit) as u64 {
            intake.discard(TIMES_DISCARDED * limit).await;
        }
        return Err(too_large(limit, &length.to_string()));
    }
    let mut bytes = Vec::new();
    while let Some(more) = intake.next().await? {
        if more.len() > limit - bytes.len() {
            return Err(too_large(limit, "more"));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

fn too_large(limit: usize, got: &str) -> Error {
    Error::new(Code::TooLarge, format!("request body must be at most {limit} bytes, got {got}"))
}

#[cfg(test)]
mod tests {
    use api::ollama::ChatRequest;

    use super::*;

    async fn read_text(text: &'static str) -> Result<ChatRequest> {
        read(&HeaderMap::new(), Body::from(text), 64, gojson::MISSING_BODY).await
    }

    #[tokio::test]
    async fn an_empty_body_is_missing_and_null_is_an_empty_request() {
        assert_eq!(read_text("").await.unwrap_err().message, gojson::MISSING_BODY);
        assert_eq!(read_text(" \n").await.unwrap_err().message, gojson::MISSING_BODY);
        assert_eq!(read_text("null").await.unwrap().model, "");
    }

    #[tokio::test]
    async fn a_body_above_its_bound_is_refused_with_both_numbers() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "65".parse().unwrap());
        let declared = read::<ChatRequest>(&headers, Body::empty(), 64, "").await.unwrap_err();
        assert_eq!(declared.code, Code::TooLarge);
        assert_eq!(declared.message, "request body must be at most 64 bytes, got 65");
        let none = HeaderMap::new();
        let undeclared = read::<ChatRequest>(&none, Body::from(vec![b' '; 65]), 64, "");
        assert_eq!(undeclared.await.unwrap_err().code, Code::TooLarge);
        let at_the_bound = read::<ChatRequest>(&none, Body::from(vec![b' '; 64]), 64, "none");
        assert_eq!(at_the_bound.await.unwrap_err().message, "none");
    }
}

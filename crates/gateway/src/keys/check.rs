//! The layer: where clients put their keys, and what they hear without one.
//!
//! Clients differ in what they can be told to send: most know a bearer token, some only an address. So a key may also
//! be the password of a basic authorization, or stand in the path: `http://gateway/k/KEY` is a base address like any
//! other. One right key is enough, whatever stands elsewhere: there are clients that send a made-up one as well.

use std::borrow::Cow;
use std::time::Duration;

use api::{Code, Error};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;

use super::Keys;
use crate::call::Call;
use crate::ids;
use crate::intake::{self, Intake};
use crate::respond::{Anthropic, Cohere, Native, OpenAi};
use crate::router::with_path;

const API_KEY: &str = "x-api-key";
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"caravan\"");
const MESSAGE: &str = "unauthorized: send an API key as `Authorization: Bearer KEY`, as `x-api-key`, or in the address: /k/KEY/api/..";
/// What is read of a refused body, so that a client that writes before it reads sees the answer: as much as waits in
/// the buffers between two machines, and no longer than it takes to arrive.
const MAX_DISCARDED_BYTES: usize = 8 << 20;
const LONGEST_DISCARD: Duration = Duration::from_secs(2);

/// What stood between `/k/` and the rest of the path.
#[derive(Clone)]
struct PathKey(Vec<u8>);

/// Takes a key out of the path before anybody routes by it or logs it: `/k/KEY/api/tags` is `/api/tags`.
pub fn take_from_path(mut request: Request) -> Request {
    let Some((key, rest)) = split(request.uri()) else { return request };
    if let Some(uri) = with_path(request.uri(), &rest) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(PathKey(key));
    }
    request
}

/// The key in a path, and the path and query without it.
fn split(uri: &Uri) -> Option<(Vec<u8>, String)> {
    let path = uri.path().strip_prefix("/k/")?;
    let (key, rest) = path.split_once('/').unwrap_or((path, ""));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let key = percent_decode_str(key).collect();
    Some((key, format!("/{rest}{query}")))
}

/// Lets a request pass that has a key, or that needs none.
pub async fn check(State(keys): State<Keys>, request: Request, next: Next) -> Response {
    // Browsers ask without keys, and so does whoever only wants to know whether somebody is there.
    let is_alive = request.uri().path() == "/" && [Method::GET, Method::HEAD].contains(request.method());
    if request.method() == Method::OPTIONS || is_alive {
        return next.run(request).await;
    }
    let in_path = request.extensions().get::<PathKey>().map(|PathKey(key)| Cow::Borrowed(key.as_slice()));
    let mut secrets = in_path.into_iter().chain(in_headers(request.headers()));
    let name = secrets.find_map(|secret| keys.name_of(&secret));
    drop(secrets);
    match name {
        Some(name) => {
            tracing::Span::current().record("key", &name);
            next.run(request).await
        }
        None => refuse(request).await,
    }
}

/// Every key that the headers hold: as `x-api-key`, as a bearer token, as the password of a basic authorization.
fn in_headers(headers: &HeaderMap) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let plain = headers.get_all(API_KEY).into_iter().map(|value| Cow::Borrowed(value.as_bytes()));
    let authorized = headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| {
        let value = value.as_bytes();
        let space = value.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Some(Cow::Borrowed(rest));
        }
        let pair = scheme.eq_ignore_ascii_case(b"basic").then(|| STANDARD.decode(rest).ok()).flatten()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(Cow::Owned(pair[colon + 1..].to_vec()))
    });
    plain.chain(authorized)
}

/// 401 in the envelope of the API that was asked.
async fn refuse(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    discard(body).await;
    let error = Error::new(Code::Unauthorized, MESSAGE);
    let mut response = match parts.uri.path() {
        "/v1/messages" => {
            let request_id =
                parts.extensions.get::<Call>().map(|call| ids::long("req_", call)).unwrap_or_default();
            Anthropic { error, request_id }.into_response()
        }
        path if path.ends_with("/rerank") && !path.starts_with("/api/") => Cohere(error).into_response(),
        path if path.starts_with("/v1/") => OpenAi(error).into_response(),
        _ => Native(error).into_response(),
    };
    response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    response
}

async fn discard(body: Body) {
    // Whether it came to an end or not, the answer is the same.
    let _ =
        tokio::time::timeout(LONGEST_DISCARD, Intake::new(body, intake::JSON).discard(MAX_DISCARDED_BYTES))
            .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_path_is_taken_out_of_it() {
        for (given, key, path) in [
            ("/k/sesame/api/tags", "sesame", "/api/tags"),
            ("/k/sesame/v1/models?a=/k/b", "sesame", "/v1/models?a=/k/b"),
            ("/k/sesame", "sesame", "/"),
            ("/k/a%2Fb%20c/api/ps", "a/b c", "/api/ps"),
            ("/k/one/k/two/api/ps", "one", "/k/two/api/ps"),
            ("http://a.example/k/one/api/ps", "one", "http://a.example/api/ps"),
        ] {
            let request = Request::builder().uri(given).body(Body::empty()).unwrap();
            let request = take_from_path(request);
            assert_eq!(request.uri(), path, "{given}");
            assert_eq!(request.extensions().get::<PathKey>().unwrap().0, key.as_bytes(), "{given}");
        }
        for given in ["/k", "/api/k/tags", "/kk/sesame/api/tags", "/"] {
            let request = take_from_path(Request::builder().uri(given).body(Body::empty()).unwrap());
            assert_eq!(request.uri(), given);
            assert!(request.extensions().get::<PathKey>().is_none());
        }
    }

    #[test]
    fn keys_are_found_wherever_clients_put_them() {
        let found = |name: &'static str, value: &[u8]| -> Vec<String> {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                HeaderValue::from_bytes(value).unwrap(),
            )]);
            in_headers(&headers).map(|secret| String::from_utf8_lossy(&secret).into_owned()).collect()
        };
        assert_eq!(found("authorization", b"Bearer sesame"), ["sesame"]);
        assert_eq!(found("authorization", b"bearer   sesame "), ["sesame"]);
        assert_eq!(found("authorization", b"Basic YWRhOm9wZW46c2VzYW1l"), ["open:sesame"]);
        assert_eq!(found("x-api-key", b"sesame"), ["sesame"]);
        assert_eq!(found("x-api-key", "sésame".as_bytes()), ["sésame"]);
        for wrong in ["sesame", "Basic !!!", "Basic YWRh", "Basic", "Digest sesame", "", "Bearer"] {
            assert_eq!(found("authorization", wrong.as_bytes()), Vec::<String>::new(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn every_api_is_refused_in_its_own_words() {
        for (path, pointer) in [
            ("/api/chat", "/error"),
            ("/api/rerank", "/error"),
            ("/v1/chat/completions", "/error/message"),
            ("/v1/messages", "/error/message"),
            ("/v1/rerank", "/message"),
            ("/v2/rerank", "/message"),
            ("/rerank", "/message"),
        ] {
            let response = refuse(Request::builder().uri(path).body(Body::empty()).unwrap()).await;
            assert_eq!(
                (response.status().as_u16(), &response.headers()[WWW_AUTHENTICATE]),
                (401, &CHALLENGE)
            );
            let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                body.pointer(pointer).and_then(serde_json::Value::as_str),
                Some(MESSAGE),
                "{path}: {body}"
            );
        }
    }
}

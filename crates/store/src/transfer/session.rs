//! Requests to one repository of a registry: tokens, redirects, bounds on time and size, errors in words.
//!
//! Knows nothing of blobs and files.

use std::error::Error as _;
use std::io;
use std::iter::successors;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngCore;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::timeout;

use super::challenge::{Challenge, signed_text};
use super::key::Key;
use super::origin::{Origin, anonymous};
use super::{Config, Error};

/// As many as Go's client follows.
const MAX_REDIRECTS: usize = 10;
/// Of an error's text.
const MAX_ERROR_BYTES: usize = 4 << 10;
/// A token of the largest registries has some KiB.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// One repository, and who we are to it.
pub(super) struct Session {
    http: Client,
    pub(super) origin: Origin,
    pub(super) config: Arc<Config>,
    token: Mutex<Option<HeaderValue>>,
    /// One asks for a token, the others wait for it.
    renewing: tokio::sync::Mutex<()>,
}

/// What a token server answers; Ollama's says `token`, OAuth's says `access_token`.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

// === impl Session ===

impl Session {
    pub(super) fn new(http: Client, origin: Origin, config: Arc<Config>) -> Session {
        Session { http, origin, config, token: Mutex::default(), renewing: tokio::sync::Mutex::default() }
    }

    /// GET, from wherever the registry sends us: to the same server with our credentials, elsewhere without.
    pub(super) async fn get(&self, url: Url, headers: &HeaderMap) -> Result<Response, Error> {
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            let build = |request: RequestBuilder| request.headers(headers.clone());
            let response = self.send(Method::GET, &url, build).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let next = location(&response, &[LOCATION.as_str()])?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Error::Insecure);
            }
            url = next;
        }
        Err(Error::Redirects(MAX_REDIRECTS))
    }

    /// One request, sent again with a new token when the registry asks for one. Redirects are the caller's.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let is_home = self.origin.is_home(url);
        let mut may_renew = is_home;
        loop {
            let authorization = if is_home { self.authorization() } else { None };
            let mut request = build(self.http.request(method.clone(), url.clone()));
            if let Some(value) = &authorization {
                request = request.headers(HeaderMap::from_iter([(AUTHORIZATION, value.clone())]));
            }
            let response = request.send().await.map_err(|error| broken(&method, url, &error))?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return checked(response).await;
            }
            if !may_renew {
                return Err(Error::Denied);
            }
            may_renew = false;
            self.renew(&response, authorization).await?;
        }
    }

    /// The same with a bound on the time until the answer begins. For requests with little or no body.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &Url,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let limit = self.config.tuning.answer;
        let send = self.send(method.clone(), url, build);
        timeout(limit, send).await.unwrap_or_else(|_| Err(stalled(&method, url, limit)))
    }

    /// What a token said us to be, or user and password.
    fn authorization(&self) -> Option<HeaderValue> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        token.or_else(|| {
            let (user, password) = self.origin.basic.as_ref()?;
            let request = self.http.get(self.origin.base.clone()).basic_auth(user, Some(password));
            request.build().ok()?.headers().get(AUTHORIZATION).cloned()
        })
    }

    /// Gets the token that `response` asks for, unless somebody else has got one since `used` was sent.
    async fn renew(&self, response: &Response, used: Option<HeaderValue>) -> Result<(), Error> {
        let _one = self.renewing.lock().await;
        if self.authorization() != used {
            return Ok(());
        }
        let header = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let challenge = Challenge::parse(header.unwrap_or_default(), &self.origin.base)?;
        let token = self.token(&challenge).await?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| Error::Garbage { what: "the registry's token", reason: error.to_string() })?;
        value.set_sensitive(true);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    async fn token(&self, challenge: &Challenge) -> Result<String, Error> {
        let mut nonce = [0; 16];
        rand::rng().fill_bytes(&mut nonce);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let url = challenge.url(unix, &nonce);
        let request = self.http.get(url.clone());
        let request = match &self.origin.basic {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request.header(AUTHORIZATION, self.signature(&url).await?),
        };
        let limit = self.config.tuning.answer;
        let answer = async {
            let response = request.send().await.map_err(|error| broken(&Method::GET, &url, &error))?;
            if response.status() == StatusCode::UNAUTHORIZED {
                return Err(Error::Denied);
            }
            body(checked(response).await?, "the registry's token", MAX_TOKEN_BYTES).await
        };
        let bytes =
            timeout(limit, answer).await.unwrap_or_else(|_| Err(stalled(&Method::GET, &url, limit)))?;
        let garbage = |reason: String| Error::Garbage { what: "the registry's token", reason };
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| garbage(error.to_string()))?;
        let text = if token.token.is_empty() { token.access_token } else { token.token };
        if text.is_empty() { Err(garbage("it is empty".to_owned())) } else { Ok(text) }
    }

    async fn signature(&self, url: &Url) -> Result<String, Error> {
        let (path, text) = (self.config.key.clone(), signed_text(url));
        let signing = tokio::task::spawn_blocking(move || Ok(Key::load_or_make(&path)?.authorization(&text)));
        signing.await.unwrap_or_else(|error| Err(Error::Client(error.to_string())))
    }
}

/// The whole body of a small answer.
pub(super) async fn body(mut response: Response, what: &'static str, limit: usize) -> Result<Vec<u8>, Error> {
    let oversized = |got: String| Error::Oversized { what, limit: limit as u64, got };
    if let Some(length) = response.content_length().filter(|length| *length > limit as u64) {
        return Err(oversized(length.to_string()));
    }
    let mut bytes = Vec::new();
    loop {
        let chunk = response.chunk().await;
        match chunk.map_err(|error| Error::Garbage { what, reason: reason(&error) })? {
            None => return Ok(bytes),
            Some(chunk) if bytes.len() + chunk.len() > limit => return Err(oversized("more".to_owned())),
            Some(chunk) => bytes.extend_from_slice(&chunk),
        }
    }
}

/// The first of the headers that is there, as a URL.
pub(super) fn location(response: &Response, headers: &[&str]) -> Result<Url, Error> {
    let found = headers.iter().find_map(|header| response.headers().get(*header));
    let text = found.ok_or(Error::Lacking { what: "the registry's answer", missing: "Location" })?;
    let garbage = |reason: String| Error::Garbage { what: "the registry's Location", reason };
    let text = text.to_str().map_err(|error| garbage(error.to_string()))?;
    let url = response.url().join(text).map_err(|error| garbage(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(Error::Scheme(scheme.to_owned())),
    }
}

pub(super) fn broken(method: &Method, url: &Url, error: &reqwest::Error) -> Error {
    let (method, url) = (method.to_string(), plain(url));
    if is_plain(error) {
        return Error::Plain { method, url };
    }
    Error::Connection { method, url, reason: reason(error) }
}

/// Whether TLS was tried and the answer was none. An I/O error does not call its source what it was made of.
fn is_plain(error: &reqwest::Error) -> bool {
    let invalid = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    let mut causes = successors(error.source(), |&cause| match cause.downcast_ref::<io::Error>() {
        Some(cause) => cause.get_ref().map(|inner| inner as _),
        None => cause.source(),
    });
    causes.any(|cause| cause.downcast_ref() == Some(&invalid))
}

pub(super) fn stalled(method: &Method, url: &Url, limit: std::time::Duration) -> Error {
    Error::Stalled { method: method.to_string(), url: plain(url), seconds: limit.as_secs() }
}

/// An answer that is no error.
async fn checked(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status == StatusCode::NOT_FOUND {
        return Err(Error::NotFound);
    }
    if status.as_u16() < 400 {
        return Ok(response);
    }
    let text = match body(response, "the registry's error", MAX_ERROR_BYTES).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Refused { status: status.as_u16(), body: text })
}

/// Without what is a secret: what a signed address has behind its question mark, and user and password, which a registry
/// may put into the address that it sends us to.
pub(super) fn plain(url: &Url) -> String {
    let mut url = anonymous(url.clone());
    url.set_query(None);
    url.to_string()
}

/// The innermost cause says it best: "Connection refused".
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    // What has no cause tells its whole address, secrets included.
    text.split(" for url (").next().unwrap_or_default().to_owned()
}

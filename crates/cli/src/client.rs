//! The HTTP client of the commands: requests, error texts and NDJSON streams of an Ollama-speaking server.

use std::{
    error::Error,
    io::{self, ErrorKind},
};

use anyhow::{Context, Result, anyhow, bail};
use futures::{Stream, StreamExt, TryStreamExt};
use node::Host;
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::args::program;

/// A line of a stream above this is no answer of ours: what Ollama's own client allows.
const MAX_LINE_BYTES: usize = 8 << 20;

/// Speaks to one server.
pub struct Client {
    http: reqwest::Client,
    /// With user and password, which leave it as basic authorization.
    base: String,
    /// The same for people.
    address: String,
}

/// What the server answered instead of the wished for: its status and its `error` text.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

/// Whether a call failed because the server does not know the thing.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

/// Whether the server wants to know who asks.
pub fn is_unauthorized(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::UNAUTHORIZED)
}

impl Client {
    /// A client of the server at `host`, whose path is kept as a prefix; `key` is sent with every request.
    pub fn new(host: &Host, key: Option<&str>) -> Result<Client> {
        // An error only says that this process has a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder().user_agent(concat!("caravan/", env!("CARGO_PKG_VERSION")));
        if host.is_loopback() {
            // As in Go: a proxy is never asked for this machine.
            http = http.no_proxy();
        }
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .context("`OLLAMA_API_KEY` must have no line ends and no control characters")?;
            value.set_sensitive(true);
            http = http.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
        }
        let http = http.build().context("set up the HTTP client")?;
        Ok(Client { http, base: host.secret_client_url(), address: host.client_url() })
    }

    /// Checks that somebody listens, so that every command fails with one and the same advice.
    pub async fn check(&self) -> Result<()> {
        let answer = self.http.head(format!("{}/", self.base)).send().await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) if is_refused(&error) => bail!(
                "could not connect to {0} server, run '{0} serve' to start it (nobody answers at {1})",
                program(),
                self.address
            ),
            Err(error) if wants_http(&error) => {
                bail!(
                    "the server at {} speaks http, set OLLAMA_HOST to an address that begins so",
                    self.address
                )
            }
            Err(error) => Err(error).with_context(|| format!("ask {}", self.address)),
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.http.get(format!("{}{path}", self.base)).send().await?;
        Ok(accepted(response).await?.json().await?)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        Ok(self.send(Method::POST, path, body).await?.json().await?)
    }

    /// Sends a JSON body; the answer's own body is left to the caller.
    pub async fn send(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Response> {
        let response = self.http.request(method, format!("{}{path}", self.base)).json(body).send().await?;
        accepted(response).await
    }

    pub async fn has_blob(&self, digest: &str) -> Result<bool> {
        let response = self.http.head(format!("{}/api/blobs/{digest}", self.base)).send().await?;
        Ok(response.status().is_success())
    }

    /// Uploads a blob of `length` bytes.
    pub async fn upload(&self, digest: &str, length: u64, body: reqwest::Body) -> Result<()> {
        let url = format!("{}/api/blobs/{digest}", self.base);
        let request = self.http.post(url).header(reqwest::header::CONTENT_LENGTH, length).body(body);
        accepted(request.send().await?).await?;
        Ok(())
    }

    /// Posts and yields each line of the answer. A line with `error` ends the stream with that error.
    pub async fn stream<T: DeserializeOwned, B: Serialize>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<impl Stream<Item = Result<T>> + use<T, B>> {
        let request = self.http.post(format!("{}{path}", self.base)).header(ACCEPT, "application/x-ndjson");
        let response = accepted(request.json(body).send().await?).await?;
        Ok(lines(response).map(|line| line.and_then(|line| parse_line(&line))))
    }

    /// The same with a body of any kind.
    pub async fn stream_of<T: DeserializeOwned>(
        &self,
        path: &str,
        body: reqwest::Body,
    ) -> Result<impl Stream<Item = Result<T>> + use<T>> {
        let response = self.http.post(format!("{}{path}", self.base)).body(body).send().await?;
        Ok(lines(accepted(response).await?).map(|line| line.and_then(|line| parse_line(&line))))
    }
}

/// Whether nobody listens there. A name that nobody knows and a server that wants another scheme are other matters.
fn is_refused(error: &reqwest::Error) -> bool {
    let is_it = |cause: &io::Error| cause.kind() == ErrorKind::ConnectionRefused;
    causes(error).any(|cause| cause.downcast_ref().is_some_and(is_it))
}

/// Whether TLS was tried on a server that answers in plain HTTP.
fn wants_http(error: &reqwest::Error) -> bool {
    let invalid = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    causes(error).any(|cause| cause.downcast_ref() == Some(&invalid))
}

/// All that is below, also what an I/O error was made of, which it does not call its source.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| match cause.downcast_ref::<io::Error>() {
        Some(cause) => cause.get_ref().map(|inner| inner as _),
        None => cause.source(),
    })
}

async fn accepted(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let message = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|value| value.get("error")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("{status}: {}", text.trim()));
    let message = match status {
        StatusCode::UNAUTHORIZED => format!("{message}; this program sends the one in OLLAMA_API_KEY"),
        _ => message,
    };
    Err(Refused { status, message }.into())
}

fn parse_line<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    let value: serde_json::Value = serde_json::from_slice(line).context("read a line of the answer")?;
    if let Some(error) = value.get("error") {
        return Err(anyhow!("{}", error.as_str().unwrap_or("the server reported an error without a text")));
    }
    Ok(serde_json::from_value(value)?)
}

fn lines(response: Response) -> impl Stream<Item = Result<Vec<u8>>> {
    let chunks = response.bytes_stream().map_err(anyhow::Error::from).boxed();
    futures::stream::try_unfold((chunks, Vec::new()), |(mut chunks, mut pending)| async move {
        loop {
            if let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let rest = pending.split_off(end + 1);
                pending.truncate(end);
                return Ok(Some((pending, (chunks, rest))));
            }
            match chunks.try_next().await? {
                Some(chunk) => pending.extend_from_slice(&chunk),
                None if pending.is_empty() => return Ok(None),
                None => return Ok(Some((pending, (chunks, Vec::new())))),
            }
            if pending.len() > MAX_LINE_BYTES {
                bail!("a line of the answer is longer than {MAX_LINE_BYTES} bytes");
            }
        }
    })
}

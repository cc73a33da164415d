//! What can go wrong between a registry and us, with Ollama's text where Ollama has one.

use crate::golang::quote;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `http://` in a name is only taken from who says `insecure`.
    #[error("insecure protocol http")]
    Insecure,
    #[error("unsupported protocol scheme {}", quote(.0))]
    Scheme(String),
    #[error("file does not exist")]
    NotFound,
    /// The registry asks who we are and does not like the answer.
    #[error("unauthorized: access denied")]
    Denied,
    #[error("{status}: {body}")]
    Refused { status: u16, body: String },
    /// A signed request goes to the registry itself and to nobody that it names.
    #[error("realm host {} does not match original host {}", quote(realm), quote(host))]
    Realm { realm: String, host: String },
    #[error("{what} has no {missing}")]
    Lacking { what: &'static str, missing: &'static str },
    #[error("{what} cannot be read: {reason}")]
    Garbage { what: &'static str, reason: String },
    #[error("{what} must be at most {limit} bytes, got {got}")]
    Oversized { what: &'static str, limit: u64, got: String },
    #[error("{digest} has {got} bytes, the manifest says {expected}")]
    Size { digest: String, expected: u64, got: u64 },
    #[error("{digest}: the registry sends more than the {limit} bytes that the manifest says")]
    TooMuch { digest: String, limit: u64 },
    #[error("{digest}: the registry answers bytes {got}, asked for bytes {asked}")]
    Range { digest: String, asked: String, got: String },
    /// It sends the whole where a part was asked for.
    #[error("{digest}: the registry does not serve parts of it")]
    NoRanges { digest: String },
    #[error("digest mismatch, file must be downloaded again: want {want}, got {got}")]
    Mismatch { want: String, got: String },
    #[error("{method} {url}: {reason}")]
    Connection { method: String, url: String, reason: String },
    /// TLS was tried and something else came back.
    #[error(
        "{method} {url}: the registry speaks http, which must be allowed: --insecure on the command line, `insecure` in a request"
    )]
    Plain { method: String, url: String },
    /// Told apart from a slow line: nearly nothing came for as long as that.
    #[error("{method} {url}: no answer within {seconds} s")]
    Stalled { method: String, url: String, seconds: u64 },
    #[error("stopped after {0} redirects")]
    Redirects(usize),
    #[error("max retries exceeded: {0}")]
    Exhausted(Box<Error>),
    #[error("this model requires MLX support, but the MLX runtime is not available")]
    Tensors,
    #[error("key {path}: {reason}")]
    Key { path: String, reason: String },
    #[error("set up the HTTP client: {0}")]
    Client(String),
}

impl Error {
    /// Whether the same request may succeed a moment later. What a registry says of itself is final; a line that
    /// breaks and a server that is busy are not.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Error::Connection { .. } | Error::Stalled { .. } => true,
            Error::Refused { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// Whether the registry contradicts itself, so that nothing that it sent is worth keeping.
    pub(super) fn is_lie(&self) -> bool {
        matches!(self, Error::Size { .. } | Error::TooMuch { .. } | Error::Range { .. })
    }
}

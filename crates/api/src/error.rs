//! The one table of errors: what went wrong, whose fault it is, what a client sees, what may be retried.
//!
//! An error is classed where it is born. Handlers never write a status number: they ask [`Code::http_status`].

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in one word. The gRPC side of the table is in `protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is wrong and will stay wrong.
    Invalid,
    Unauthorized,
    Forbidden,
    /// No such model, blob or route.
    NotFound,
    MethodNotAllowed,
    /// A body above its bound.
    TooLarge,
    /// A body that comes too slowly.
    TooSlow,
    /// The caller left before the answer.
    Canceled,
    /// Every slot of the replica runs a sequence. The gateway tries elsewhere or waits; no client sees it.
    Busy,
    /// The worker holds no such replica (any more). The gateway loads it; no client sees it.
    NotLoaded,
    /// No permit to load is free. The gateway evicts or waits; no client sees it.
    NoPermit,
    /// The queue is full.
    QueueFull,
    /// Nobody can serve it now: no worker, a lost connection, a metadata store out of reach.
    Unavailable,
    /// The model does not fit into the memory of the worker.
    OutOfMemory,
    /// It took longer than its bound.
    Timeout,
    /// A server of somebody else, a registry, refused or failed. Ollama answers 500 and so do we, but nobody here need
    /// look at it.
    Remote,
    /// A template does not work, be it a model's or the request's. Ollama answers 500 and so do we, but it is not our fault,
    /// and any client can bring one.
    Template,
    /// Our fault.
    Internal,
}

impl Code {
    pub const ALL: [Code; 18] = [
        Code::Invalid,
        Code::Unauthorized,
        Code::Forbidden,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::TooLarge,
        Code::TooSlow,
        Code::Canceled,
        Code::Busy,
        Code::NotLoaded,
        Code::NoPermit,
        Code::QueueFull,
        Code::Unavailable,
        Code::OutOfMemory,
        Code::Timeout,
        Code::Remote,
        Code::Template,
        Code::Internal,
    ];

    /// The HTTP status that a client sees. 499 is what Ollama answers to a caller that has left.
    pub fn http_status(self) -> u16 {
        match self {
            Code::Invalid => 400,
            Code::Unauthorized => 401,
            Code::Forbidden => 403,
            Code::NotFound => 404,
            Code::MethodNotAllowed => 405,
            Code::TooSlow => 408,
            Code::TooLarge => 413,
            Code::Canceled => 499,
            Code::Internal | Code::OutOfMemory | Code::Remote | Code::Template => 500,
            Code::Busy | Code::NotLoaded | Code::NoPermit | Code::QueueFull | Code::Unavailable => 503,
            Code::Timeout => 504,
        }
    }

    /// Whether the same request may succeed on another replica or a moment later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Code::Busy | Code::NotLoaded | Code::NoPermit | Code::QueueFull | Code::Unavailable)
    }

    /// The name on the wire between our own processes.
    pub fn name(self) -> &'static str {
        match self {
            Code::Invalid => "invalid",
            Code::Unauthorized => "unauthorized",
            Code::Forbidden => "forbidden",
            Code::NotFound => "not_found",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::TooLarge => "too_large",
            Code::TooSlow => "too_slow",
            Code::Canceled => "canceled",
            Code::Busy => "busy",
            Code::NotLoaded => "not_loaded",
            Code::NoPermit => "no_permit",
            Code::QueueFull => "queue_full",
            Code::Unavailable => "unavailable",
            Code::OutOfMemory => "out_of_memory",
            Code::Timeout => "timeout",
            Code::Remote => "remote",
            Code::Template => "template",
            Code::Internal => "internal",
        }
    }

    /// The reverse of [`Code::name`]; `None` for a word that a newer version may have added.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// A classed error with the text that a client reads: lower case, no full stop, and where Ollama has a text,
/// that text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    pub message: String,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Code::Invalid, message)
    }

    pub fn unauthorized(message: impl Into<String>) -> Error {
        Error::new(Code::Unauthorized, message)
    }

    pub fn forbidden(message: impl Into<String>) -> Error {
        Error::new(Code::Forbidden, message)
    }

    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Code::NotFound, message)
    }

    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(Code::Internal, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::new(Code::Unavailable, message)
    }

    /// A model that does not fit, in the words that older Ollamas used and clients know.
    pub fn out_of_memory(needed_bytes: u64, available_bytes: u64) -> Error {
        let (needed, available) = (size(needed_bytes), size(available_bytes));
        let text = format!("model requires more system memory ({needed}) than is available ({available})");
        Error::new(Code::OutOfMemory, text)
    }
}

/// In the largest unit that it has one of.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_does_not_fit_is_told_with_both_sizes() {
        let text = |needed, available| Error::out_of_memory(needed, available).message;
        assert_eq!(
            text(6 << 30, 3 << 29),
            "model requires more system memory (6.0 GiB) than is available (1.5 GiB)"
        );
        assert!(text(3 << 19, 1023).ends_with("(1.5 MiB) than is available (1023 B)"));
    }

    #[test]
    fn every_code_has_a_name_of_its_own() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(code));
        }
        assert_eq!(Code::from_name("from_the_future"), None);
    }
}

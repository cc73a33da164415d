//! Why the registry did not do it, above the level of the metadata store.

use crate::store;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    /// As many models are loaded as may be.
    #[error("no permit to load is free: `max_loaded_models` is {limit}, {held} are held")]
    NoPermit { limit: u32, held: usize },
    /// This worker's earlier permit for this model has not been given back yet.
    #[error("the permit of worker `{worker}` for `{replica_key}` is still held")]
    PermitHeld { worker: String, replica_key: String },
    /// The session has no live lease: nothing can be granted to it.
    #[error("worker `{worker}` is cut off from the metadata store")]
    Cut { worker: String },
    #[error("worker id `{id}` is taken by a live worker at `{address}`")]
    WorkerIdTaken { id: String, address: String },
    /// Others were always faster.
    #[error("`{key}` changed under every one of {attempts} attempts to write it")]
    Contended { key: String, attempts: u32 },
    /// The registry or the session has been closed.
    #[error("the registry is closed")]
    Closed,
    #[error("value of `{key}` cannot be read: {reason}")]
    Unreadable { key: String, reason: String },
}

impl Error {
    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Store(error) => error.is_retryable(),
            Error::NoPermit { .. }
            | Error::PermitHeld { .. }
            | Error::Cut { .. }
            | Error::Contended { .. } => true,
            Error::WorkerIdTaken { .. } | Error::Closed | Error::Unreadable { .. } => false,
        }
    }
}

impl From<Error> for api::Error {
    fn from(error: Error) -> api::Error {
        let code = match error {
            Error::Store(error) => return error.into(),
            Error::NoPermit { .. } | Error::PermitHeld { .. } => api::Code::NoPermit,
            Error::Cut { .. } | Error::Contended { .. } | Error::Closed => api::Code::Unavailable,
            Error::WorkerIdTaken { .. } => api::Code::Invalid,
            Error::Unreadable { .. } => api::Code::Internal,
        };
        api::Error::new(code, error.to_string())
    }
}

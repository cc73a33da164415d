//! The metadata store as everything above it sees it: a small ordered map with revisions, transactions, watches
//! and leases. etcd is one implementation, [`crate::Memory`] the other; one suite of laws holds them together.
//!
//! A store keeps bytes. What the bytes mean is the business of `records`.

use std::{collections::BTreeSet, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};

/// etcd refuses a transaction of more than 128 operations or conditions (`--max-txn-ops`); we stay below.
pub const MAX_TXN_OPS: usize = 100;

/// etcd refuses a request above 1.5 MiB (`--max-request-bytes`). 64 KiB are left for its framing.
pub const MAX_TXN_BYTES: usize = 1536 * 1024 - 64 * 1024;

/// Ours are below 300 bytes. Long keys are a mistake that etcd would not notice.
pub const MAX_KEY_BYTES: usize = 1024;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[async_trait]
pub trait MetadataStore: Send + Sync + 'static {
    /// Every key that begins with `prefix`, in the order of keys, as of one revision.
    async fn range(&self, prefix: &str) -> Result<Snapshot>;

    /// Does all of `ops` if all of `conditions` hold, else nothing. An error leaves the outcome open: the
    /// transaction may have been committed, or may be committed later.
    async fn txn(&self, conditions: &[Condition], ops: &[Op]) -> Result<Outcome>;

    /// Every change of keys that begin with `prefix`, from revision `from` on, in order and without a gap. To see
    /// a snapshot and then everything after it, pass the snapshot's revision plus one.
    async fn watch(&self, prefix: &str, from: i64) -> Result<Watch>;

    /// A new lease. It lives for at least `ttl`; a store may round up.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId>;

    /// Starts the lease's time anew. [`Error::LeaseGone`] when it has expired.
    async fn keep_alive(&self, lease: LeaseId) -> Result<()>;

    /// Ends the lease and deletes its keys. A lease that is already gone is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub items: Vec<Item>,
    /// The store's revision at the time, which may be newer than every item's.
    pub revision: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub key: String,
    pub value: Bytes,
    /// The revision that wrote this value.
    pub revision: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Absent {
        key: String,
    },
    Exists {
        key: String,
    },
    /// The key exists and was last written by this revision.
    Revision {
        key: String,
        revision: i64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put { key: String, value: Bytes, lease: Option<LeaseId> },
    Delete { key: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was done, in one revision; the store's current one when there was nothing to change.
    Committed { revision: i64 },
    /// A condition did not hold.
    Refused,
}

/// One key written (`Some`) or deleted (`None`) by a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub value: Option<Bytes>,
    pub revision: i64,
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    stream: BoxStream<'static, Result<Vec<Change>>>,
}

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store cannot be reached or has no leader. May be retried.
    #[error("metadata store is out of reach: {0}")]
    Unavailable(String),
    #[error("metadata store did not answer within {0:?}")]
    Timeout(Duration),
    /// Changes before `oldest` are forgotten: take a snapshot and watch from there.
    #[error("changes since revision {from} are compacted, the oldest kept is {oldest}")]
    Compacted { from: i64, oldest: i64 },
    #[error("lease `{:x}` is gone", .0.0)]
    LeaseGone(LeaseId),
    #[error("{what} must be at most {limit}, got {got}")]
    TooLarge { what: String, limit: usize, got: usize },
    #[error("{0}")]
    Invalid(String),
    #[error("metadata store denies access: {0}")]
    Denied(String),
}

// === impl Error ===

impl Error {
    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Timeout(_))
    }
}

impl From<Error> for api::Error {
    fn from(error: Error) -> api::Error {
        let code = match &error {
            Error::Unavailable(_) | Error::Timeout(_) | Error::Compacted { .. } | Error::LeaseGone(_) => {
                api::Code::Unavailable
            }
            Error::TooLarge { .. } => api::Code::TooLarge,
            Error::Invalid(_) => api::Code::Invalid,
            Error::Denied(_) => api::Code::Internal,
        };
        api::Error::new(code, error.to_string())
    }
}

// === impl Condition, Op ===

impl Condition {
    pub fn key(&self) -> &str {
        match self {
            Condition::Absent { key } | Condition::Exists { key } | Condition::Revision { key, .. } => key,
        }
    }

    /// The condition that `key` is still as `item` says: written by the same revision, or still absent.
    pub fn unchanged(key: &str, item: Option<&Item>) -> Condition {
        match item {
            Some(item) => Condition::Revision { key: key.to_owned(), revision: item.revision },
            None => Condition::Absent { key: key.to_owned() },
        }
    }
}

impl Op {
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Op {
        Op::Put { key: key.into(), value: value.into(), lease: None }
    }

    pub fn put_leased(key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Op {
        Op::Put { key: key.into(), value: value.into(), lease: Some(lease) }
    }

    pub fn delete(key: impl Into<String>) -> Op {
        Op::Delete { key: key.into() }
    }

    pub fn key(&self) -> &str {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }

    /// What it takes of [`MAX_TXN_BYTES`].
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
        }
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.items.binary_search_by(|item| item.key.as_str().cmp(key)).ok().map(|at| &self.items[at])
    }
}

// === impl Watch ===

impl Watch {
    pub fn new(stream: BoxStream<'static, Result<Vec<Change>>>) -> Watch {
        Watch { stream }
    }

    /// The next changes. One revision's changes always come together. `None` and errors end the watch: take a
    /// snapshot and begin anew.
    pub async fn next(&mut self) -> Option<Result<Vec<Change>>> {
        self.stream.next().await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// The bounds that every store holds before it does anything, so that both refuse alike and with the same text.
pub(crate) fn check_txn(conditions: &[Condition], ops: &[Op]) -> Result<()> {
    at_most("operations of a transaction", MAX_TXN_OPS, ops.len())?;
    at_most("conditions of a transaction", MAX_TXN_OPS, conditions.len())?;
    for key in conditions.iter().map(Condition::key).chain(ops.iter().map(Op::key)) {
        check_key(key)?;
    }
    for op in ops {
        at_most(&format!("bytes of `{}`", op.key()), MAX_TXN_BYTES, op.bytes())?;
    }
    at_most("bytes of a transaction", MAX_TXN_BYTES, ops.iter().map(Op::bytes).sum())?;
    let mut seen = BTreeSet::new();
    match ops.iter().find(|op| !seen.insert(op.key())) {
        Some(op) => Err(Error::Invalid(format!("`{}` is written twice in one transaction", op.key()))),
        None => Ok(()),
    }
}

pub(crate) fn check_ttl(ttl: Duration) -> Result<()> {
    if ttl.is_zero() { Err(Error::Invalid("`ttl` of a lease must be above 0".into())) } else { Ok(()) }
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::Invalid("a key must not be empty".into()));
    }
    at_most("bytes of a key", MAX_KEY_BYTES, key.len())
}

fn at_most(what: &str, limit: usize, got: usize) -> Result<()> {
    if got <= limit { Ok(()) } else { Err(Error::TooLarge { what: what.to_owned(), limit, got }) }
}

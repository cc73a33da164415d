//! Where everything lies in the metadata store, below the cluster's prefix.
//!
//! ```text
//! workers/<worker>                 leased   who is there
//! replicas/<worker>/<replica_key>  leased   what is loaded, as the worker says
//! permits/<worker>/<replica_key>   plain    what may be loaded; outlives the worker's lease, see `permits`
//! permit-guard                     plain    written by every grant, so that grants come one after another
//! limits                           plain    the cluster-wide bounds
//! catalog                          plain    counts changes of the model store
//! locks/<name>/<lease>             leased   the queue of one lock, in the order of revisions
//! ```
//!
//! A segment is percent-encoded where it could be mistaken for structure, so any name is safe as one.

use crate::store::LeaseId;

pub(crate) const WORKERS: &str = "workers/";
pub(crate) const REPLICAS: &str = "replicas/";
pub(crate) const PERMITS: &str = "permits/";
pub(crate) const PERMIT_GUARD: &str = "permit-guard";
/// Begins both [`PERMITS`] and [`PERMIT_GUARD`], so that one range reads them at one revision.
pub(crate) const PERMITS_AND_GUARD: &str = "permit";
pub(crate) const LIMITS: &str = "limits";
pub(crate) const CATALOG: &str = "catalog";

pub(crate) fn worker(id: &str) -> String {
    format!("{WORKERS}{}", escape(id))
}

pub(crate) fn replica(worker: &str, replica_key: &str) -> String {
    format!("{REPLICAS}{}/{}", escape(worker), escape(replica_key))
}

pub(crate) fn permit(worker: &str, replica_key: &str) -> String {
    format!("{PERMITS}{}/{}", escape(worker), escape(replica_key))
}

pub(crate) fn lock_queue(name: &str) -> String {
    format!("locks/{}/", escape(name))
}

pub(crate) fn lock_place(name: &str, lease: LeaseId) -> String {
    format!("{}{:016x}", lock_queue(name), lease.0)
}

/// What lies under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Worker(String),
    Replica(ReplicaId),
    Permit(ReplicaId),
    Limits,
    Catalog,
    /// Nothing that the view shows.
    Other,
}

/// One model on one worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId {
    pub worker: String,
    pub replica_key: String,
}

// === impl Key ===

impl Key {
    pub fn parse(key: &str) -> Key {
        if key == LIMITS {
            Key::Limits
        } else if key == CATALOG {
            Key::Catalog
        } else if let Some(id) = key.strip_prefix(WORKERS) {
            Key::Worker(unescape(id))
        } else if let Some(id) = key.strip_prefix(REPLICAS).and_then(ReplicaId::parse) {
            Key::Replica(id)
        } else if let Some(id) = key.strip_prefix(PERMITS).and_then(ReplicaId::parse) {
            Key::Permit(id)
        } else {
            Key::Other
        }
    }
}

// === impl ReplicaId ===

impl ReplicaId {
    pub fn new(worker: impl Into<String>, replica_key: impl Into<String>) -> ReplicaId {
        ReplicaId { worker: worker.into(), replica_key: replica_key.into() }
    }

    fn parse(segments: &str) -> Option<ReplicaId> {
        let (worker, replica_key) = segments.split_once('/')?;
        Some(ReplicaId::new(unescape(worker), unescape(replica_key)))
    }
}

fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for c in segment.chars() {
        if c == '/' || c == '%' || c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn unescape(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_a_name_does_not_make_another_segment() {
        assert_eq!(permit("a/b", "c"), "permits/a%2Fb/c");
        assert_ne!(permit("a/b", "c"), permit("a", "b/c"));
        assert_ne!(escape("a%2Fb"), escape("a/b"));
        assert!(!lock_queue("library/x/y").starts_with(&lock_queue("library/x")));
    }

    #[test]
    fn what_is_written_under_a_key_is_found_under_it() {
        for name in ["w1", "a/b", "100%", "%2F", "sha256:00+sha256:11", "né/\u{7f}\n", ""] {
            assert_eq!(Key::parse(&worker(name)), Key::Worker(name.into()));
            assert_eq!(Key::parse(&replica(name, "k")), Key::Replica(ReplicaId::new(name, "k")));
            assert_eq!(Key::parse(&permit("w", name)), Key::Permit(ReplicaId::new("w", name)));
        }
        assert_eq!(Key::parse(PERMIT_GUARD), Key::Other);
        assert_eq!(Key::parse("from/the/future"), Key::Other);
    }

    #[test]
    fn the_guard_and_the_permits_are_read_by_one_range() {
        assert!(PERMITS.starts_with(PERMITS_AND_GUARD) && PERMIT_GUARD.starts_with(PERMITS_AND_GUARD));
    }
}

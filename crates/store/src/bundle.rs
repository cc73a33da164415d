//! Models in one file, for machines without a network: a tar with the very folders of the store.
//!
//! ```text
//! manifests/<host>/<namespace>/<model>/<tag>
//! blobs/sha256-<64 hex>
//! ```
//!
//! So `tar x` in a models folder is an import, too; ours verifies, and writes manifests last.

mod entry;
mod read;
mod write;

use crate::golang::quote;

pub use read::{Loaded, Reader};
pub use write::Bundle;

/// Above it no file is a bundle of ours: each entry costs memory while it is read.
const MAX_ENTRIES: usize = 100_000;
/// Of all manifests of one file, which are in memory until the end.
const MAX_MANIFESTS: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the file ends early, after {0} bytes")]
    Truncated(u64),
    #[error("the file is no tar: {0}")]
    Garbage(String),
    #[error("{} is neither a manifest nor a blob", quote(.0))]
    Path(String),
    /// Links, devices and the like.
    #[error("{} is no plain file", quote(.0))]
    Kind(String),
    #[error("{} is in the file twice", quote(.0))]
    Twice(String),
    #[error("{what} must be at most {limit}, got {got}")]
    TooMuch { what: &'static str, limit: u64, got: u64 },
    #[error("{} cannot be read: {reason}", quote(name))]
    Manifest { name: String, reason: String },
    #[error("{} needs {digest}, which is neither in the file nor in the store", quote(name))]
    Missing { name: String, digest: String },
    #[error("{} needs {expected} bytes of {digest}, which has {got}", quote(name))]
    Size { name: String, digest: String, expected: u64, got: u64 },
    #[error("no model is in the file")]
    Empty,
    /// Whoever sends the file has stopped.
    #[error("read the file: {0}")]
    Body(String),
}

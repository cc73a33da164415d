//! What can be wrong with a GGUF file. Each text names the field, key or tensor, the bound and the value.

use std::path::PathBuf;

/// Why a file was refused, or could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not a GGUF file: it starts with {found:02x?}, expected \"GGUF\"")]
    Magic { found: Vec<u8> },
    #[error("big-endian GGUF files are not supported")]
    BigEndian,
    #[error("GGUF `version` must be 2 or 3, got {found}")]
    Version { found: u32 },
    #[error("{field} needs {needed} bytes at offset {offset}, but only {left} are left in the file")]
    Truncated { field: String, offset: u64, needed: u128, left: u64 },
    #[error("{field} ends at byte {end}, a header may have {bound} bytes")]
    Header { field: String, bound: usize, end: u128 },
    #[error("{field} is not valid UTF-8")]
    Encoding { field: String },
    #[error("metadata key `{key}` occurs twice")]
    DuplicateKey { key: String },
    #[error("metadata key `{key}` has the unknown value type {found}, the last known one is 12")]
    ValueType { key: String, found: u32 },
    #[error("metadata key `{key}` has a bool of {found}, must be 0 or 1")]
    Bool { key: String, found: u8 },
    #[error("metadata key `{key}` nests arrays deeper than {bound}")]
    Nesting { key: String, bound: usize },
    #[error("metadata key `{key}` is missing")]
    MissingKey { key: String },
    #[error("metadata key `{key}` must be {expected}, got {found}")]
    KeyType { key: String, expected: &'static str, found: String },
    #[error("`general.alignment` must be a power of two up to {bound}, got {found}")]
    Alignment { bound: u64, found: u64 },
    #[error("tensor `{tensor}` occurs twice")]
    DuplicateTensor { tensor: String },
    #[error("tensor `{tensor}` has the unknown type id {found}")]
    TensorType { tensor: String, found: u32 },
    #[error("tensor `{tensor}` has {found} dimensions, the bound is {bound}")]
    Dimensions { tensor: String, bound: u32, found: u32 },
    #[error("tensor `{tensor}` has an empty dimension in its shape {shape:?}")]
    EmptyDimension { tensor: String, shape: Vec<u64> },
    #[error("tensor `{tensor}` is larger than any file: its shape is {shape:?}")]
    Overflow { tensor: String, shape: Vec<u64> },
    #[error("tensor `{tensor}` has rows of {found} elements, {kind} needs a multiple of {block}")]
    Block { tensor: String, kind: &'static str, block: u64, found: u64 },
    #[error("tensor `{tensor}` starts at offset {found}, must be a multiple of the alignment {alignment}")]
    Unaligned { tensor: String, alignment: u64, found: u64 },
    #[error("tensor `{tensor}` ends at byte {end} of the data, which has only {bound} bytes")]
    OutOfFile { tensor: String, end: u128, bound: u64 },
    #[error("tensors `{first}` and `{second}` overlap at offset {offset} of the data")]
    Overlap { first: String, second: String, offset: u64 },
    #[error("tensor `{tensor}` was given {found} bytes, its shape and type need {expected}")]
    DataLength { tensor: String, expected: u64, found: u64 },
    #[error("{action} `{path}`")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("write GGUF")]
    Write(#[source] std::io::Error),
}

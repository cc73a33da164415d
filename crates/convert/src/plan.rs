//! A model that is to be written: its metadata, and where each tensor comes from.

use gguf::{TensorType, Value};

use crate::fp8::Fp8;
use crate::source::Span;

/// Everything that the file will have but the types that quantizing gives.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Planned>,
}

#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// In the GGUF.
    pub name: String,
    /// ggml's order: the contiguous dimension first.
    pub shape: Vec<u64>,
    /// As it is stored.
    pub kind: TensorType,
    pub data: Data,
    /// Stored with rows and columns the other way round.
    pub is_transposed: bool,
    pub change: Change,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    Stored(Span),
    /// Stored in eight bits; the tensor's kind is what they become first.
    Fp8(Fp8),
    /// Parts of so many rows each, one after the other.
    Joined {
        parts: Vec<Data>,
        rows: u64,
    },
    /// Computed, and small.
    Values(Vec<f32>),
}

/// What happens to the numbers on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    /// Gemma stores how far its norms are from one.
    AddOne,
    /// Queries and keys whose halves turn together, for kernels that turn neighbours: within each head of so many rows,
    /// the rows of both halves take turns.
    Interleave {
        head_rows: u64,
    },
}

// === impl Plan ===

impl Plan {
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.metadata.push((key.into(), value.into()));
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// Puts a value in the place of what is there under that key.
    pub fn replace(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.retain(|(known, _)| known != key);
        self.put(key, value);
    }
}

// === impl Data ===

impl Data {
    pub fn has_eight_bits(&self) -> bool {
        match self {
            Data::Fp8(_) => true,
            Data::Joined { parts, .. } => parts.iter().any(Data::has_eight_bits),
            Data::Stored(_) | Data::Values(_) => false,
        }
    }
}

// === impl Planned ===

impl Planned {
    /// The length of a row.
    pub fn cols(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    pub fn rows(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }
}

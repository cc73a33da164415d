//! What each architecture calls its tensors and sizes, here and there. A new one is a table and a few keys.

mod bert;
mod decoder;
mod gemma;
mod mixture;
mod rope;

use std::collections::BTreeMap;

use gguf::TensorType;

use crate::Error;
use crate::checkpoint::{Checkpoint, Entries, class};
use crate::fp8::{self, Fp8};
use crate::plan::{Change, Data, Planned};
use crate::safetensors::Stored;

/// A model, but for its tokenizer.
pub(crate) struct Model {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Without the architecture before them.
    pub keys: Entries,
    /// Without `tokenizer.` before them.
    pub tokenizer_keys: Entries,
    pub tensors: Vec<Planned>,
    /// Rows of the embedding: how many tokens the tokenizer must have.
    pub vocab: u64,
}

/// The sizes that shapes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub blocks: u64,
    pub width: u64,
    pub inner: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head: u64,
    pub vocab: u64,
    pub positions: u64,
    pub types: u64,
    /// Of a mixture; 0 = it is none.
    pub experts: u64,
    pub expert_inner: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Width,
    Inner,
    /// All heads together.
    Queries,
    /// All heads of keys, or of values, together.
    Keys,
    /// Queries, keys and values in one.
    QueriesKeysValues,
    /// Gate and up in one.
    TwiceInner,
    Head,
    Vocab,
    Positions,
    Types,
    Experts,
    ExpertInner,
}

/// One kind of tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// In the checkpoint.
    pub name: &'static str,
    /// In a GGUF.
    pub gguf: &'static str,
    /// The contiguous dimension last, as in the checkpoint.
    pub shape: &'static [Size],
    pub need: Need,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Must,
    May,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    AsItIs,
    AddOne,
    /// Of queries or keys, whose heads are [`Change::Interleave`]d.
    Interleaved,
}

pub(super) const fn must(name: &'static str, gguf: &'static str, shape: &'static [Size]) -> Row {
    Row { name, gguf, shape, need: Need::Must, how: How::AsItIs }
}

pub(super) const fn may(name: &'static str, gguf: &'static str, shape: &'static [Size]) -> Row {
    Row { need: Need::May, ..must(name, gguf, shape) }
}

/// The tensors of an architecture.
pub(super) struct Table {
    pub whole: &'static [Row],
    /// What is before a block's number in the checkpoint.
    pub blocks: &'static str,
    pub block: &'static [Row],
    /// Matrices that each expert of a block has; those of all experts become one tensor.
    pub experts: &'static [Row],
    /// What is before an expert's number in the checkpoint.
    pub before_expert: &'static str,
    /// Of what begins so, nothing is kept.
    pub ignored: &'static [&'static str],
}

/// Reads what config.json says the checkpoint is.
pub(crate) fn read(checkpoint: &Checkpoint<'_>) -> Result<Model, Error> {
    match class(&checkpoint.config)? {
        "BertModel" => bert::read(checkpoint),
        class => decoder::read(checkpoint, class),
    }
}

// === impl Sizes ===

impl Sizes {
    fn of(&self, size: Size) -> u64 {
        match size {
            Size::Width => self.width,
            Size::Inner => self.inner,
            Size::Queries => self.heads * self.head,
            Size::Keys => self.kv_heads * self.head,
            Size::QueriesKeysValues => (self.heads + 2 * self.kv_heads) * self.head,
            Size::TwiceInner => 2 * self.inner,
            Size::Head => self.head,
            Size::Vocab => self.vocab,
            Size::Positions => self.positions,
            Size::Types => self.types,
            Size::Experts => self.experts,
            Size::ExpertInner => self.expert_inner,
        }
    }
}

// === impl Table ===

impl Table {
    /// All tensors of the checkpoint under their new names, each with the shape that the sizes demand. `prefix` is what
    /// all names in the checkpoint begin with. A tensor that nobody knows is an error: a model that is half understood
    /// would talk nonsense.
    pub fn tensors(
        &self,
        checkpoint: &Checkpoint<'_>,
        prefix: &str,
        sizes: &Sizes,
    ) -> Result<Vec<Planned>, Error> {
        let mut left: BTreeMap<&str, &Stored> =
            checkpoint.tensors.iter().map(|(name, stored)| (name.as_str(), stored)).collect();
        let mut planned = Vec::with_capacity(left.len());
        let block = fp8::block(checkpoint)?;
        let mut take = |name: String, gguf: String, row: &Row| -> Result<Option<Planned>, Error> {
            match left.remove(name.as_str()) {
                Some(stored) if stored.is_fp8 => {
                    let scales =
                        fp8::SCALES.iter().find_map(|end| left.remove(format!("{name}{end}").as_str()));
                    let data = Data::Fp8(Fp8::new(&name, stored, scales, block)?);
                    // As precise as they are, and with room for their scales.
                    let stored = Stored { kind: TensorType::BF16, ..stored.clone() };
                    Ok(Some(Planned { data, ..plan(&name, gguf, row, &stored, sizes)? }))
                }
                Some(stored) => plan(&name, gguf, row, stored, sizes).map(Some),
                None if row.need == Need::May => Ok(None),
                None => Err(Error::tensor(&name, "is missing")),
            }
        };
        for row in self.whole {
            // The head stands beside the model, the rest is in it.
            let prefix = if row.name.starts_with("lm_head") { "" } else { prefix };
            planned.extend(take(format!("{prefix}{}", row.name), row.gguf.to_owned(), row)?);
        }
        for block in 0..sizes.blocks {
            for row in self.block {
                let name = format!("{prefix}{}{block}.{}", self.blocks, row.name);
                planned.extend(take(name, format!("blk.{block}.{}", row.gguf), row)?);
            }
            for row in self.experts {
                let mut parts = Vec::new();
                for expert in 0..sizes.experts {
                    let place = format!("{prefix}{}{block}.{}{expert}", self.blocks, self.before_expert);
                    parts.extend(take(
                        format!("{place}.{}", row.name),
                        format!("blk.{block}.{}", row.gguf),
                        row,
                    )?);
                }
                planned.extend(join(parts)?);
            }
        }
        let is_ignored = |name: &str| {
            let bare = name.strip_prefix(prefix).unwrap_or(name);
            self.ignored.iter().any(|part| bare.starts_with(part) || name.starts_with(part))
                || bare.ends_with("rotary_emb.inv_freq")
                // What whoever computes in eight bits multiplies activations with.
                || bare.ends_with(".input_scale")
        };
        match left.keys().find(|name| !is_ignored(name)) {
            None => Ok(planned),
            Some(name) => Err(Error::tensor(
                name,
                "is unknown in this architecture; without it the model would be wrong",
            )),
        }
    }
}

/// One tensor of those of all experts.
fn join(parts: Vec<Planned>) -> Result<Option<Planned>, Error> {
    let Some(first) = parts.first().cloned() else { return Ok(None) };
    if let Some(other) = parts.iter().find(|part| part.kind != first.kind) {
        let problem =
            format!("has experts of {} and of {}, they must be of one type", first.kind, other.kind);
        return Err(Error::tensor(&first.name, problem));
    }
    let (rows, mut shape) = (first.rows(), first.shape.clone());
    shape.push(parts.len() as u64);
    let parts = parts.into_iter().map(|part| part.data).collect();
    Ok(Some(Planned { shape, data: Data::Joined { parts, rows }, ..first }))
}

fn plan(name: &str, gguf: String, row: &Row, stored: &Stored, sizes: &Sizes) -> Result<Planned, Error> {
    let expected: Vec<u64> = row.shape.iter().map(|&size| sizes.of(size)).collect();
    if stored.shape != expected {
        let problem = format!("must have shape {expected:?} by config.json, got {:?}", stored.shape);
        return Err(Error::tensor(name, problem));
    }
    if !matches!(stored.kind, TensorType::F32 | TensorType::F16 | TensorType::BF16) {
        return Err(Error::tensor(name, format!("must be F32, F16 or BF16, got {}", stored.kind)));
    }
    let change = match row.how {
        How::AsItIs => Change::Nothing,
        How::AddOne => Change::AddOne,
        How::Interleaved => Change::Interleave { head_rows: sizes.head },
    };
    let shape = stored.shape.iter().rev().copied().collect();
    let data = Data::Stored(stored.span.clone());
    Ok(Planned { name: gguf, shape, kind: stored.kind, data, is_transposed: false, change })
}

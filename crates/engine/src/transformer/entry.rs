//! The rows of the tokens before the first block, and what embedders add to them.

use super::norm::Norm;
use crate::{
    Error,
    kernels::{Cpu, packed::Packed},
    model::Batch,
    spec::{Layout, Spec},
    weights::{Backend, Weights},
};

#[derive(Default)]
pub(crate) struct Entry {
    /// The row of the first token type, [width]: an input here is one text, never a pair.
    kind: Option<Vec<f32>>,
    /// [train context, width].
    positions: Option<Vec<f32>>,
    norm: Option<Norm>,
}

/// Where the rows of a batch come from.
pub(crate) struct Embed<'a> {
    /// [vocab, width]; rows are widened when a token asks.
    pub embedding: &'a Packed,
    pub entry: &'a Entry,
    pub scale: f32,
}

impl Embed<'_> {
    /// Fills `stream` with [n, width].
    pub fn fill(&self, cpu: Cpu, batch: &Batch<'_>, stream: &mut Vec<f32>) {
        let width = self.embedding.cols();
        stream.resize(batch.tokens.len() * width, 0.0);
        for (row, &token) in stream.chunks_exact_mut(width).zip(&batch.tokens) {
            self.embedding.widen(token as usize, row);
            row.iter_mut().for_each(|value| *value *= self.scale);
        }
        self.entry.apply(cpu, &batch.positions, stream);
    }
}

impl Entry {
    pub fn load<B: Backend>(weights: &mut Weights<'_, B>, spec: &Spec) -> Result<Entry, Error> {
        let Spec { width, train_context_length, .. } = *spec;
        let types = "token_types.weight";
        let count = weights.shape(types).and_then(|shape| shape.get(1).copied()).unwrap_or(1);
        let kind = weights.floats(types, &[width, count as usize])?;
        let positions = match spec.pairing {
            Some(_) => None,
            None => Some(weights.expect_floats("position_embd.weight", &[width, train_context_length])?),
        };
        let norm = match spec.layout {
            Layout::After => Some(Norm::expect(weights, spec, "token_embd_norm", width)?),
            Layout::Before | Layout::BeforeOrShared => None,
        };
        Ok(Entry { kind: kind.map(|kinds| kinds[..width].to_vec()), positions, norm })
    }

    /// `stream`: [n, width], of tokens at `positions`.
    fn apply(&self, cpu: Cpu, positions: &[u32], stream: &mut [f32]) {
        let width = stream.len() / positions.len().max(1);
        for (row, &position) in stream.chunks_exact_mut(width.max(1)).zip(positions) {
            let place = self.positions.as_ref().map(|table| &table[position as usize * width..][..width]);
            for addition in self.kind.as_deref().into_iter().chain(place) {
                row.iter_mut().zip(addition).for_each(|(value, addition)| *value += addition);
            }
        }
        if let Some(norm) = &self.norm {
            norm.apply(cpu, stream);
        }
    }
}

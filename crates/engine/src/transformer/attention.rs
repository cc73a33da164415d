//! The body of an attention branch: the only place that looks at spans.

use std::ops::Range;

use super::{cache::Cache, norm::Norm};
use crate::{
    Error,
    compute::Compute,
    kernels::{
        attention::{self, Heads, Job, PageView, Scratch},
        rope::{Angles, Pairing},
    },
    linear::{Input, Linear},
    model::Batch,
    pool::Shared,
};

/// Rows of a span that one piece of work takes: they share the widening of each page.
const TILE: usize = 16;

pub(super) struct Attention {
    pub heads: Heads,
    /// `None` = heads are not turned.
    pub pairing: Option<Pairing>,
    /// Whether a row sees only what is before it in its span, or all of the span.
    pub is_causal: bool,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub query_norm: Option<Norm>,
    pub key_norm: Option<Norm>,
    pub out: Linear,
}

/// Room for a step, used again by the next branch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    mixed: Input,
}

/// What a step computes with, and on.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub compute: &'a Compute,
    pub batch: &'a Batch<'a>,
    pub angles: &'a Angles,
}

impl Attention {
    /// `input`: [n, width] to `out`: [n, width], leaving keys and values of block `block` in `cache`.
    pub fn forward(
        &self,
        step: Step<'_>,
        (cache, block): (&mut Cache, usize),
        buffers: &mut Buffers,
        (input, out): (&mut Input, &mut Vec<f32>),
    ) -> Result<(), Error> {
        let Step { compute, batch, angles } = step;
        let Buffers { query, key, value, mixed } = buffers;
        let Heads { key_dim, value_dim, kv_count, .. } = self.heads;
        let maps = &mut [(&self.query, &mut *query), (&self.key, &mut *key), (&self.value, &mut *value)];
        Linear::forward(compute, input, maps)?; // [n, heads * dim] each
        for (rows, norm) in [(&mut *query, &self.query_norm), (&mut *key, &self.key_norm)] {
            if let Some(norm) = norm {
                norm.apply_here(compute.cpu, rows);
            }
            if let Some(pairing) = self.pairing {
                angles.turn(pairing, rows, key_dim);
            }
        }
        for span in &batch.spans {
            for row in span.rows.clone() {
                let keys = &key[row * kv_count * key_dim..][..kv_count * key_dim];
                let values = &value[row * kv_count * value_dim..][..kv_count * value_dim];
                cache.store(block, span.pages, batch.positions[row], (keys, values));
            }
        }
        mixed.values().resize(batch.tokens.len() * self.heads.count * value_dim, 0.0);
        self.mix(step, (cache, block), query, mixed.values()); // [n, heads * value_dim]
        Linear::forward(compute, mixed, &mut [(&self.out, out)]) // [n, width]
    }

    /// Attention proper: queries, [n, heads * key_dim], to `out`, [n, heads * value_dim].
    fn mix(&self, step: Step<'_>, (cache, block): (&Cache, usize), query: &[f32], out: &mut [f32]) {
        let Step { compute, batch, .. } = step;
        let items = self.items(batch);
        let out = Shared::new(out);
        compute.pool.split(items.len(), 1, |range| {
            let mut scratch = Scratch::default();
            for item in &items[range] {
                let span = &batch.spans[item.span];
                let (first, advance) = match self.is_causal {
                    true => (batch.positions[item.rows.start] as usize, 1),
                    false => (batch.positions[span.rows.end - 1] as usize, 0),
                };
                let seen = first + (item.rows.len() - 1) * advance + 1;
                let pages = &span.pages[..crate::pages::pages_for(seen)];
                let pages: Vec<PageView<'_>> = cache.view(block, item.head, pages).collect();
                let part = |row: usize, dim: usize| {
                    let len = self.heads.group() * dim;
                    let start = row * self.heads.count * dim + item.head * len;
                    start..start + len
                };
                let rows = || item.rows.clone();
                let queries: Vec<&[f32]> = rows().map(|row| &query[part(row, self.heads.key_dim)]).collect();
                // SAFETY: an item is one head of some rows, no two items share both, and a part is one row's
                // share of one head.
                let mut out: Vec<&mut [f32]> =
                    rows().map(|row| unsafe { out.part(part(row, self.heads.value_dim)) }).collect();
                let scratch = &mut scratch;
                let (heads, out) = (self.heads, out.as_mut_slice());
                attention::attend(
                    compute.cpu,
                    Job { heads, pages: &pages, first, advance, queries: &queries, out, scratch },
                );
            }
        });
    }

    /// The pieces of work: one key and value head for some rows of one span.
    fn items(&self, batch: &Batch<'_>) -> Vec<Item> {
        let mut items = Vec::new();
        for (span, rows) in batch.spans.iter().map(|span| span.rows.clone()).enumerate() {
            for first in rows.clone().step_by(TILE) {
                let rows = first..rows.end.min(first + TILE);
                items.extend((0..self.heads.kv_count).map(|head| Item { span, head, rows: rows.clone() }));
            }
        }
        items
    }
}

struct Item {
    span: usize,
    head: usize,
    /// Of the batch.
    rows: Range<usize>,
}

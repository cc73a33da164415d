//! The body of an attention branch: the only place that looks at spans.

use std::ops::Range;

use super::cache::Cache;
use crate::{
    compute::Compute,
    kernels::{
        attention::{self, Heads, Job, PageView, Scratch},
        rope::{self, Angles, Pairing},
        rows::{Forms, Rows},
    },
    linear::Linear,
    model::Batch,
    pages::{PAGE_TOKENS, PageId, pages_for},
    pool::Shared,
    weights::Backend,
};

/// Rows of a span that one piece of work takes: they share each page while it is near.
const TILE: usize = 16;

pub(crate) struct Attention<B: Backend = Compute> {
    pub heads: Heads,
    /// `None` = heads are not turned.
    pub pairing: Option<Pairing>,
    /// Whether a row sees only what is before it in its span, or all of the span.
    pub is_causal: bool,
    pub query: B::Linear,
    pub key: B::Linear,
    pub value: B::Linear,
    pub query_norm: Option<B::Norm>,
    pub key_norm: Option<B::Norm>,
    pub out: B::Linear,
}

/// Room for a step, used again by the next branch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    mixed: Vec<f32>,
    input: Rows,
    scratch: Vec<Scratch>,
}

/// What a step computes with, and on.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub compute: &'a Compute,
    pub batch: &'a Batch<'a>,
    pub angles: &'a Angles,
}

impl Attention {
    /// The forms in which the maps want the input of the branch.
    pub fn forms(&self) -> Forms {
        Linear::forms([&self.query, &self.key, &self.value])
    }

    /// `input`: [n, width] to `out`: [n, width], leaving keys and values of block `block` in `cache`.
    pub(super) fn forward(
        &self,
        step: Step<'_>,
        (cache, block): (&mut Cache, usize),
        buffers: &mut Buffers,
        (input, out): (&Rows, &mut Vec<f32>),
    ) {
        let Buffers { query, key, value, .. } = buffers;
        let maps = &mut [(&self.query, &mut *query), (&self.key, &mut *key), (&self.value, &mut *value)];
        Linear::forward(step.compute, input, maps); // [n, heads * dim] each
        self.place(step, (cache, block), (query, key, value));
        self.mix(step, (cache, block), buffers); // [n, heads * value_dim]
        let Buffers { mixed, input, .. } = buffers;
        let cols = self.out.cols();
        let fill = |row: usize, to: &mut [f32]| to.copy_from_slice(&mixed[row * cols..][..cols]);
        let shape = (step.batch.tokens.len(), cols);
        input.fill((&step.compute.pool, step.compute.cpu), shape, Linear::forms([&self.out]), fill);
        Linear::forward(step.compute, input, &mut [(&self.out, out)]); // [n, width]
    }

    /// Normalises and turns queries and keys, and stores keys and values in the cache.
    fn place(
        &self,
        step: Step<'_>,
        (cache, block): (&mut Cache, usize),
        (query, key, value): (&mut [f32], &mut [f32], &[f32]),
    ) {
        let Step { compute, batch, angles } = step;
        let Heads { count, kv_count, key_dim, value_dim, .. } = self.heads;
        let (query, key, cache) = (Shared::new(query), Shared::new(key), cache.writer());
        let pieces = pages_of(batch);
        compute.pool.split(pieces.len(), 1, |_, range| {
            for (page, rows) in &pieces[range] {
                for row in rows.clone() {
                    // SAFETY: a row is in one piece of work.
                    let (query, key) = unsafe {
                        (
                            query.part(row * count * key_dim..(row + 1) * count * key_dim),
                            key.part(row * kv_count * key_dim..(row + 1) * kv_count * key_dim),
                        )
                    };
                    for (heads, norm) in [(query, &self.query_norm), (&mut *key, &self.key_norm)] {
                        if let Some(norm) = norm {
                            norm.apply(compute.cpu, heads);
                        }
                        if let Some(pairing) = self.pairing {
                            rope::turn(compute.cpu, pairing, angles.of_row(row), (heads, key_dim));
                        }
                    }
                    let value = &value[row * kv_count * value_dim..(row + 1) * kv_count * value_dim];
                    let at = (*page, batch.positions[row] as usize % PAGE_TOKENS);
                    // SAFETY: a page is in one piece of work.
                    unsafe { cache.store(block, at, (key, value)) };
                }
            }
        });
    }

    /// Attention proper: queries, [n, heads * key_dim], to `mixed`, [n, heads * value_dim].
    fn mix(&self, step: Step<'_>, (cache, block): (&Cache, usize), buffers: &mut Buffers) {
        let Step { compute, batch, .. } = step;
        let Buffers { query, mixed, scratch, .. } = buffers;
        let items = self.items(batch);
        mixed.resize(batch.tokens.len() * self.heads.count * self.heads.value_dim, 0.0);
        scratch.resize_with(compute.pool.threads(), Scratch::default);
        let (out, scratch) = (Shared::new(mixed), Shared::new(scratch));
        compute.pool.split(items.len(), 1, |thread, range| {
            for item in &items[range] {
                let span = &batch.spans[item.span];
                let (first, advance) = match self.is_causal {
                    true => (batch.positions[item.rows.start] as usize, 1),
                    false => (batch.positions[span.rows.end - 1] as usize, 0),
                };
                let seen = first + (item.rows.len() - 1) * advance + 1;
                let pages: Vec<PageView<'_>> =
                    cache.view(block, item.head, &span.pages[..pages_for(seen)]).collect();
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
                // SAFETY: a thread runs one piece at a time.
                let scratch = unsafe { &mut scratch.part(thread..thread + 1)[0] };
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

/// The pages that the rows of a batch go to, each with its rows.
fn pages_of(batch: &Batch<'_>) -> Vec<(PageId, Range<usize>)> {
    let mut pages = Vec::new();
    for span in &batch.spans {
        let mut next = span.rows.start;
        while next < span.rows.end {
            let position = batch.positions[next] as usize;
            let end = span.rows.end.min(next + PAGE_TOKENS - position % PAGE_TOKENS);
            pages.push((span.pages[position / PAGE_TOKENS], next..end));
            next = end;
        }
    }
    pages
}

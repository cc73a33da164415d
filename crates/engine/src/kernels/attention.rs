//! Attention of some rows over the pages of their sequence, in one pass: the softmax is kept as a running maximum
//! and sum (<https://arxiv.org/abs/1805.02867>), so that no row of scores as long as the context exists.

use half::{f16, slice::HalfFloatSliceExt};

use super::{activation::soft_cap, float, tier::tiered};
use crate::pages::PAGE_TOKENS;

/// What all heads of a branch have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Query heads.
    pub count: usize,
    /// Key and value heads; a divisor of `count`.
    pub kv_count: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub scale: f32,
    pub soft_cap: Option<f32>,
    /// A position sees itself and `window - 1` before it.
    pub window: Option<usize>,
}

impl Heads {
    /// Query heads that share a key and value head.
    pub fn group(&self) -> usize {
        self.count / self.kv_count
    }

    /// The positions that `position` sees.
    pub fn visible(&self, position: usize) -> std::ops::Range<usize> {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
    }
}

/// The keys, [PAGE_TOKENS, key_dim], and values, [PAGE_TOKENS, value_dim], of one head in one page.
#[derive(Clone, Copy)]
pub(crate) struct PageView<'a> {
    pub keys: &'a [f16],
    pub values: &'a [f16],
}

/// Rows of one sequence at one key and value head.
pub(crate) struct Job<'a> {
    pub heads: Heads,
    /// From the first page of the sequence on, as far as the last row sees.
    pub pages: &'a [PageView<'a>],
    /// The last position that the first row sees, which is its own unless it sees ahead.
    pub first: usize,
    /// How many positions more each row sees than the one before: 1, or 0 where all see the same.
    pub advance: usize,
    /// Of each row, its queries at this head: [group, key_dim].
    pub queries: &'a [&'a [f32]],
    /// Of each row, where the result goes: [group, value_dim].
    pub out: &'a mut [&'a mut [f32]],
    pub scratch: &'a mut Scratch,
}

/// Room that a thread uses again for its next job.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The page at hand, widened.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Running (maximum, sum) of each row and head of the group.
    softmax: Vec<(f32, f32)>,
}

tiered! {
    pub(crate) fn attend(job: Job<'_>) = body
}

#[inline(always)]
fn body(job: Job<'_>) {
    let Job { heads, pages, first, advance, queries, out, scratch } = job;
    let Scratch { keys, values, softmax } = scratch;
    let group = heads.group();
    keys.resize(PAGE_TOKENS * heads.key_dim, 0.0);
    values.resize(PAGE_TOKENS * heads.value_dim, 0.0);
    softmax.clear();
    softmax.resize(queries.len() * group, (f32::NEG_INFINITY, 0.0));
    out.iter_mut().for_each(|row| row.fill(0.0));
    for (at, page) in pages.iter().enumerate().skip(heads.visible(first).start / PAGE_TOKENS) {
        let start = at * PAGE_TOKENS;
        page.keys.convert_to_f32_slice(keys);
        page.values.convert_to_f32_slice(values);
        for (row, (queries, out)) in queries.iter().zip(out.iter_mut()).enumerate() {
            let visible = heads.visible(first + row * advance);
            let here = visible.start.max(start)..visible.end.min(start + PAGE_TOKENS);
            if here.is_empty() {
                continue;
            }
            let (low, high) = (here.start - start, here.end - start);
            let keys = &keys[low * heads.key_dim..high * heads.key_dim];
            let values = &values[low * heads.value_dim..high * heads.value_dim];
            let queries = queries.chunks_exact(heads.key_dim);
            let states = &mut softmax[row * group..(row + 1) * group];
            for ((query, out), state) in queries.zip(out.chunks_exact_mut(heads.value_dim)).zip(states) {
                add_page(heads, query, (keys, values), out, state);
            }
        }
    }
    for (row, out) in out.iter_mut().enumerate() {
        for (head, out) in out.chunks_exact_mut(heads.value_dim).enumerate() {
            let scale = 1.0 / softmax[row * group + head].1;
            out.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

/// Takes the visible positions of one page into one head's running softmax.
#[inline(always)]
fn add_page(
    heads: Heads,
    query: &[f32],
    (keys, values): (&[f32], &[f32]),
    out: &mut [f32],
    (maximum, sum): &mut (f32, f32),
) {
    let mut scores = [0f32; PAGE_TOKENS];
    let count = keys.len() / heads.key_dim;
    let scores = &mut scores[..count];
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(heads.key_dim)) {
        *score = float::dot(query, key) * heads.scale;
    }
    if let Some(cap) = heads.soft_cap {
        scores.iter_mut().for_each(|score| *score = soft_cap(*score, cap));
    }
    let highest =
        scores.iter().fold(*maximum, |highest, &score| if score > highest { score } else { highest });
    if highest > *maximum {
        let shrink = float::exp(*maximum - highest);
        out.iter_mut().for_each(|value| *value *= shrink);
        *sum *= shrink;
        *maximum = highest;
    }
    scores.iter_mut().for_each(|score| *score = float::exp(*score - highest));
    for (weight, value) in scores.iter().zip(values.chunks_exact(heads.value_dim)) {
        *sum += weight;
        float::add_scaled(out, value, *weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Cpu, Tier};
    use proptest::prelude::*;

    /// Softmax and weighted sum as the formula says, in double precision.
    fn plain(
        heads: Heads,
        keys: &[Vec<f32>],
        values: &[Vec<f32>],
        query: &[f32],
        position: usize,
    ) -> Vec<f64> {
        let visible = heads.visible(position);
        let scores: Vec<f64> = visible
            .clone()
            .map(|at| {
                let dot: f64 = query.iter().zip(&keys[at]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let score = dot * f64::from(heads.scale);
                heads.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            })
            .collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
        let mut out = vec![0.0; heads.value_dim];
        for (score, at) in scores.iter().zip(visible) {
            for (out, value) in out.iter_mut().zip(&values[at]) {
                *out += (score - highest).exp() / total * f64::from(*value);
            }
        }
        out
    }

    fn half_rows(seed: u32, rows: usize, dim: usize) -> Vec<Vec<f32>> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0).to_f32()
        };
        (0..rows).map(|_| (0..dim).map(|_| next()).collect()).collect()
    }

    fn page_of(rows: &[Vec<f32>], page: usize, dim: usize) -> Vec<f16> {
        let mut out = vec![f16::ZERO; PAGE_TOKENS * dim];
        for (row, out) in rows.iter().skip(page * PAGE_TOKENS).zip(out.chunks_exact_mut(dim)) {
            row.iter().zip(out).for_each(|(value, out)| *out = f16::from_f32(*value));
        }
        out
    }

    fn attend_with(cpu: Cpu, heads: Heads, rows: &[Vec<Vec<f32>>; 3], first: usize) -> Vec<Vec<f32>> {
        let [queries, keys, values] = rows;
        let count = keys.len().div_ceil(PAGE_TOKENS);
        let stored: Vec<_> = (0..count)
            .map(|page| (page_of(keys, page, heads.key_dim), page_of(values, page, heads.value_dim)))
            .collect();
        let pages: Vec<_> = stored.iter().map(|(keys, values)| PageView { keys, values }).collect();
        let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
        let mut out = vec![vec![7.0; heads.group() * heads.value_dim]; queries.len()];
        let mut parts: Vec<&mut [f32]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        let scratch = &mut Scratch::default();
        attend(
            cpu,
            Job { heads, pages: &pages, first, advance: 1, queries: &queries, out: &mut parts, scratch },
        );
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn it_is_the_formula_on_every_tier(
            seed in any::<u32>(), first in 0usize..90, rows in 1usize..5, group in 1usize..4,
            window in prop::option::of(1usize..70), soft_cap in prop::option::of(1f32..50.0),
        ) {
            let heads = Heads { count: group, kv_count: 1, key_dim: 20, value_dim: 12, scale: 0.7, soft_cap, window };
            let keys = half_rows(seed, first + rows, 20);
            let values = half_rows(seed ^ 1, first + rows, 12);
            let queries = half_rows(seed ^ 2, rows, group * 20);
            let inputs = [queries, keys, values];
            let scalar = attend_with(Cpu::new(Tier::Scalar).unwrap(), heads, &inputs, first);
            let best = attend_with(Cpu::new(Tier::detect()).unwrap(), heads, &inputs, first);
            prop_assert_eq!(&scalar, &best);
            for (row, out) in scalar.iter().enumerate() {
                for head in 0..group {
                    let query = &inputs[0][row][head * 20..(head + 1) * 20];
                    let exact = plain(heads, &inputs[1], &inputs[2], query, first + row);
                    for (ours, exact) in out[head * 12..(head + 1) * 12].iter().zip(exact) {
                        prop_assert!((f64::from(*ours) - exact).abs() < 2e-5, "{} is not {}", ours, exact);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_the_same_alone_and_together() {
        let heads = Heads {
            count: 2,
            kv_count: 1,
            key_dim: 8,
            value_dim: 8,
            scale: 1.0,
            soft_cap: None,
            window: Some(40),
        };
        let inputs = [half_rows(1, 6, 16), half_rows(2, 76, 8), half_rows(3, 76, 8)];
        let cpu = Cpu::new(Tier::detect()).unwrap();
        let together = attend_with(cpu, heads, &inputs, 70);
        for row in 0..6 {
            let alone = [vec![inputs[0][row].clone()], inputs[1].clone(), inputs[2].clone()];
            assert_eq!(attend_with(cpu, heads, &alone, 70 + row)[0], together[row]);
        }
    }
}

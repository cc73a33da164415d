//! Attention of some rows over the pages of their sequence, in one pass: the softmax is kept as a running maximum
//! and sum (<https://arxiv.org/abs/1805.02867>), so that no row of scores as long as the context exists.
//!
//! Keys lie in a page with their positions side by side, so that a register holds the scores of as many positions;
//! values with their dimensions side by side, so that it holds as many dimensions of a result. Neither is ever added
//! up across a register.

#![expect(clippy::needless_range_loop, reason = "an iterator is a call that may not get the instructions")]

use half::f16;

use super::{
    Cpu,
    activation::soft_cap,
    float,
    lanes::{Lanes, TILE},
    tier::tiered_lanes,
};
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

/// What one head of a block has in one page.
#[derive(Clone, Copy)]
pub(crate) struct PageView<'a> {
    /// [key_dim, PAGE_TOKENS].
    pub keys: &'a [f16],
    /// [PAGE_TOKENS, value_stride].
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

/// Room that a thread uses again for its next job. A *vector* is a row at one query head.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// [vectors, key_dim].
    queries: Vec<f32>,
    /// Scores of the page at hand, then weights; [vectors, PAGE_TOKENS].
    weights: Vec<[f32; PAGE_TOKENS]>,
    /// [vectors, value_stride].
    sums: Vec<f32>,
    /// Running (maximum, sum) of each vector.
    softmax: Vec<(f32, f32)>,
}

/// Values of one position in a page: `value_dim`, filled up to whole registers.
pub(crate) const fn value_stride(value_dim: usize) -> usize {
    value_dim.next_multiple_of(TILE)
}

/// # Panics
/// When a slice of the job has not the length that is said there.
pub(crate) fn attend(cpu: Cpu, mut job: Job<'_>) {
    let Heads { key_dim, value_dim, .. } = job.heads;
    let stride = value_stride(value_dim);
    let is_page = |page: &PageView<'_>| {
        page.keys.len() == key_dim * PAGE_TOKENS && page.values.len() == PAGE_TOKENS * stride
    };
    assert!(job.pages.iter().all(is_page) && job.queries.len() == job.out.len(), "parts of a job do not fit");
    job.start();
    // SAFETY: pages have their lengths, and `start` made room for the vectors.
    unsafe { run(cpu, &mut job) };
    job.finish();
}

impl Job<'_> {
    fn vectors(&self) -> usize {
        self.queries.len() * self.heads.group()
    }

    fn start(&mut self) {
        let vectors = self.vectors();
        let Scratch { queries, weights, sums, softmax } = &mut *self.scratch;
        queries.clear();
        self.queries.iter().for_each(|row| queries.extend(row.iter().map(|value| value * self.heads.scale)));
        assert_eq!(queries.len(), vectors * self.heads.key_dim, "a row of queries is too short or too long");
        weights.resize(vectors, [0.0; PAGE_TOKENS]);
        sums.clear();
        sums.resize(vectors * value_stride(self.heads.value_dim), 0.0);
        softmax.clear();
        // Low, but not so low that the distance to a score is not a number.
        softmax.resize(vectors, (-1e30, 0.0));
    }

    fn finish(&mut self) {
        let Heads { value_dim, .. } = self.heads;
        let sums = self.scratch.sums.chunks_exact(value_stride(value_dim));
        let out = self.out.iter_mut().flat_map(|row| row.chunks_exact_mut(value_dim));
        for ((out, sums), (_, sum)) in out.zip(sums).zip(&self.scratch.softmax) {
            let scale = 1.0 / sum;
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * scale);
        }
    }
}

tiered_lanes! {
    unsafe fn run[][](job: &mut Job<'_>) = body
}

/// # Safety
/// The processor has the instructions of `L`; the pages have their lengths and the scratch has room for all vectors.
#[inline(always)]
unsafe fn body<L: Lanes>(job: &mut Job<'_>) {
    let vectors = job.vectors();
    for at in job.heads.visible(job.first).start / PAGE_TOKENS..job.pages.len() {
        let mut next = 0;
        while next < vectors {
            // SAFETY: the caller's promise; `next` and as many as are taken are vectors.
            next += unsafe {
                match (vectors - next).min(L::MAX_ROWS) {
                    8.. => some::<L, 8>(job, at, next),
                    4.. => some::<L, 4>(job, at, next),
                    2.. => some::<L, 2>(job, at, next),
                    _ => some::<L, 1>(job, at, next),
                }
            };
        }
    }
}

/// Takes page `at` into `N` vectors from `next` on. Returns `N`.
#[inline(always)]
unsafe fn some<L: Lanes, const N: usize>(job: &mut Job<'_>, at: usize, next: usize) -> usize {
    let Job { heads, pages, first, advance, .. } = *job;
    let group = heads.group();
    let start = at * PAGE_TOKENS;
    let visible = |vector: usize| {
        let visible = heads.visible(first + vector / group * advance);
        let within = |position: usize| position.clamp(start, start + PAGE_TOKENS) - start;
        within(visible.start)..within(visible.end)
    };
    // Later vectors see later positions: the ends are those of the first and the last one.
    let (low, high) = (visible(next).start, visible(next + N - 1).end);
    if low >= high {
        return N;
    }
    let Scratch { queries, weights, sums, softmax } = &mut *job.scratch;
    let stride = value_stride(heads.value_dim);
    // SAFETY: the caller's promise.
    unsafe {
        let weights = &mut *weights.as_mut_ptr().add(next).cast::<[[f32; PAGE_TOKENS]; N]>();
        scores::<L, N>(pages[at].keys, &queries[next * heads.key_dim..], heads.key_dim, weights);
        for (vector, weights) in weights.iter_mut().enumerate() {
            let softmax = &mut softmax[next + vector];
            let sums = &mut sums[(next + vector) * stride..][..stride];
            take_scores(heads, visible(next + vector), weights, softmax, sums);
        }
        let sums = sums[next * stride..][..N * stride].as_mut_ptr();
        mix::<L, N>(pages[at].values, weights, low..high, (sums, stride));
    }
    N
}

/// Scores of the positions of a page: `weights` = `queries`, [N, key_dim], times `keys`.
#[inline(always)]
unsafe fn scores<L: Lanes, const N: usize>(
    keys: &[f16],
    queries: &[f32],
    key_dim: usize,
    weights: &mut [[f32; PAGE_TOKENS]; N],
) {
    let queries = &queries[..N * key_dim];
    for part in (0..PAGE_TOKENS).step_by(2 * L::COLUMNS) {
        // SAFETY: keys are [key_dim, PAGE_TOKENS], queries [N, key_dim].
        unsafe {
            let mut firsts = [L::splat(0.0); N];
            let mut seconds = [L::splat(0.0); N];
            for dim in 0..key_dim {
                let keys = keys.as_ptr().add(dim * PAGE_TOKENS + part).cast::<u16>();
                let (first, second) = (L::halves(keys), L::halves(keys.add(L::COLUMNS)));
                for vector in 0..N {
                    let query = L::splat(*queries.get_unchecked(vector * key_dim + dim));
                    firsts[vector] = L::fused(query, first, firsts[vector]);
                    seconds[vector] = L::fused(query, second, seconds[vector]);
                }
            }
            for vector in 0..N {
                L::store(firsts[vector], weights[vector].as_mut_ptr().add(part));
                L::store(seconds[vector], weights[vector].as_mut_ptr().add(part + L::COLUMNS));
            }
        }
    }
}

/// Turns the scores of a page into weights and takes them into the running softmax of a vector.
#[inline(always)]
fn take_scores(
    heads: Heads,
    visible: std::ops::Range<usize>,
    weights: &mut [f32; PAGE_TOKENS],
    (maximum, sum): &mut (f32, f32),
    sums: &mut [f32],
) {
    if let Some(cap) = heads.soft_cap {
        weights.iter_mut().for_each(|score| *score = soft_cap(*score, cap));
    }
    if visible != (0..PAGE_TOKENS) {
        for (at, score) in weights.iter_mut().enumerate() {
            *score = if visible.contains(&at) { *score } else { f32::NEG_INFINITY };
        }
    }
    let highest = float::maximum(weights);
    if highest > *maximum {
        let shrink = float::exp(*maximum - highest);
        sums.iter_mut().for_each(|value| *value *= shrink);
        *sum *= shrink;
        *maximum = highest;
    }
    weights.iter_mut().for_each(|score| *score = float::exp(*score - *maximum));
    let (first, second) = weights.split_at(float::LANES);
    let both: [f32; float::LANES] = std::array::from_fn(|lane| first[lane] + second[lane]);
    *sum += float::reduce(both);
}

/// Adds the values of the positions `range` of a page: `sums`, [N, stride], += `weights` times `values`.
#[inline(always)]
unsafe fn mix<L: Lanes, const N: usize>(
    values: &[f16],
    weights: &[[f32; PAGE_TOKENS]; N],
    range: std::ops::Range<usize>,
    (sums, stride): (*mut f32, usize),
) {
    for dim in (0..stride).step_by(L::COLUMNS) {
        // SAFETY: values are [PAGE_TOKENS, stride], the stride is a whole number of registers.
        unsafe {
            let mut parts = [L::splat(0.0); N];
            for vector in 0..N {
                parts[vector] = L::load(sums.add(vector * stride + dim));
            }
            for at in range.clone() {
                let value = L::halves(values.as_ptr().add(at * stride + dim).cast());
                for vector in 0..N {
                    let weight = L::splat(*weights[vector].get_unchecked(at));
                    parts[vector] = L::fused(weight, value, parts[vector]);
                }
            }
            for vector in 0..N {
                L::store(parts[vector], sums.add(vector * stride + dim));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Tier;
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

    /// The rows of a page, (position, dimension) at the place that `at` gives.
    fn page_of(rows: &[Vec<f32>], page: usize, len: usize, at: impl Fn(usize, usize) -> usize) -> Vec<f16> {
        let mut out = vec![f16::ZERO; len];
        for (position, row) in rows.iter().skip(page * PAGE_TOKENS).take(PAGE_TOKENS).enumerate() {
            row.iter().enumerate().for_each(|(dim, value)| out[at(position, dim)] = f16::from_f32(*value));
        }
        out
    }

    fn attend_with(cpu: Cpu, heads: Heads, rows: &[Vec<Vec<f32>>; 3], first: usize) -> Vec<Vec<f32>> {
        let [queries, keys, values] = rows;
        let count = keys.len().div_ceil(PAGE_TOKENS);
        let stored: Vec<_> = (0..count)
            .map(|page| {
                let stride = value_stride(heads.value_dim);
                let key_at = |position: usize, dim: usize| dim * PAGE_TOKENS + position;
                let value_at = |position: usize, dim: usize| position * stride + dim;
                (
                    page_of(keys, page, PAGE_TOKENS * heads.key_dim, key_at),
                    page_of(values, page, PAGE_TOKENS * stride, value_at),
                )
            })
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
            seed in any::<u32>(), first in 0usize..90, rows in 1usize..9, group in 1usize..4,
            window in prop::option::of(1usize..70), soft_cap in prop::option::of(1f32..50.0),
        ) {
            let heads = Heads { count: group, kv_count: 1, key_dim: 20, value_dim: 12, scale: 0.7, soft_cap, window };
            let keys = half_rows(seed, first + rows, 20);
            let values = half_rows(seed ^ 1, first + rows, 12);
            let queries = half_rows(seed ^ 2, rows, group * 20);
            let inputs = [queries, keys, values];
            let scalar = attend_with(Cpu::new(Tier::Scalar).unwrap(), heads, &inputs, first);
            for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
                let ours = attend_with(Cpu::new(tier).unwrap(), heads, &inputs, first);
                prop_assert_eq!(&scalar, &ours, "{:?}", tier);
            }
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

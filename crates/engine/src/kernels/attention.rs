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
pub(crate) enum PageView<'a> {
    Halves(Cells<'a, f16>),
    /// With one scale for each position.
    Bytes(Cells<'a, i8>, Scales<'a>),
}

#[derive(Clone, Copy)]
pub(crate) struct Cells<'a, T> {
    /// [key_dim, PAGE_TOKENS].
    pub keys: &'a [T],
    /// [PAGE_TOKENS, value_stride].
    pub values: &'a [T],
}

#[derive(Clone, Copy)]
pub(crate) struct Scales<'a> {
    pub keys: &'a [f32; PAGE_TOKENS],
    pub values: &'a [f32; PAGE_TOKENS],
}

/// A number of the cache as the kernels load it.
trait Cell {
    /// # Safety
    /// As the functions of [`Lanes`].
    unsafe fn load<L: Lanes>(at: *const Self) -> L::Floats;
}

impl Cell for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const f16) -> L::Floats {
        // SAFETY: the caller's promise.
        unsafe { L::halves(at.cast()) }
    }
}

impl Cell for i8 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const i8) -> L::Floats {
        // SAFETY: the caller's promise.
        unsafe { L::signed(at.cast()) }
    }
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
        let (keys, values) = match page {
            PageView::Halves(cells) => (cells.keys.len(), cells.values.len()),
            PageView::Bytes(cells, _) => (cells.keys.len(), cells.values.len()),
        };
        keys == key_dim * PAGE_TOKENS && values == PAGE_TOKENS * stride
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
    let vectors = Vectors { heads, next, seen: low..high };
    // SAFETY: the caller's promise.
    unsafe {
        match pages[at] {
            PageView::Halves(cells) => take_page::<L, f16, N>(cells, None, vectors, visible, job.scratch),
            PageView::Bytes(cells, scales) => {
                take_page::<L, i8, N>(cells, Some(scales), vectors, visible, job.scratch);
            }
        }
    }
    N
}

/// Some vectors, and the positions of a page that any of them sees.
struct Vectors {
    heads: Heads,
    next: usize,
    seen: std::ops::Range<usize>,
}

/// Takes what `N` vectors see of `cells`.
#[inline(always)]
unsafe fn take_page<L: Lanes, C: Cell, const N: usize>(
    cells: Cells<'_, C>,
    scales: Option<Scales<'_>>,
    vectors: Vectors,
    visible: impl Fn(usize) -> std::ops::Range<usize>,
    scratch: &mut Scratch,
) {
    let Vectors { heads, next, seen } = vectors;
    let Scratch { queries, weights, sums, softmax } = scratch;
    let stride = value_stride(heads.value_dim);
    // SAFETY: the caller's promise.
    unsafe {
        let weights = &mut *weights.as_mut_ptr().add(next).cast::<[[f32; PAGE_TOKENS]; N]>();
        scores::<L, C, N>(cells.keys, &queries[next * heads.key_dim..], heads.key_dim, weights);
        for (vector, weights) in weights.iter_mut().enumerate() {
            if let Some(scales) = scales {
                scale(weights, scales.keys);
            }
            let softmax = &mut softmax[next + vector];
            let sums = &mut sums[(next + vector) * stride..][..stride];
            take_scores(heads, visible(next + vector), weights, softmax, sums);
            if let Some(scales) = scales {
                scale(weights, scales.values);
            }
        }
        let sums = sums[next * stride..][..N * stride].as_mut_ptr();
        mix::<L, C, N>(cells.values, weights, seen, (sums, stride));
    }
}

#[inline(always)]
fn scale(weights: &mut [f32; PAGE_TOKENS], scales: &[f32; PAGE_TOKENS]) {
    weights.iter_mut().zip(scales).for_each(|(weight, scale)| *weight *= scale);
}

/// Scores of the positions of a page: `weights` = `queries`, [N, key_dim], times `keys`.
#[inline(always)]
unsafe fn scores<L: Lanes, C: Cell, const N: usize>(
    keys: &[C],
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
                let keys = keys.as_ptr().add(dim * PAGE_TOKENS + part);
                let (first, second) = (C::load::<L>(keys), C::load::<L>(keys.add(L::COLUMNS)));
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
    let mut both = [0.0; float::LANES];
    for lane in 0..float::LANES {
        both[lane] = weights[lane] + weights[float::LANES + lane];
    }
    *sum += float::reduce(both);
}

/// Adds the values of the positions `range` of a page: `sums`, [N, stride], += `weights` times `values`.
#[inline(always)]
unsafe fn mix<L: Lanes, C: Cell, const N: usize>(
    values: &[C],
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
                let value = C::load::<L>(values.as_ptr().add(at * stride + dim));
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
mod tests;

//! Matrix products: rows of weights as they lie in the file times rows of activations.
//!
//! Work is split over weight rows. A row is unpacked once and meets every row of the batch, so a weight is read from
//! memory once per step, however many sequences take part.

use std::ops::Range;

use candle_core::quantized::GgmlDType;

use super::quantize::{BLOCK, GROUP, Rows, TILE};
use super::tier::tiered;
use super::unpack::{Row, layout, widen};
use super::{Cpu, Tier, float};
use crate::pool::{Pool, Shared};

/// Weight rows per piece of work at least: what makes waking a thread worth while.
const GRAIN: usize = 32;

/// Rows that are unpacked before the first of them is used: the stores of a row must have left the processor's store
/// queue when wider loads want them, and a tile of activations is used for all of them while it is near.
const AHEAD: usize = 8;

/// A matrix of weights: `rows` rows of `cols` values of `kind`, one after another in `bytes`.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub kind: GgmlDType,
    pub bytes: &'a [u8],
    pub rows: usize,
    pub cols: usize,
}

/// What to multiply, and where the result goes.
pub(crate) struct Product<'a> {
    pub weights: Weights<'a>,
    /// [n, weights.rows], where n is the rows of the activations.
    pub out: Shared<'a, f32>,
}

/// Whether weights of this type can be multiplied with at all.
pub(crate) fn is_supported(kind: GgmlDType) -> bool {
    layout(kind).is_some() || is_float(kind)
}

/// Whether weights of this type are multiplied with activations as they are, not with quantized ones.
pub(crate) fn is_float(kind: GgmlDType) -> bool {
    matches!(kind, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16)
}

/// Multiplies float weights with `values`, [n, cols].
pub(crate) fn multiply_floats(pool: &Pool, cpu: Cpu, products: &[Product<'_>], values: &[f32]) {
    each_range(pool, products, |product, range| {
        let weights = product.weights;
        let mut row = vec![0.0; weights.cols];
        let stride = weights.bytes.len() / weights.rows;
        for at in range {
            widen(weights.kind, &weights.bytes[at * stride..][..stride], &mut row);
            for (n, tile) in values.chunks(weights.cols * TILE).enumerate() {
                let sums = dot_floats(cpu, &row, tile);
                for (lane, sum) in sums.into_iter().take(tile.len() / weights.cols).enumerate() {
                    put(product, n * TILE + lane, at, sum);
                }
            }
        }
    });
}

/// Multiplies quantized weights with `activations`.
pub(crate) fn multiply_quantized(pool: &Pool, cpu: Cpu, products: &[Product<'_>], activations: &Rows) {
    each_range(pool, products, |product, range| {
        let weights = product.weights;
        let layout = layout(weights.kind).expect("`Weights` of a quantized type");
        let mut rows: Vec<Row> = (0..AHEAD).map(|_| Row::new(layout, weights.cols)).collect();
        let stride = weights.bytes.len() / weights.rows;
        for first in range.clone().step_by(AHEAD) {
            let numbers = first..range.end.min(first + AHEAD);
            for (row, at) in rows.iter_mut().zip(numbers.clone()) {
                row.fill(weights.kind, &weights.bytes[at * stride..][..stride]);
            }
            for tile in activations.tiles() {
                for (row, at) in rows.iter().zip(numbers.clone()) {
                    let sums = dot_tile(cpu, row, activations, tile.clone());
                    for (n, sum) in tile.clone().zip(sums) {
                        put(product, n, at, sum);
                    }
                }
            }
        }
    });
}

/// Hands out ranges of the rows of all `products` as one pool of work.
fn each_range(
    pool: &Pool,
    products: &[Product<'_>],
    work: impl Fn(&Product<'_>, Range<usize>) + Sync + Send,
) {
    let total = products.iter().map(|product| product.weights.rows).sum();
    pool.split(total, GRAIN, |range| {
        let mut first = 0;
        for product in products {
            let end = first + product.weights.rows;
            let mine = range.start.max(first)..range.end.min(end);
            if !mine.is_empty() {
                work(product, mine.start - first..mine.end - first);
            }
            first = end;
        }
    });
}

fn put(product: &Product<'_>, n: usize, row: usize, value: f32) {
    let at = n * product.weights.rows + row;
    // SAFETY: `each_range` hands every weight row to one piece of work, and element (n, row) belongs to `row`.
    unsafe { product.out.part(at..at + 1)[0] = value };
}

tiered! {
    /// `row` times up to [`TILE`] rows of values.
    fn dot_floats(row: &[f32], values: &[f32]) -> [f32; TILE] = dot_floats_body
}

#[inline(always)]
fn dot_floats_body(row: &[f32], values: &[f32]) -> [f32; TILE] {
    let mut sums = [0.0; TILE];
    for (sum, values) in sums.iter_mut().zip(values.chunks_exact(row.len())) {
        *sum = float::dot(row, values);
    }
    sums
}

/// `row` times the activations of one tile.
fn dot_tile(cpu: Cpu, row: &Row, activations: &Rows, tile: Range<usize>) -> [f32; TILE] {
    let (blocks, groups) = (activations.cols / BLOCK, row.scales.len());
    let (codes, scales) = (activations.codes.as_chunks().0, &activations.scales);
    let part = tile.start * blocks..tile.end * blocks;
    let operands = Operands {
        weights: row.codes.as_chunks().0,
        weight_scales: &row.scales,
        codes: &codes[part.clone()],
        scales: &scales[part.clone()],
    };
    let mut sums = match tile.len() {
        1 => widen_tile(dot::<1>(cpu, operands)),
        2 => widen_tile(dot::<2>(cpu, operands)),
        3 => widen_tile(dot::<3>(cpu, operands)),
        _ => dot::<TILE>(cpu, operands),
    };
    if !row.minimums.is_empty() {
        let of_groups = if groups == blocks { &activations.block_sums } else { &activations.group_sums };
        let of_groups = &of_groups[tile.start * groups..tile.end * groups];
        for (sum, minimum) in sums.iter_mut().zip(dot_floats(cpu, &row.minimums, of_groups)) {
            *sum += minimum;
        }
    }
    sums
}

fn widen_tile<const ROWS: usize>(sums: [f32; ROWS]) -> [f32; TILE] {
    std::array::from_fn(|row| sums.get(row).copied().unwrap_or(0.0))
}

/// One row of weights and a tile of activations, in blocks.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub weights: &'a [[i8; BLOCK]],
    /// One per block, or one per group.
    pub weight_scales: &'a [f32],
    /// [blocks, rows of the tile].
    pub codes: &'a [[i8; BLOCK]],
    /// [blocks, rows of the tile].
    pub scales: &'a [f32],
}

/// The sums that a row keeps apart until its end: four products go into each per block.
pub(super) const LANES: usize = 8;

fn dot<const ROWS: usize>(cpu: Cpu, operands: Operands<'_>) -> [f32; ROWS] {
    let sums = match operands.weight_scales.len() == operands.weights.len() {
        true => dot_groups::<ROWS, 1>(cpu, operands),
        false => dot_groups::<ROWS, { BLOCK / GROUP }>(cpu, operands),
    };
    sums.map(|lanes| {
        let halves: [f32; 4] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 4]);
        (halves[0] + halves[2]) + (halves[1] + halves[3])
    })
}

/// With `GROUPS` scales per block of weights.
fn dot_groups<const ROWS: usize, const GROUPS: usize>(
    cpu: Cpu,
    operands: Operands<'_>,
) -> [[f32; LANES]; ROWS] {
    match cpu.tier() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Cpu` exists only for a tier that this processor has.
        Tier::Avx512 => unsafe { super::x86::dot_avx512::<ROWS, GROUPS>(operands) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Tier::Avx2 => unsafe { super::x86::dot_avx2::<ROWS, GROUPS>(operands) },
        _ => dot_scalar::<ROWS, GROUPS>(operands),
    }
}

/// The twin that the vector kernels are checked against, and what other processors run.
fn dot_scalar<const ROWS: usize, const GROUPS: usize>(operands: Operands<'_>) -> [[f32; LANES]; ROWS] {
    let mut sums = [[0f32; LANES]; ROWS];
    for (weights, weight_scales, codes, scales) in operands.blocks::<ROWS, GROUPS>() {
        for ((sums, codes), scale) in sums.iter_mut().zip(codes).zip(scales) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let quad = 4 * lane..4 * lane + 4;
                let products = weights[quad.clone()].iter().zip(&codes[quad]);
                let integer: i32 = products.map(|(&weight, &code)| i32::from(weight) * i32::from(code)).sum();
                *sum += integer as f32 * (weight_scales[lane * GROUPS / LANES] * scale);
            }
        }
    }
    sums
}

/// A block of weights and its scales; the same block of each row of a tile and its scale.
type Block<'a, const ROWS: usize, const GROUPS: usize> =
    (&'a [i8; BLOCK], &'a [f32; GROUPS], &'a [[i8; BLOCK]; ROWS], &'a [f32; ROWS]);

impl<'a> Operands<'a> {
    #[inline(always)]
    pub fn blocks<const ROWS: usize, const GROUPS: usize>(
        self,
    ) -> impl Iterator<Item = Block<'a, ROWS, GROUPS>> {
        let weights = self.weights.iter().zip(self.weight_scales.as_chunks().0);
        let tiles = self.codes.as_chunks().0.iter().zip(self.scales.as_chunks().0);
        weights
            .zip(tiles)
            .map(|((weights, weight_scales), (codes, scales))| (weights, weight_scales, codes, scales))
    }
}

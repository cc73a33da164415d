//! Activations as bytes: what the quantized matrix products multiply with.

use std::ops::Range;

use super::{Cpu, tier::tiered};
use crate::pool::{Pool, Shared};

/// Values that share one scale. llama.cpp takes 32 beside 32-value weight blocks and 256 beside k-quants; 32 for
/// both costs nothing here and is never less exact.
pub(crate) const BLOCK: usize = 32;
/// Values that share one sum: the smallest group for which a weight type has a minimum of its own.
pub(crate) const GROUP: usize = 16;
/// Rows that a kernel handles together. They lie interleaved by block, so that it walks memory in one direction.
pub(crate) const TILE: usize = 4;

/// Rows of activations, quantized: value `i` of a row is `codes[i] * scales[i / BLOCK]`.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub rows: usize,
    pub cols: usize,
    /// [tiles, cols / BLOCK, rows of the tile, BLOCK].
    pub codes: Vec<i8>,
    /// [tiles, cols / BLOCK, rows of the tile].
    pub scales: Vec<f32>,
    /// Scale times the sum of the codes of a block. [rows, cols / BLOCK].
    pub block_sums: Vec<f32>,
    /// The same of a group. [rows, cols / GROUP].
    pub group_sums: Vec<f32>,
}

// === impl Rows ===

impl Rows {
    /// Quantizes `values`, [rows, cols], in place of what was here before. `cols` is a multiple of [`BLOCK`].
    ///
    /// A row with a value that is not finite gets scales that are NaN, so that it poisons its results and is found.
    pub fn quantize(&mut self, pool: &Pool, cpu: Cpu, values: &[f32], cols: usize) {
        assert!(cols.is_multiple_of(BLOCK), "{cols} columns are no whole number of blocks");
        let rows = values.len() / cols;
        (self.rows, self.cols) = (rows, cols);
        self.codes.resize(values.len(), 0);
        self.scales.resize(values.len() / BLOCK, 0.0);
        self.block_sums.resize(values.len() / BLOCK, 0.0);
        self.group_sums.resize(values.len() / GROUP, 0.0);
        let codes = Shared::new(&mut self.codes);
        let scales = Shared::new(&mut self.scales);
        let block_sums = Shared::new(&mut self.block_sums);
        let group_sums = Shared::new(&mut self.group_sums);
        pool.split(rows.div_ceil(TILE), 2, |tiles| {
            for first in tiles.map(|tile| tile * TILE) {
                let tile = first..rows.min(first + TILE);
                let part = |unit: usize| tile.start * cols / unit..tile.end * cols / unit;
                // SAFETY: tiles are ranges of rows that do not overlap, and so are their parts.
                let tile = unsafe {
                    Tile {
                        rows: tile.len(),
                        values: &values[part(1)],
                        codes: codes.part(part(1)),
                        scales: scales.part(part(BLOCK)),
                        block_sums: block_sums.part(part(BLOCK)),
                        group_sums: group_sums.part(part(GROUP)),
                    }
                };
                quantize_tile(cpu, tile);
            }
        });
    }

    /// The tiles: which rows each holds.
    pub fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let rows = self.rows;
        (0..rows).step_by(TILE).map(move |first| first..rows.min(first + TILE))
    }
}

/// The parts of [`Rows`] that belong to one tile, and the values to put there.
struct Tile<'a> {
    rows: usize,
    /// [rows, cols].
    values: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    block_sums: &'a mut [f32],
    group_sums: &'a mut [f32],
}

tiered! {
    fn quantize_tile(tile: Tile<'_>) = tile_body
}

#[inline(always)]
fn tile_body(tile: Tile<'_>) {
    let (values, codes) = (tile.values.as_chunks::<BLOCK>().0, tile.codes.as_chunks_mut::<BLOCK>().0);
    let group_sums = tile.group_sums.as_chunks_mut::<{ BLOCK / GROUP }>().0;
    let per_row = values.len() / tile.rows;
    for row in 0..tile.rows {
        for block in 0..per_row {
            let from = row * per_row + block;
            let to = block * tile.rows + row;
            let (scale, sums) = quantize_block(&values[from], &mut codes[to]);
            tile.scales[to] = scale;
            tile.block_sums[from] = sums[0].wrapping_add(sums[1]) as f32 * scale;
            group_sums[from] = sums.map(|sum| sum as f32 * scale);
        }
    }
}

/// Symmetric, nearest, ties to even. Returns the scale and the sums of the codes of each group.
#[inline(always)]
fn quantize_block(values: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> (f32, [i32; BLOCK / GROUP]) {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    let mut largest = 0f32;
    // 0 times a value is 0 if the value is finite and NaN if not: `max` alone would lose a NaN.
    let mut poison = 0f32;
    for value in values {
        largest = if value.abs() > largest { value.abs() } else { largest };
        poison += value * 0.0;
    }
    let scale = largest / 127.0 + poison;
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut integers = [0i32; BLOCK];
    for (integer, value) in integers.iter_mut().zip(values) {
        *integer = ((value * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    }
    for (code, integer) in codes.iter_mut().zip(integers) {
        *code = integer as i8;
    }
    let mut sums = [0; BLOCK / GROUP];
    for (sum, group) in sums.iter_mut().zip(integers.as_chunks::<GROUP>().0) {
        // Wraps by name only, so that a test build has no checks in here.
        *sum = group.iter().fold(0i32, |sum, &integer| sum.wrapping_add(integer));
    }
    (scale, sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Tier;

    fn quantized(values: &[f32], cols: usize) -> Rows {
        let mut rows = Rows::default();
        rows.quantize(&Pool::new(1).unwrap(), Cpu::new(Tier::Scalar).unwrap(), values, cols);
        rows
    }

    /// The value at (row, column), from the interleaved tiles.
    fn value(rows: &Rows, row: usize, column: usize) -> f32 {
        let tile = rows.tiles().find(|tile| tile.contains(&row)).unwrap();
        let at = tile.start * rows.cols / BLOCK + column / BLOCK * tile.len() + row - tile.start;
        f32::from(rows.codes[at * BLOCK + column % BLOCK]) * rows.scales[at]
    }

    #[test]
    fn a_value_comes_back_within_half_a_step() {
        let (rows, cols) = (7, 96);
        let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.1).collect();
        let quantized = quantized(&values, cols);
        for row in 0..rows {
            for column in 0..cols {
                let error = (value(&quantized, row, column) - values[row * cols + column]).abs();
                assert!(error <= 5.0 / 127.0 / 2.0 + 1e-6, "({row}, {column}) is off by {error}");
            }
        }
        let sum: f32 = (0..GROUP).map(|column| value(&quantized, 5, 64 + column)).sum();
        assert!((quantized.group_sums[5 * cols / GROUP + 64 / GROUP] - sum).abs() < 1e-4);
        let groups = &quantized.group_sums[5 * cols / GROUP + 64 / GROUP..][..2];
        assert!((quantized.block_sums[5 * cols / BLOCK + 64 / BLOCK] - groups[0] - groups[1]).abs() < 1e-4);
    }

    #[test]
    fn zeros_stay_zero_and_what_is_not_finite_poisons_its_block() {
        let zeros = quantized(&[0.0; 64], 32);
        assert!(
            zeros.scales.iter().chain(&zeros.block_sums).chain(&zeros.group_sums).all(|&value| value == 0.0)
        );
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = [1.0; 64];
            values[40] = bad;
            let quantized = quantized(&values, 64);
            assert!(quantized.scales[0].is_finite() && quantized.scales[1].is_nan());
        }
    }
}

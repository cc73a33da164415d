//! Matrix products: packed weights times rows of activations.
//!
//! Work is split over the tiles of all the matrices that take the same rows. A tile meets every row of the batch while
//! it is near, so a weight is read from memory once per step, however many sequences take part.

use std::ops::Range;

use super::{
    Cpu,
    lanes::TILE,
    layout::{Format, with_format},
    packed::{Form, Packed},
    rows::{Bytes, GROUP, Group, Rows},
    tier::tiered_lanes,
    tile::{self, Out},
};
use crate::pool::{Pool, Shared};

/// Tiles that take a group of rows one after another while it is in the nearest cache.
const NEAR: usize = 4;

/// Bytes in front of where the first group reads that memory is asked for.
const FAR: usize = 16 << 10;

/// What to multiply, and where the result goes.
pub(crate) struct Product<'a> {
    pub weights: &'a Packed,
    /// One for each row of the weights.
    pub bias: Option<&'a [f32]>,
    /// [n, weights.rows], where n is the rows of the activations.
    pub out: Shared<'a, f32>,
}

/// Multiplies each of the weights with `rows`, which are there in the form that the weights ask for.
pub(crate) fn multiply((pool, cpu): (&Pool, Cpu), products: &[Product<'_>], rows: &Rows) {
    let total = products.iter().map(|product| product.weights.tiles()).sum();
    pool.split(total, 1, |_, range| {
        let mut first = 0;
        for product in products {
            let end = first + product.weights.tiles();
            let mine = range.start.max(first)..range.end.min(end);
            if !mine.is_empty() {
                multiply_tiles(cpu, product, mine.start - first..mine.end - first, rows);
            }
            first = end;
        }
    });
}

fn multiply_tiles(cpu: Cpu, product: &Product<'_>, tiles: Range<usize>, rows: &Rows) {
    assert_eq!(product.weights.cols(), rows.cols, "activations do not fit the weights");
    let mut out = [[0.0; TILE]; GROUP];
    for near in tiles.clone().step_by(NEAR) {
        for (at, group) in Group::all(rows.rows).enumerate() {
            // The second group finds these tiles near: meanwhile memory can bring those that come after them.
            let far = if at == 1 { NEAR * product.weights.tile(0).len() } else { FAR };
            for tile in near..tiles.end.min(near + NEAR) {
                multiply_tile((cpu, far), product.weights, tile, (rows, group), &mut out);
                put(product, tile, group, &out);
            }
        }
    }
}

fn multiply_tile(
    (cpu, far): (Cpu, usize),
    weights: &Packed,
    tile: usize,
    (rows, group): (&Rows, Group),
    out: &mut Out,
) {
    let tile = weights.tile(tile);
    // SAFETY: tile and group have the same columns, and are in the form that the weights were packed in.
    unsafe {
        match weights.form() {
            Form::Quantized(kind) => {
                let rows = rows.bytes(group);
                with_format!(kind, F => match group.width {
                    1 => quantized::<F, 1>(cpu, tile, rows, far, out),
                    2 => quantized::<F, 2>(cpu, tile, rows, far, out),
                    4 => quantized::<F, 4>(cpu, tile, rows, far, out),
                    _ => quantized::<F, 8>(cpu, tile, rows, far, out),
                });
            }
            Form::Pairs => {
                let rows = rows.pairs(group);
                match group.width {
                    1 => pairs::<1>(cpu, tile, rows, out),
                    2 => pairs::<2>(cpu, tile, rows, out),
                    4 => pairs::<4>(cpu, tile, rows, out),
                    _ => pairs::<8>(cpu, tile, rows, out),
                }
            }
            Form::Singles => {
                let rows = rows.singles(group);
                match group.width {
                    1 => singles::<1>(cpu, tile, rows, out),
                    2 => singles::<2>(cpu, tile, rows, out),
                    4 => singles::<4>(cpu, tile, rows, out),
                    _ => singles::<8>(cpu, tile, rows, out),
                }
            }
        }
    }
}

/// Writes what a tile gave for a group of rows.
fn put(product: &Product<'_>, tile: usize, group: Group, out: &Out) {
    let columns = product.weights.rows();
    let mine = tile * TILE..columns.min((tile + 1) * TILE);
    for (row, out) in out.iter().enumerate().take(group.len) {
        let start = (group.first + row) * columns;
        // SAFETY: every tile is in one piece of work, and these are its columns of one row.
        let to = unsafe { product.out.part(start + mine.start..start + mine.end) };
        match product.bias {
            // A copy of a known length is two moves, any other is a call.
            None => match to.as_mut_array() {
                Some(to) => *to = *out,
                None => to.copy_from_slice(&out[..mine.len()]),
            },
            Some(bias) => {
                let biased = out.iter().zip(&bias[mine.clone()]).map(|(value, bias)| value + bias);
                to.iter_mut().zip(biased).for_each(|(to, value)| *to = value);
            }
        }
    }
}

tiered_lanes! {
    unsafe fn quantized[F: Format, const STRIDE: usize][F, STRIDE](
        tile: &[u8], rows: Bytes<'_>, far: usize, out: &mut Out,
    ) = tile::quantized
}

tiered_lanes! {
    unsafe fn other_pairs[const STRIDE: usize][STRIDE](tile: &[u8], pairs: &[u32], out: &mut Out) = tile::pairs
}

/// # Safety
/// As [`tile::pairs`], except that the instructions are there.
unsafe fn pairs<const STRIDE: usize>(cpu: Cpu, tile: &[u8], pairs: &[u32], out: &mut Out) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::lanes::x86::Avx512Bf16;
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
        unsafe fn bf16<const STRIDE: usize>(tile: &[u8], pairs: &[u32], out: &mut Out) {
            // SAFETY: the caller's promise.
            unsafe { tile::pairs::<Avx512Bf16, STRIDE>(tile, pairs, out) }
        }
        if cpu.tier() == crate::Tier::Avx512Bf16 {
            // SAFETY: a `Cpu` exists only for a tier that this processor has; the rest is the caller's promise.
            return unsafe { bf16::<STRIDE>(tile, pairs, out) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { other_pairs::<STRIDE>(cpu, tile, pairs, out) }
}

tiered_lanes! {
    unsafe fn singles[const STRIDE: usize][STRIDE](tile: &[u8], values: &[f32], out: &mut Out) = tile::singles
}

//! The inner loops: a tile of weights times some rows of activations.
//!
//! Everything here must end up in the function that has the instructions, or each of them becomes a call. So there are
//! no closures, loops run over indices, and what has to be constant is.

#![expect(clippy::needless_range_loop, reason = "an iterator is a call that may not get the instructions")]

use super::{
    lanes::{Lanes, TILE},
    layout::{BLOCK, BLOCKS, Field, Format, Layout, PLANE, QUAD, QUADS},
    rows::{Bytes, GROUP},
};

/// A result: of each row of activations, its product with each column of the tile.
pub(super) type Out = [[f32; TILE]; GROUP];

/// Bytes in front of where a kernel reads that it wants in the nearest cache: about what arrives while it works on the
/// rest.
const AHEAD: usize = 4096;

/// With so many rows a kernel is busy while memory brings more, so it asks for more in time: into the second cache,
/// because the nearest one waits for a few lines at once only.
const BUSY: usize = 4;

/// `far` is how many bytes in front of where it reads a busy kernel asks memory for more.
///
/// # Safety
/// The processor has the instructions of `L`. `tile` is one of format `F` for the columns of `rows`,
/// which are those of a group of `STRIDE`.
#[inline(always)]
pub(super) unsafe fn quantized<L: Lanes, F: Format, const STRIDE: usize>(
    tile: &[u8],
    rows: Bytes<'_>,
    far: usize,
    out: &mut Out,
) {
    for column in (0..TILE).step_by(L::COLUMNS) {
        // SAFETY: the caller's promise; each call takes other rows of the group.
        unsafe {
            match (L::MAX_ROWS, STRIDE) {
                (8, 8) => some::<L, F, 8, STRIDE>(tile, rows, (0, column, far), out),
                (4.., 8) => {
                    some::<L, F, 4, STRIDE>(tile, rows, (0, column, far), out);
                    some::<L, F, 4, STRIDE>(tile, rows, (4, column, far), out);
                }
                (4.., 4) => some::<L, F, 4, STRIDE>(tile, rows, (0, column, far), out),
                (4.., 2) => some::<L, F, 2, STRIDE>(tile, rows, (0, column, far), out),
                _ => {
                    for row in 0..STRIDE {
                        some::<L, F, 1, STRIDE>(tile, rows, (row, column, far), out);
                    }
                }
            }
        }
    }
}

/// `ROWS` rows from `first` on, and the columns of a register from `column` on.
///
/// # Safety
/// As [`quantized`]; `first + ROWS` is at most `STRIDE`, `column + L::COLUMNS` at most [`TILE`].
#[inline(always)]
unsafe fn some<L: Lanes, F: Format, const ROWS: usize, const STRIDE: usize>(
    tile: &[u8],
    rows: Bytes<'_>,
    (first, column, far): (usize, usize, usize),
    out: &mut Out,
) {
    let layout = F::LAYOUT;
    // SAFETY: every pointer below is that of an element of a tile or of the rows, by the caller's promise.
    unsafe {
        let mut sums = [L::splat(0.0); ROWS];
        let mut chunk = tile.as_ptr();
        let mut block = 0;
        while block < rows.cols / BLOCK {
            let end = (rows.cols / BLOCK).min(block + BLOCKS);
            let mut scales = chunk;
            let mut codes = chunk.add(layout.chunk_scale_bytes(end - block));
            prefetch::<ROWS>(scales, layout.chunk_scale_bytes(BLOCKS), (column, far));
            while block < end {
                let halves = Halves::<L>::load::<F>(scales.add(2 * column));
                for within in 0..layout.unit / BLOCK {
                    prefetch::<ROWS>(codes, layout.code_bytes(), (column, far));
                    let place = Place { block, first, codes: codes.add(column * QUAD) };
                    if layout.group == BLOCK {
                        let scale = halves.of_group::<F>(scales.add(column), within);
                        add_group::<L, F, ROWS, STRIDE, 0>(rows, place, scale, &mut sums);
                    } else {
                        let scale = halves.of_group::<F>(scales.add(column), 2 * within);
                        add_group::<L, F, ROWS, STRIDE, 0>(rows, place, scale, &mut sums);
                        let scale = halves.of_group::<F>(scales.add(column), 2 * within + 1);
                        add_group::<L, F, ROWS, STRIDE, 1>(rows, place, scale, &mut sums);
                    }
                    codes = codes.add(layout.code_bytes());
                    block += 1;
                }
                scales = scales.add(layout.scale_bytes());
            }
            chunk = codes;
        }
        for row in 0..ROWS {
            L::store(sums[row], out[first + row].as_mut_ptr().add(column));
        }
    }
}

/// Where in a tile and in the rows a kernel is.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    first: usize,
    /// Those of the block, from the first column on.
    codes: *const u8,
}

/// The half-precision scale and minimum of a unit for each column.
struct Halves<L: Lanes> {
    scale: L::Floats,
    minimum: L::Floats,
}

impl<L: Lanes> Halves<L> {
    #[inline(always)]
    unsafe fn load<F: Format>(halves: *const u8) -> Halves<L> {
        // SAFETY: the scales of a unit begin with these.
        unsafe {
            let scale = L::halves(halves.cast());
            let minimum =
                if F::LAYOUT.has_minimums { L::halves(halves.add(Layout::HALVES).cast()) } else { scale };
            Halves { scale, minimum }
        }
    }

    /// Scale and minimum of a group; `scales` are those of the unit, moved on to the first column.
    #[inline(always)]
    unsafe fn of_group<F: Format>(&self, scales: *const u8, group: usize) -> [L::Floats; 2] {
        let layout = F::LAYOUT;
        if !layout.has_byte_scales() {
            return [self.scale, self.minimum];
        }
        // SAFETY: `group` is one of the unit's.
        unsafe {
            let bytes = scales.add(layout.byte_scales(0, group));
            let scale = if layout.has_signed_scales { L::signed(bytes) } else { L::unsigned(bytes) };
            let scale = L::mul(self.scale, scale);
            if !layout.has_minimums {
                return [scale, scale];
            }
            [scale, L::mul(self.minimum, L::unsigned(scales.add(layout.byte_scales(1, group))))]
        }
    }
}

/// Adds the products of one group of weights: of a block, or of its half `HALF`.
#[inline(always)]
unsafe fn add_group<L: Lanes, F: Format, const ROWS: usize, const STRIDE: usize, const HALF: usize>(
    rows: Bytes<'_>,
    place: Place,
    [scale, minimum]: [L::Floats; 2],
    sums: &mut [L::Floats; ROWS],
) {
    let layout = F::LAYOUT;
    let Place { block, first, .. } = place;
    let is_whole = layout.group == BLOCK;
    let of_group = if is_whole { block } else { 2 * block + HALF } * STRIDE + first;
    // SAFETY: the block is one of the tile's and the rows are the group's, by the caller's promise.
    unsafe {
        let minus_sums = if is_whole { rows.minus_sums } else { rows.minus_half_sums };
        let mut integers = [L::splat_sums(0); ROWS];
        if let Some(shift) = layout.zero
            && (layout.bits < 8 || !L::IS_CENTRED)
        {
            for row in 0..ROWS {
                integers[row] = L::left_sums(L::splat_sums(*minus_sums.get_unchecked(of_group + row)), shift);
            }
        }
        if HALF == 0 {
            add_quad::<L, F, ROWS, STRIDE, 0>(rows, place, &mut integers);
            add_quad::<L, F, ROWS, STRIDE, 1>(rows, place, &mut integers);
            add_quad::<L, F, ROWS, STRIDE, 2>(rows, place, &mut integers);
            add_quad::<L, F, ROWS, STRIDE, 3>(rows, place, &mut integers);
        }
        if HALF == 1 || is_whole {
            add_quad::<L, F, ROWS, STRIDE, 4>(rows, place, &mut integers);
            add_quad::<L, F, ROWS, STRIDE, 5>(rows, place, &mut integers);
            add_quad::<L, F, ROWS, STRIDE, 6>(rows, place, &mut integers);
            add_quad::<L, F, ROWS, STRIDE, 7>(rows, place, &mut integers);
        }
        for row in 0..ROWS {
            let step = *rows.scales.get_unchecked(block * STRIDE + first + row);
            sums[row] = L::fused(L::to_floats(integers[row]), L::mul(scale, L::splat(step)), sums[row]);
            if layout.has_minimums {
                let sum = if is_whole {
                    *rows.weighted_sums.get_unchecked(of_group + row)
                } else {
                    step * -*minus_sums.get_unchecked(of_group + row) as f32
                };
                sums[row] = L::fused(minimum, L::splat(sum), sums[row]);
            }
        }
    }
}

/// Adds the products of quad `Q` of a block.
#[inline(always)]
unsafe fn add_quad<L: Lanes, F: Format, const ROWS: usize, const STRIDE: usize, const Q: usize>(
    rows: Bytes<'_>,
    place: Place,
    integers: &mut [L::Sums; ROWS],
) {
    // SAFETY: as in `add_group`; every field lies in the planes of the block.
    unsafe {
        let (first, second) = const { F::LAYOUT.fields(Q) };
        let mut weights = field::<L>(place.codes, first);
        if let Some(second) = second {
            weights = L::or(weights, field::<L>(place.codes, second));
        }
        let start = (place.block * QUADS + Q) * STRIDE + place.first;
        for row in 0..ROWS {
            let activations = *rows.codes.get_unchecked(start + row);
            integers[row] = if F::LAYOUT.bits < 8 {
                L::dot(integers[row], weights, activations)
            } else {
                L::dot_wide(integers[row], weights, activations)
            };
        }
    }
}

#[inline(always)]
unsafe fn field<L: Lanes>(codes: *const u8, field: Field) -> L::Codes {
    // SAFETY: the caller's promise.
    unsafe {
        let mut bits = L::codes(codes.add(field.plane));
        if field.right > 0 {
            bits = L::right(bits, field.right);
        }
        if field.mask < u8::MAX {
            bits = L::and(bits, L::splat_codes(field.mask));
        }
        if field.left > 0 { L::left(bits, field.left) } else { bits }
    }
}

/// Asks memory for the codes that come some time later. Only a hint: it may point behind the end.
#[inline(always)]
fn prefetch<const ROWS: usize>(codes: *const u8, bytes: usize, (column, far): (usize, usize)) {
    #[cfg(target_arch = "x86_64")]
    if column == 0 {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        for line in (0..bytes).step_by(PLANE) {
            // SAFETY: a prefetch reads nothing that a program could see, wherever it points.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(AHEAD + line).cast());
                if ROWS >= BUSY {
                    _mm_prefetch::<_MM_HINT_T1>(codes.wrapping_add(far + line).cast());
                }
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (codes, bytes, column, far);
}

/// A tile of bfloat pairs times a group of `STRIDE` rows, `pairs`: [cols / 2, STRIDE].
///
/// # Safety
/// The processor has the instructions of `L`; `tile` has as many planes as `pairs` has rows of `STRIDE`.
#[inline(always)]
pub(super) unsafe fn pairs<L: Lanes, const STRIDE: usize>(tile: &[u8], pairs: &[u32], out: &mut Out) {
    for column in (0..TILE).step_by(L::COLUMNS) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [L::splat(0.0); STRIDE];
            for at in 0..pairs.len() / STRIDE {
                let plane = tile.as_ptr().add(at * PLANE + column * QUAD);
                prefetch::<1>(plane, PLANE, (column, AHEAD));
                let weights = L::codes(plane);
                for row in 0..STRIDE {
                    sums[row] = L::dot_pair(sums[row], weights, *pairs.get_unchecked(at * STRIDE + row));
                }
            }
            for row in 0..STRIDE {
                L::store(sums[row], out[row].as_mut_ptr().add(column));
            }
        }
    }
}

/// A tile of floats times a group of `STRIDE` rows, `values`: [cols, STRIDE].
///
/// # Safety
/// As [`pairs`].
#[inline(always)]
pub(super) unsafe fn singles<L: Lanes, const STRIDE: usize>(tile: &[u8], values: &[f32], out: &mut Out) {
    for column in (0..TILE).step_by(L::COLUMNS) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [L::splat(0.0); STRIDE];
            for at in 0..values.len() / STRIDE {
                let weights = L::load(tile.as_ptr().add(at * PLANE + column * QUAD).cast());
                for row in 0..STRIDE {
                    let value = L::splat(*values.get_unchecked(at * STRIDE + row));
                    sums[row] = L::fused(weights, value, sums[row]);
                }
            }
            for row in 0..STRIDE {
                L::store(sums[row], out[row].as_mut_ptr().add(column));
            }
        }
    }
}

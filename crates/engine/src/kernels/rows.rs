//! Rows of activations as the kernels read them: in groups, interleaved, and in as many forms as the weights ask for.
//!
//! A group is up to eight rows that a kernel takes at once. Within it the same columns of all rows lie beside each
//! other, so that a kernel walks memory in one direction.

use super::{
    Cpu,
    layout::{BLOCK, QUAD, QUADS},
    packed::Form,
    tier::tiered,
};
use crate::pool::{Pool, Shared};

/// Rows of a group at most.
pub(crate) const GROUP: usize = 8;
/// Columns for which a weight type may have a scale of its own.
const HALF: usize = BLOCK / 2;
/// Values below which a thread is not worth waking.
const GRAIN: usize = 16 * 1024;

/// The forms that some weights take activations in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forms {
    bytes: bool,
    pairs: bool,
    singles: bool,
}

/// Rows of activations in some forms. Kept from step to step, so that the memory is used again.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub rows: usize,
    pub cols: usize,
    forms: Forms,
    /// Four columns each, [groups, cols / 4, rows of the group].
    codes: Vec<i32>,
    /// [groups, cols / 32, rows of the group], and so are the sums.
    scales: Vec<f32>,
    minus_sums: Vec<i32>,
    weighted_sums: Vec<f32>,
    /// [groups, cols / 16, rows of the group].
    minus_half_sums: Vec<i32>,
    /// Two columns each, [groups, cols / 2, rows of the group].
    pairs: Vec<u32>,
    /// [groups, cols, rows of the group].
    singles: Vec<f32>,
    /// For each thread.
    scratch: Vec<Scratch>,
}

/// What a thread needs on the way.
#[derive(Debug, Default)]
struct Scratch {
    /// Those of one group as they come: [rows of the group, cols].
    values: Vec<f32>,
    /// The codes of one row: [cols].
    bytes: Vec<u8>,
}

/// A group of rows as bytes. Value `i` of a row is `codes[i] * scales[i / BLOCK]`.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub cols: usize,
    pub codes: &'a [i32],
    pub scales: &'a [f32],
    /// Minus the sum of the codes of a block.
    pub minus_sums: &'a [i32],
    /// The sum of the codes of a block times its scale.
    pub weighted_sums: &'a [f32],
    /// Minus the sum of the codes of half a block.
    pub minus_half_sums: &'a [i32],
}

/// The rows `first..first + len` of a batch, filled up with rows of zeros: one pass over the weights for a few rows
/// too many costs less than a second pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub first: usize,
    pub len: usize,
    /// 1, 2, 4 or 8: what kernels are compiled for.
    pub width: usize,
}

// === impl Forms ===

impl Forms {
    /// These, and what weights of `form` ask for.
    pub fn with(self, form: Form) -> Forms {
        match form {
            Form::Quantized(_) => Forms { bytes: true, ..self },
            Form::Pairs => Forms { pairs: true, ..self },
            Form::Singles => Forms { singles: true, ..self },
        }
    }

    pub fn and(self, other: Forms) -> Forms {
        Forms {
            bytes: self.bytes || other.bytes,
            pairs: self.pairs || other.pairs,
            singles: self.singles || other.singles,
        }
    }
}

// === impl Group ===

impl Group {
    /// The groups of `rows` rows: as many of eight as there are, and one with the rest.
    pub fn all(rows: usize) -> impl Iterator<Item = Group> {
        (0..rows).step_by(GROUP).map(move |first| {
            let len = (rows - first).min(GROUP);
            Group { first, len, width: len.next_power_of_two() }
        })
    }

    /// Rows that the groups of `rows` rows have, those of zeros included.
    fn width_of_all(rows: usize) -> usize {
        Group::all(rows).last().map_or(0, |group| group.first + group.width)
    }
}

// === impl Rows ===

impl Rows {
    /// Makes room for `rows` rows of `cols` values, whose content is then undefined, and fills it in all of `forms`:
    /// `fill` is called once for each row with its number and the row of zeros or old values to write to.
    ///
    /// A row with a value that is not finite gets scales that are NaN, so that it poisons its results and is found.
    pub fn fill(
        &mut self,
        (pool, cpu): (&Pool, Cpu),
        (rows, cols): (usize, usize),
        forms: Forms,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        assert!(!forms.bytes || cols.is_multiple_of(BLOCK), "{cols} columns are no whole number of blocks");
        self.make_room(pool.threads(), (rows, cols), forms);
        let groups: Vec<Group> = Group::all(rows).collect();
        let parts = Parts::of(self);
        pool.split(groups.len(), (GRAIN / cols).div_ceil(GROUP), |thread, range| {
            for &group in &groups[range] {
                // SAFETY: a thread runs one piece at a time, and groups do not overlap.
                let (Scratch { values, bytes }, mut part) =
                    unsafe { (&mut parts.scratch.part(thread..thread + 1)[0], parts.of_group(group)) };
                values.resize(group.width * cols, 0.0);
                bytes.resize(if forms.bytes { cols } else { 0 }, 0);
                part.bytes = bytes;
                for (row, values) in values.chunks_exact_mut(cols).enumerate() {
                    if row < group.len {
                        fill(group.first + row, values);
                    } else {
                        values.fill(0.0);
                    }
                }
                convert(cpu, forms, group.width, values, &mut part);
            }
        });
    }

    fn make_room(&mut self, threads: usize, (rows, cols): (usize, usize), forms: Forms) {
        (self.rows, self.cols, self.forms) = (rows, cols, forms);
        let width = Group::width_of_all(rows);
        let if_needed = |is_needed: bool, len: usize| if is_needed { width * len } else { 0 };
        self.codes.resize(if_needed(forms.bytes, cols / QUAD), 0);
        self.scales.resize(if_needed(forms.bytes, cols / BLOCK), 0.0);
        self.minus_sums.resize(if_needed(forms.bytes, cols / BLOCK), 0);
        self.weighted_sums.resize(if_needed(forms.bytes, cols / BLOCK), 0.0);
        self.minus_half_sums.resize(if_needed(forms.bytes, cols / HALF), 0);
        self.pairs.resize(if_needed(forms.pairs, cols.div_ceil(2)), 0);
        self.singles.resize(if_needed(forms.singles, cols), 0.0);
        self.scratch.resize_with(threads, Scratch::default);
    }

    pub(super) fn bytes(&self, group: Group) -> Bytes<'_> {
        let part = |unit: usize| group.part(self.cols / unit);
        Bytes {
            cols: self.cols,
            codes: &self.codes[part(QUAD)],
            scales: &self.scales[part(BLOCK)],
            minus_sums: &self.minus_sums[part(BLOCK)],
            weighted_sums: &self.weighted_sums[part(BLOCK)],
            minus_half_sums: &self.minus_half_sums[part(HALF)],
        }
    }

    pub(super) fn pairs(&self, group: Group) -> &[u32] {
        &self.pairs[group.part(self.cols.div_ceil(2))]
    }

    pub(super) fn singles(&self, group: Group) -> &[f32] {
        &self.singles[group.part(self.cols)]
    }
}

impl Group {
    /// The elements of its rows in an array that has `len` for each.
    fn part(self, len: usize) -> std::ops::Range<usize> {
        self.first * len..(self.first + self.width) * len
    }
}

/// The arrays of [`Rows`], to be written by several threads.
struct Parts<'a> {
    cols: usize,
    forms: Forms,
    codes: Shared<'a, i32>,
    scales: Shared<'a, f32>,
    minus_sums: Shared<'a, i32>,
    weighted_sums: Shared<'a, f32>,
    minus_half_sums: Shared<'a, i32>,
    pairs: Shared<'a, u32>,
    singles: Shared<'a, f32>,
    scratch: Shared<'a, Scratch>,
}

/// Those of one group; empty where a form is not asked for.
struct Part<'a> {
    codes: &'a mut [i32],
    scales: &'a mut [f32],
    minus_sums: &'a mut [i32],
    weighted_sums: &'a mut [f32],
    minus_half_sums: &'a mut [i32],
    pairs: &'a mut [u32],
    singles: &'a mut [f32],
    /// Of one row, before they go to `codes`.
    bytes: &'a mut [u8],
}

impl<'a> Parts<'a> {
    fn of(rows: &'a mut Rows) -> Parts<'a> {
        Parts {
            cols: rows.cols,
            forms: rows.forms,
            codes: Shared::new(&mut rows.codes),
            scales: Shared::new(&mut rows.scales),
            minus_sums: Shared::new(&mut rows.minus_sums),
            weighted_sums: Shared::new(&mut rows.weighted_sums),
            minus_half_sums: Shared::new(&mut rows.minus_half_sums),
            pairs: Shared::new(&mut rows.pairs),
            singles: Shared::new(&mut rows.singles),
            scratch: Shared::new(&mut rows.scratch),
        }
    }

    /// # Safety
    /// While the part lives, no other call may be made for a row of the group.
    unsafe fn of_group(&self, group: Group) -> Part<'_> {
        let range = |is_needed: bool, len: usize| if is_needed { group.part(len) } else { 0..0 };
        let bytes = |unit: usize| range(self.forms.bytes, self.cols / unit);
        // SAFETY: the caller's promise; the ranges of different rows do not overlap.
        unsafe {
            Part {
                codes: self.codes.part(bytes(QUAD)),
                scales: self.scales.part(bytes(BLOCK)),
                minus_sums: self.minus_sums.part(bytes(BLOCK)),
                weighted_sums: self.weighted_sums.part(bytes(BLOCK)),
                minus_half_sums: self.minus_half_sums.part(bytes(HALF)),
                pairs: self.pairs.part(range(self.forms.pairs, self.cols.div_ceil(2))),
                singles: self.singles.part(range(self.forms.singles, self.cols)),
                bytes: &mut [],
            }
        }
    }
}

/// `values`, [rows, cols], in the forms that are asked for.
fn convert(cpu: Cpu, forms: Forms, rows: usize, values: &[f32], part: &mut Part<'_>) {
    let cols = values.len() / rows;
    for (row, values) in values.chunks_exact(cols).enumerate() {
        if forms.bytes {
            quantize(cpu, values, (row, rows), part);
        }
        if forms.pairs {
            round(cpu, values, (row, rows), part.pairs);
        }
        if forms.singles {
            for (value, out) in values.iter().zip(part.singles.chunks_exact_mut(rows)) {
                out[row] = *value;
            }
        }
    }
}

tiered! {
    fn quantize(values: &[f32], place: (usize, usize), part: &mut Part<'_>) = quantize_body
}

// First all bytes, then where they belong: a loop that does both becomes scalar code, one that does either vectors.
#[inline(always)]
fn quantize_body(values: &[f32], (row, rows): (usize, usize), part: &mut Part<'_>) {
    let blocks = values.as_chunks::<BLOCK>().0;
    for (block, (values, bytes)) in blocks.iter().zip(part.bytes.as_chunks_mut::<BLOCK>().0).enumerate() {
        part.scales[block * rows + row] = quantize_block(values, bytes);
    }
    for (block, bytes) in part.bytes.as_chunks::<BLOCK>().0.iter().enumerate() {
        let codes = &mut part.codes[block * QUADS * rows..][..QUADS * rows];
        for (quad, codes) in bytes.as_chunks::<QUAD>().0.iter().zip(codes.chunks_exact_mut(rows)) {
            codes[row] = i32::from_le_bytes(*quad);
        }
        let mut halves = [0i32; 2];
        for at in 0..HALF {
            // Wraps by name only, so that a test build has no checks in here.
            halves[0] = halves[0].wrapping_add(i32::from(bytes[at] as i8));
            halves[1] = halves[1].wrapping_add(i32::from(bytes[HALF + at] as i8));
        }
        let whole = halves[0] + halves[1];
        let at = block * rows + row;
        part.minus_sums[at] = -whole;
        part.weighted_sums[at] = whole as f32 * part.scales[at];
        part.minus_half_sums[2 * block * rows + row] = -halves[0];
        part.minus_half_sums[(2 * block + 1) * rows + row] = -halves[1];
    }
}

/// Symmetric, nearest, ties to even: `bytes` become the signed codes. Returns the scale, NaN where a value is not finite.
#[inline(always)]
fn quantize_block(values: &[f32; BLOCK], bytes: &mut [u8; BLOCK]) -> f32 {
    // 1.5 * 2^23: adding it leaves the nearest integer in the low bits, of which its own are zero.
    const ROUND: f32 = 12_582_912.0;
    // As whole numbers, floats without their sign are in the same order, infinity and NaN above all others.
    let mut largest = 0u32;
    for value in values {
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
    }
    let largest = if largest < f32::INFINITY.to_bits() { f32::from_bits(largest) } else { f32::NAN };
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = (value * inverse + ROUND).to_bits() as u8;
    }
    largest / 127.0
}

tiered! {
    fn round(values: &[f32], place: (usize, usize), pairs: &mut [u32]) = round_body
}

/// To bfloats, nearest, ties to even; NaN stays NaN.
#[inline(always)]
fn round_body(values: &[f32], (row, rows): (usize, usize), pairs: &mut [u32]) {
    let half = |value: f32| {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if value.is_nan() { 0x7fc0 } else { rounded }
    };
    for (values, pairs) in values.chunks(2).zip(pairs.chunks_exact_mut(rows)) {
        pairs[row] = half(values[0]) | half(values.get(1).copied().unwrap_or(0.0)) << 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Tier;

    fn rows_of(values: &[f32], cols: usize, form: Form) -> Rows {
        let mut rows = Rows::default();
        let (pool, cpu) = (Pool::new(2).unwrap(), Cpu::new(Tier::Scalar).unwrap());
        let fill = |row: usize, out: &mut [f32]| out.copy_from_slice(&values[row * cols..][..cols]);
        rows.fill((&pool, cpu), (values.len() / cols, cols), Forms::default().with(form), fill);
        rows
    }

    const BYTES: Form = Form::Quantized(candle_core::quantized::GgmlDType::Q8_0);

    #[test]
    fn the_groups_cover_the_rows_in_order() {
        for rows in 0..40 {
            let groups: Vec<Group> = Group::all(rows).collect();
            let firsts: Vec<usize> = groups.iter().map(|group| group.first).collect();
            let mut next = 0;
            for group in &groups {
                assert_eq!(group.first, next, "{rows} rows: {firsts:?}");
                next += group.len;
                assert!(group.len <= group.width && [1, 2, 4, 8].contains(&group.width));
            }
            assert_eq!(next, rows);
        }
    }

    #[test]
    fn a_value_comes_back_within_half_a_step() {
        let (count, cols) = (13, 96);
        let values: Vec<f32> = (0..count * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.1).collect();
        let rows = rows_of(&values, cols, BYTES);
        for group in Group::all(count) {
            let bytes = rows.bytes(group);
            for row in 0..group.len {
                let value = |column: usize| {
                    let quad = bytes.codes[column / QUAD * group.width + row].to_le_bytes();
                    f32::from(quad[column % QUAD] as i8) * bytes.scales[column / BLOCK * group.width + row]
                };
                for column in 0..cols {
                    let error = (value(column) - values[(group.first + row) * cols + column]).abs();
                    assert!(error <= 5.0 / 127.0 / 2.0 + 1e-6, "({row}, {column}) is off by {error}");
                }
                let sum: f32 = (32..64).map(value).sum();
                assert!((bytes.weighted_sums[group.width + row] - sum).abs() < 1e-4);
                let halves = [2, 3].map(|half| bytes.minus_half_sums[half * group.width + row]);
                assert_eq!(halves[0] + halves[1], bytes.minus_sums[group.width + row]);
                let half: f32 = (32..48).map(value).sum();
                assert!((half + halves[0] as f32 * bytes.scales[group.width + row]).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn floats_keep_their_place() {
        let values: Vec<f32> = (0..33).map(|i| i as f32).collect();
        let singles = rows_of(&values, 11, Form::Singles);
        let pairs = rows_of(&values, 11, Form::Pairs);
        let group = Group::all(3).next().unwrap();
        for row in 0..3 {
            for column in 0..11 {
                let value = values[(group.first + row) * 11 + column];
                assert_eq!(singles.singles(group)[column * group.width + row], value);
                let pair = pairs.pairs(group)[column / 2 * group.width + row];
                assert_eq!(f32::from_bits(pair >> (column % 2 * 16) << 16), value);
            }
            assert_eq!(pairs.pairs(group)[5 * group.width + row] >> 16, 0, "what is behind the end");
        }
    }

    #[test]
    fn zeros_stay_zero_and_what_is_not_finite_poisons_its_block() {
        let zeros = rows_of(&[0.0; 64], 32, BYTES);
        assert!(zeros.scales.iter().chain(&zeros.weighted_sums).all(|&value| value == 0.0));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = [1.0; 64];
            values[40] = bad;
            let rows = rows_of(&values, 64, BYTES);
            assert!(rows.scales[0].is_finite() && rows.scales[1].is_nan());
            let pairs = rows_of(&values, 64, Form::Pairs);
            let pair = pairs.pairs(Group { first: 0, len: 1, width: 1 })[20];
            assert!(!f32::from_bits(pair << 16).is_finite());
        }
    }
}

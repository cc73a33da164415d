//! A matrix of weights in tiles, as the kernels read it. It is made once, when a model is loaded, and takes the
//! place of what the file had.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::quantized::GgmlDType;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use memmap2::{Advice, MmapMut};

use super::{
    blocks::{Block, unpack},
    lanes::TILE,
    layout::{BLOCK, BLOCKS, Format, Layout, PLANE, QUAD, QUADS, layout, with_format},
};
use crate::pool::{Pool, Shared};

/// Tiles that are packed in one piece of work.
const GRAIN: usize = 4;

/// How weights are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Codes and scales, with activations as bytes.
    Quantized(GgmlDType),
    /// Two bfloats of a row beside each other, with activations as bfloats. Half precision becomes this too: the
    /// range is what a product needs, and eight bits of mantissa are more than a byte of activations has.
    Pairs,
    /// Single precision on both sides.
    Singles,
}

/// `rows` rows of `cols` weights: tiles of [`TILE`] rows, the last one filled up with zeros.
pub(crate) struct Packed {
    form: Form,
    rows: usize,
    cols: usize,
    tile_bytes: usize,
    /// Memory of its own pages: aligned, zero before it is written, and large pages where the system has them.
    tiles: MmapMut,
}

/// Why a matrix can not be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A weight, or the scale of a block, is not a number or not finite.
    NotFinite,
    OutOfMemory {
        needed: u64,
    },
}

// === impl Form ===

impl Form {
    /// What weights of a type become; `None` for a type that no weight may have.
    pub fn of(kind: GgmlDType) -> Option<Form> {
        match kind {
            GgmlDType::F32 => Some(Form::Singles),
            GgmlDType::F16 | GgmlDType::BF16 => Some(Form::Pairs),
            kind => layout(kind).map(|_| Form::Quantized(kind)),
        }
    }

    fn tile_bytes(self, cols: usize) -> usize {
        match self {
            Form::Quantized(kind) => layout(kind).map_or(0, |layout| layout.tile_bytes(cols)),
            Form::Pairs => cols.div_ceil(2) * PLANE,
            Form::Singles => cols * PLANE,
        }
    }

    /// Bytes of a packed matrix.
    pub fn bytes(self, rows: usize, cols: usize) -> usize {
        rows.div_ceil(TILE) * self.tile_bytes(cols)
    }
}

// === impl Packed ===

impl Packed {
    /// From `rows` rows of `cols` weights of a type that has a [`Form`], as a file has them. `cols` is a multiple of the
    /// type's block.
    pub fn pack(
        pool: &Pool,
        kind: GgmlDType,
        bytes: &[u8],
        shape: (usize, usize),
    ) -> Result<Packed, Refusal> {
        let (rows, cols) = shape;
        let form = Form::of(kind).expect("only types with a form are packed");
        let tile_bytes = form.tile_bytes(cols);
        let needed = form.bytes(rows, cols);
        let refusal = |_| Refusal::OutOfMemory { needed: needed as u64 };
        let mut tiles = MmapMut::map_anon(needed).map_err(refusal)?;
        // Fewer, larger pages are only a wish: a system without them does as well.
        #[cfg(target_os = "linux")]
        let _ = tiles.advise(Advice::HugePage);
        let stride = bytes.len() / rows;
        let is_finite = AtomicBool::new(true);
        let shared = Shared::new(&mut tiles);
        pool.split(rows.div_ceil(TILE), GRAIN, |_, range| {
            for at in range {
                let rows = &bytes[at * TILE * stride..rows.min((at + 1) * TILE) * stride];
                // SAFETY: the ranges of one split do not overlap.
                let out = unsafe { shared.part(at * tile_bytes..(at + 1) * tile_bytes) };
                if !pack_tile(kind, rows, stride, out) {
                    is_finite.store(false, Ordering::Relaxed);
                }
            }
        });
        match is_finite.into_inner() {
            true => Ok(Packed { form, rows, cols, tile_bytes, tiles }),
            false => Err(Refusal::NotFinite),
        }
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    pub fn tile(&self, at: usize) -> &[u8] {
        &self.tiles[at * self.tile_bytes..(at + 1) * self.tile_bytes]
    }

    /// Writes the weights of a row to `out`, [cols].
    pub fn widen(&self, row: usize, out: &mut [f32]) {
        let tile = self.tile(row / TILE);
        let column = row % TILE;
        match self.form {
            Form::Quantized(kind) => with_format!(kind, F => widen_quantized::<F>(tile, column, out)),
            Form::Pairs => {
                for (pair, out) in tile.as_chunks::<PLANE>().0.iter().zip(out.chunks_mut(2)) {
                    for (half, out) in out.iter_mut().enumerate() {
                        let at = column * QUAD + 2 * half;
                        *out = bf16::from_le_bytes([pair[at], pair[at + 1]]).to_f32();
                    }
                }
            }
            Form::Singles => {
                for (quad, out) in tile.as_chunks::<PLANE>().0.iter().zip(out) {
                    *out = f32::from_le_bytes(quad.as_chunks().0[column]);
                }
            }
        }
    }
}

/// Packs up to [`TILE`] rows of `stride` bytes; `out` is zero before. False when something is not finite.
fn pack_tile(kind: GgmlDType, rows: &[u8], stride: usize, out: &mut [u8]) -> bool {
    match kind {
        GgmlDType::F32 => pack_floats(rows, stride, (4, 1), out, |bytes, quads, column| {
            let mut poison = 0.0;
            for (value, quad) in bytes.as_chunks::<4>().0.iter().zip(quads) {
                poison += f32::from_le_bytes(*value) * 0.0;
                quad[column] = *value;
            }
            poison == 0.0
        }),
        GgmlDType::F16 => pack_floats(rows, stride, (2, 2), out, |bytes, quads, column| {
            let (mut halves, mut floats) = ([f16::ZERO; PIECE], [0.0; PIECE]);
            let count = bytes.len() / 2;
            for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
                *half = f16::from_le_bytes(*bytes);
            }
            halves[..count].convert_to_f32_slice(&mut floats[..count]);
            put_pairs(&floats[..count], quads, column)
        }),
        GgmlDType::BF16 => pack_floats(rows, stride, (2, 2), out, |bytes, quads, column| {
            let mut floats = [0.0; PIECE];
            for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks().0) {
                *float = bf16::from_le_bytes(*bytes).to_f32();
            }
            put_pairs(&floats[..bytes.len() / 2], quads, column)
        }),
        kind => with_format!(kind, F => {
            let mut is_finite = true;
            for (column, row) in rows.chunks_exact(stride).enumerate() {
                is_finite &= pack_quantized::<F>(column, row, out);
            }
            is_finite
        }),
    }
}

/// Columns of floats that are packed for all rows before the next: what is written stays in the nearest cache.
const PIECE: usize = 256;

/// A plane as what each row has in it.
type Quads = [[u8; QUAD]; TILE];

/// Packs rows of floats of `size` bytes, `per_plane` of them to a plane, piece by piece.
#[inline(always)]
fn pack_floats(
    rows: &[u8],
    stride: usize,
    (size, per_plane): (usize, usize),
    out: &mut [u8],
    pack: impl Fn(&[u8], &mut [Quads], usize) -> bool,
) -> bool {
    let mut is_finite = true;
    let planes = out.as_chunks_mut::<QUAD>().0.as_chunks_mut::<TILE>().0;
    for (at, planes) in planes.chunks_mut(PIECE / per_plane).enumerate() {
        for (column, row) in rows.chunks_exact(stride).enumerate() {
            let bytes = at * PIECE * size..stride.min((at + 1) * PIECE * size);
            is_finite &= pack(&row[bytes], planes, column);
        }
    }
    is_finite
}

/// Rounds to bfloats, nearest, ties to even.
#[inline(always)]
fn put_pairs(values: &[f32], quads: &mut [Quads], column: usize) -> bool {
    let mut poison = 0.0;
    for (values, quad) in values.chunks(2).zip(quads) {
        let second = values.get(1).copied().unwrap_or(0.0);
        let pair = [values[0], second].map(|value| {
            let bits = value.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            poison += f32::from_bits(rounded << 16) * 0.0;
            rounded
        });
        quad[column] = (pair[0] | pair[1] << 16).to_le_bytes();
    }
    poison == 0.0
}

fn pack_quantized<F: Format>(column: usize, row: &[u8], out: &mut [u8]) -> bool {
    const EXPONENT: u16 = 0x7c00;
    let layout = F::LAYOUT;
    let mut block = Block::default();
    let mut is_finite = true;
    let units = row.chunks(F::KIND.type_size() * (Layout::CHUNK / layout.unit));
    for (units, chunk) in units.zip(out.chunks_mut(layout.chunk_bytes(BLOCKS))) {
        let blocks = units.len() / F::KIND.type_size() * layout.unit / BLOCK;
        let (scales, codes) = chunk.split_at_mut(layout.chunk_scale_bytes(blocks));
        let scales = scales.chunks_exact_mut(layout.scale_bytes());
        let codes = codes.chunks_exact_mut(layout.unit / BLOCK * layout.code_bytes());
        for ((unit, scales), codes) in units.chunks_exact(F::KIND.type_size()).zip(scales).zip(codes) {
            unpack(F::KIND, unit, &mut block);
            is_finite &= block.d & EXPONENT != EXPONENT && block.m & EXPONENT != EXPONENT;
            put_scales(layout, &block, column, scales);
            let blocks = block.codes.as_chunks().0.iter();
            for (block, codes) in blocks.zip(codes.chunks_exact_mut(layout.code_bytes())) {
                put_codes(layout, block, column, codes);
            }
        }
    }
    is_finite
}

#[inline(always)]
fn put_scales(layout: Layout, block: &Block, column: usize, out: &mut [u8]) {
    let kinds = [(block.d, &block.scales), (block.m, &block.minimums)];
    for (kind, (half, bytes)) in kinds.into_iter().take(1 + usize::from(layout.has_minimums)).enumerate() {
        out[kind * Layout::HALVES + 2 * column..][..2].copy_from_slice(&half.to_le_bytes());
        if layout.has_byte_scales() {
            for (group, &byte) in bytes.iter().take(layout.groups()).enumerate() {
                out[layout.byte_scales(kind, group) + column] = byte;
            }
        }
    }
}

#[inline(always)]
fn put_codes(layout: Layout, block: &[u8; BLOCK], column: usize, out: &mut [u8]) {
    let words = out.as_chunks_mut::<4>().0;
    for quad in 0..QUADS {
        let codes = u32::from_le_bytes(block.as_chunks().0[quad]);
        let (first, second) = layout.fields(quad);
        for field in [Some(first), second].into_iter().flatten() {
            let word = &mut words[field.plane / 4 + column];
            let mask = u32::from_le_bytes([field.mask; 4]);
            let bits = (codes >> field.left & mask) << field.right;
            *word = (u32::from_le_bytes(*word) | bits).to_le_bytes();
        }
    }
}

fn widen_quantized<F: Format>(tile: &[u8], column: usize, out: &mut [f32]) {
    let layout = F::LAYOUT;
    let zero = layout.zero.map_or(0, |shift| 1 << shift);
    for (out, chunk) in out.chunks_mut(Layout::CHUNK).zip(tile.chunks(layout.chunk_bytes(BLOCKS))) {
        let (scales, codes) = chunk.split_at(layout.chunk_scale_bytes(out.len() / BLOCK));
        for (at, out) in out.chunks_exact_mut(layout.group).enumerate() {
            let (unit, group) = (at / layout.groups(), at % layout.groups());
            let scales = &scales[unit * layout.scale_bytes()..];
            let [scale, minimum] = [0, 1].map(|kind| scale_of(layout, scales, column, (kind, group)));
            for (within, out) in out.iter_mut().enumerate() {
                let code = code_of(layout, codes, column, at * layout.group + within);
                *out = (code - zero) as f32 * scale + minimum;
            }
        }
    }
}

/// The scale of a group (`kind` 0) or its minimum (1), from the scales of its unit.
fn scale_of(layout: Layout, scales: &[u8], column: usize, (kind, group): (usize, usize)) -> f32 {
    if kind == 1 && !layout.has_minimums {
        return 0.0;
    }
    let at = kind * Layout::HALVES + 2 * column;
    let half = f16::from_le_bytes([scales[at], scales[at + 1]]).to_f32();
    if !layout.has_byte_scales() {
        return half;
    }
    let byte = scales[layout.byte_scales(kind, group) + column];
    half * if layout.has_signed_scales { f32::from(byte as i8) } else { f32::from(byte) }
}

fn code_of(layout: Layout, codes: &[u8], column: usize, at: usize) -> i32 {
    let block = &codes[at / BLOCK * layout.code_bytes()..];
    let (first, second) = layout.fields(at % BLOCK / QUAD);
    [Some(first), second].into_iter().flatten().fold(0, |code, field| {
        let byte = block[field.plane + column * QUAD + at % QUAD];
        code | i32::from(byte >> field.right & field.mask) << field.left
    })
}

/// Widens a row of float weights. False, and nothing done, for a type that is quantized.
pub(crate) fn widen_floats(kind: GgmlDType, bytes: &[u8], out: &mut [f32]) -> bool {
    let halves = bytes.as_chunks::<2>().0;
    match kind {
        GgmlDType::F32 => {
            out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, bytes)| *out = f32::from_le_bytes(*bytes))
        }
        GgmlDType::F16 => {
            out.iter_mut().zip(halves).for_each(|(out, b)| *out = f16::from_le_bytes(*b).to_f32())
        }
        GgmlDType::BF16 => {
            out.iter_mut().zip(halves).for_each(|(out, b)| *out = bf16::from_le_bytes(*b).to_f32())
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::{GgmlDType as Kind, QStorage, QTensor};
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    const QUANTIZED: [Kind; 10] = [
        Kind::Q4_0,
        Kind::Q4_1,
        Kind::Q5_0,
        Kind::Q5_1,
        Kind::Q8_0,
        Kind::Q2K,
        Kind::Q3K,
        Kind::Q4K,
        Kind::Q5K,
        Kind::Q6K,
    ];

    fn candle(kind: Kind, bytes: &[u8], shape: (usize, usize)) -> Vec<f32> {
        let storage = QStorage::from_data(bytes.into(), &Device::Cpu, kind).unwrap();
        let tensor = QTensor::new(storage, shape).unwrap().dequantize(&Device::Cpu).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn ours(kind: Kind, bytes: &[u8], shape: (usize, usize)) -> Vec<f32> {
        let packed = Packed::pack(&Pool::new(2).unwrap(), kind, bytes, shape).unwrap();
        assert_eq!((packed.rows(), packed.cols()), shape);
        let mut out = vec![0.0; shape.0 * shape.1];
        out.chunks_exact_mut(shape.1).enumerate().for_each(|(row, out)| packed.widen(row, out));
        out
    }

    fn agree(kind: Kind, bytes: &[u8], shape: (usize, usize)) {
        let pairs = ours(kind, bytes, shape).into_iter().zip(candle(kind, bytes, shape));
        for (at, (ours, candle)) in pairs.enumerate() {
            let close = (ours - candle).abs() <= 2e-6 * candle.abs().max(1e-3) * 32.0;
            assert!(close, "{kind:?} weight {at}: {ours}, candle says {candle}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn every_type_unpacks_to_what_candle_unpacks(values in prop::collection::vec(-3f32..3.0, 512 * 19)) {
            let tensor = Tensor::from_slice(&values, (19, 512), &Device::Cpu).unwrap();
            for kind in QUANTIZED {
                let quantized = QTensor::quantize(&tensor, kind).unwrap();
                agree(kind, &quantized.data().unwrap(), (19, 512));
            }
        }
    }

    /// Where the half-precision numbers of a block lie.
    fn halves(kind: Kind) -> &'static [usize] {
        match kind {
            Kind::Q2K => &[80, 82],
            Kind::Q3K => &[108],
            Kind::Q6K => &[208],
            Kind::Q4_0 | Kind::Q5_0 | Kind::Q8_0 => &[0],
            _ => &[0, 2],
        }
    }

    /// Random bits, with `scale` where the scales lie.
    fn random(kind: Kind, blocks: usize, scale: f16) -> Vec<u8> {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut bytes: Vec<u8> = (0..kind.type_size() * blocks).map(|_| next()).collect();
        for block in bytes.chunks_exact_mut(kind.type_size()) {
            for &at in halves(kind) {
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn random_bits_unpack_to_what_candle_unpacks() {
        for kind in QUANTIZED {
            agree(kind, &random(kind, 34, f16::from_f32(0.01)), (17, 2 * kind.block_size()));
        }
    }

    #[test]
    fn the_float_types_keep_what_their_form_can_hold() {
        for kind in [Kind::F32, Kind::F16, Kind::BF16] {
            let values: Vec<f32> = (-60..60).map(|i| i as f32 * 0.25).collect();
            let bytes: Vec<u8> = match kind {
                Kind::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Kind::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            };
            for shape in [(3, 40), (24, 5)] {
                assert_eq!(ours(kind, &bytes, shape), values, "{kind:?}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let pool = Pool::new(1).unwrap();
        let refused = |kind, bytes: &[u8], shape| Packed::pack(&pool, kind, bytes, shape).err();
        for kind in QUANTIZED {
            let bytes = random(kind, 3, f16::NAN);
            assert_eq!(refused(kind, &bytes, (3, kind.block_size())), Some(Refusal::NotFinite), "{kind:?}");
        }
        assert_eq!(refused(Kind::F32, &f32::INFINITY.to_le_bytes(), (1, 1)), Some(Refusal::NotFinite));
        assert_eq!(refused(Kind::F16, &f16::NAN.to_le_bytes(), (1, 1)), Some(Refusal::NotFinite));
        assert_eq!(refused(Kind::BF16, &bf16::INFINITY.to_le_bytes(), (1, 1)), Some(Refusal::NotFinite));
    }

    #[test]
    fn a_packed_matrix_is_hardly_larger_than_the_file() {
        for kind in QUANTIZED {
            let file = 2048 / kind.block_size() * kind.type_size() * 64;
            let packed = Form::of(kind).unwrap().bytes(64, 2048);
            // Q2_K has scale and minimum in one byte in the file and in two here.
            let percent = if kind == Kind::Q2K { 120 } else { 106 };
            assert!(packed * 100 <= file * percent, "{kind:?}: {packed} for {file}");
        }
    }
}

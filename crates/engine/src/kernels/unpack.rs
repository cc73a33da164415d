//! One row of weights out of its blocks: every quantized type becomes bytes with a scale, and where the type has
//! one a minimum, per group of 32 or 16 values. The block layouts are ggml's.

use candle_core::quantized::GgmlDType;
use half::{f16, slice::HalfFloatSliceExt};

/// Weight `i` is `codes[i] * scales[i / group] + minimums[i / group]`.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub codes: Vec<i8>,
    pub scales: Vec<f32>,
    /// Empty for a type without minimums.
    pub minimums: Vec<f32>,
    /// The scales and minimums of a type with small blocks, before they are widened all at once.
    halves: [Vec<f16>; 2],
}

/// What a block of a quantized type has beside its codes.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Values that share a scale.
    pub group: usize,
    pub has_minimums: bool,
}

/// `None` for a type that is not quantized or that no weight uses.
pub(crate) fn layout(kind: GgmlDType) -> Option<Layout> {
    let (group, has_minimums) = match kind {
        GgmlDType::Q4_0 | GgmlDType::Q5_0 | GgmlDType::Q8_0 => (32, false),
        GgmlDType::Q4_1 | GgmlDType::Q5_1 | GgmlDType::Q4K | GgmlDType::Q5K => (32, true),
        GgmlDType::Q3K | GgmlDType::Q6K => (16, false),
        GgmlDType::Q2K => (16, true),
        _ => return None,
    };
    Some(Layout { group, has_minimums })
}

// === impl Row ===

impl Row {
    /// Room for rows of `cols` weights of a type.
    pub fn new(layout: Layout, cols: usize) -> Row {
        let groups = cols / layout.group;
        Row {
            codes: vec![0; cols],
            scales: vec![0.0; groups],
            minimums: if layout.has_minimums { vec![0.0; groups] } else { Vec::new() },
            halves: [vec![f16::ZERO; groups], vec![f16::ZERO; groups]],
        }
    }

    /// Unpacks the blocks of one row of `kind`, whose layout this row was made with.
    pub fn fill(&mut self, kind: GgmlDType, bytes: &[u8]) {
        match kind {
            GgmlDType::Q4_0 => self.small(bytes, q4_0),
            GgmlDType::Q4_1 => self.small(bytes, q4_1),
            GgmlDType::Q5_0 => self.small(bytes, q5_0),
            GgmlDType::Q5_1 => self.small(bytes, q5_1),
            GgmlDType::Q8_0 => self.small(bytes, q8_0),
            GgmlDType::Q2K => self.large(bytes, q2_k),
            GgmlDType::Q3K => self.large(bytes, q3_k),
            GgmlDType::Q4K => self.large(bytes, q4_k),
            GgmlDType::Q5K => self.large(bytes, q5_k),
            GgmlDType::Q6K => self.large(bytes, q6_k),
            _ => unreachable!("a row is only made for a type with a layout"),
        }
    }

    /// Blocks of 32, which start with their scale and, where the type has one, their minimum.
    fn small<const BYTES: usize>(&mut self, bytes: &[u8], unpack: impl Fn(&[u8; BYTES], &mut [i8; 32])) {
        let [scales, minimums] = &mut self.halves;
        let blocks = bytes.as_chunks::<BYTES>().0;
        for (block, codes) in blocks.iter().zip(self.codes.as_chunks_mut().0) {
            unpack(block, codes);
        }
        let half = |block: &[u8; BYTES], at: usize| f16::from_le_bytes([block[at], block[at + 1]]);
        for (block, scale) in blocks.iter().zip(scales.iter_mut()) {
            *scale = half(block, 0);
        }
        scales.convert_to_f32_slice(&mut self.scales);
        if !self.minimums.is_empty() {
            for (block, minimum) in blocks.iter().zip(minimums.iter_mut()) {
                *minimum = half(block, 2);
            }
            minimums.convert_to_f32_slice(&mut self.minimums);
        }
    }

    /// Blocks of 256 with `GROUPS` scales.
    fn large<const BYTES: usize, const GROUPS: usize>(
        &mut self,
        bytes: &[u8],
        unpack: impl Fn(&[u8; BYTES], &mut [i8; 256], &mut Scales<GROUPS>),
    ) {
        let blocks = bytes.as_chunks::<BYTES>().0.iter();
        let mut minimums = self.minimums.as_chunks_mut().0.iter_mut();
        for ((block, codes), scales) in
            blocks.zip(self.codes.as_chunks_mut().0).zip(self.scales.as_chunks_mut().0)
        {
            let mut both = Scales { scales: [0.0; GROUPS], minimums: [0.0; GROUPS] };
            unpack(block, codes, &mut both);
            *scales = both.scales;
            if let Some(minimums) = minimums.next() {
                *minimums = both.minimums;
            }
        }
    }
}

/// What a large block has beside its codes, per group.
struct Scales<const GROUPS: usize> {
    scales: [f32; GROUPS],
    minimums: [f32; GROUPS],
}

/// The half-precision number at `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Eight copies of a byte. Codes are unpacked eight at a time in one integer: a compiler does not reliably turn loops
/// over bytes into vectors, and this needs none.
const fn eight(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// Stores eight codes below 128, less `zero`.
#[inline(always)]
fn put(codes: &mut [i8; 8], unsigned: u64, zero: u8) {
    // The top bit lends to each byte, so that none borrows from its neighbour.
    let signed = ((unsigned | eight(0x80)) - eight(zero)) ^ eight(0x80);
    *codes = signed.to_le_bytes().map(|byte| byte as i8);
}

/// `8 * WORDS` bytes of two nibbles: the low ones are the first half of `codes`, the high ones the second.
/// `extra(half, word)` gives what is to be added to eight codes.
#[inline(always)]
fn nibbles<const WORDS: usize>(
    packed: &[u8],
    codes: &mut [i8],
    zero: u8,
    extra: impl Fn(usize, usize) -> u64,
) {
    let (packed, codes) = (packed.as_chunks::<8>().0, codes.as_chunks_mut::<8>().0);
    // Sliced once, so that no index below is checked.
    let (packed, codes) = (&packed[..WORDS], &mut codes[..2 * WORDS]);
    for at in 0..WORDS {
        let both = u64::from_le_bytes(packed[at]);
        put(&mut codes[at], both & eight(15) | extra(0, at), zero);
        put(&mut codes[WORDS + at], both >> 4 & eight(15) | extra(1, at), zero);
    }
}

/// No more bits than the nibble.
#[inline(always)]
fn four_bits(_: usize, _: usize) -> u64 {
    0
}

/// The fifth bits of eight codes, worth 16: bit `i` of `bits` belongs to code `i`.
#[inline(always)]
fn sixteens(bits: u8) -> u64 {
    // Eight copies of the byte, each with another bit left standing; then any bit becomes bit 7, then bit 4.
    let spread = (eight(1) * u64::from(bits)) & 0x8040_2010_0804_0201;
    ((spread + eight(0x7f)) & eight(0x80)) >> 3
}

/// Block: d, 16 bytes of nibbles.
#[inline(always)]
fn q4_0(block: &[u8; 18], codes: &mut [i8; 32]) {
    nibbles::<2>(&block[2..], codes, 8, four_bits);
}

/// Block: d, m, 16 bytes of nibbles.
#[inline(always)]
fn q4_1(block: &[u8; 20], codes: &mut [i8; 32]) {
    nibbles::<2>(&block[4..], codes, 0, four_bits);
}

/// Block: d, 32 fifth bits, 16 bytes of nibbles.
#[inline(always)]
fn q5_0(block: &[u8; 22], codes: &mut [i8; 32]) {
    nibbles::<2>(&block[6..], codes, 16, |half, at| sixteens(block[2 + 2 * half + at]));
}

/// Block: d, m, 32 fifth bits, 16 bytes of nibbles.
#[inline(always)]
fn q5_1(block: &[u8; 24], codes: &mut [i8; 32]) {
    nibbles::<2>(&block[8..], codes, 0, |half, at| sixteens(block[4 + 2 * half + at]));
}

/// Block: d, 32 codes.
#[inline(always)]
fn q8_0(block: &[u8; 34], codes: &mut [i8; 32]) {
    for (code, byte) in codes.iter_mut().zip(&block[2..]) {
        *code = *byte as i8;
    }
}

/// Block: 16 bytes of scale and minimum, 64 bytes of four codes, d, dmin.
#[inline(always)]
fn q2_k(block: &[u8; 84], codes: &mut [i8; 256], out: &mut Scales<16>) {
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (group, &scale) in block[..16].iter().enumerate() {
        out.scales[group] = d * f32::from(scale & 15);
        out.minimums[group] = -dmin * f32::from(scale >> 4);
    }
    for (packed, codes) in block[16..80].as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
        for (pair, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (codes, packed) in codes.as_chunks_mut::<8>().0.iter_mut().zip(packed.as_chunks::<8>().0) {
                put(codes, u64::from_le_bytes(*packed) >> (2 * pair) & eight(3), 0);
            }
        }
    }
}

/// Block: 32 bytes of third bits, 64 bytes of four codes, 12 bytes of 6-bit scales, d.
#[inline(always)]
fn q3_k(block: &[u8; 110], codes: &mut [i8; 256], out: &mut Scales<16>) {
    let d = half(block, 108);
    let packed = &block[96..108];
    for group in 0..16 {
        let low = packed[group % 8] >> (4 * (group / 8)) & 15;
        let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        out.scales[group] = d * (f32::from(low | high << 4) - 32.0);
    }
    let third = block[..32].as_chunks::<8>().0;
    for (half, codes) in codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let packed = block[32 + 32 * half..][..32].as_chunks::<8>().0;
        for (pair, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (codes, (packed, third)) in
                codes.as_chunks_mut::<8>().0.iter_mut().zip(packed.iter().zip(third))
            {
                let low = u64::from_le_bytes(*packed) >> (2 * pair) & eight(3);
                // The third bit is stored inverted: absent means 4 less.
                let high = u64::from_le_bytes(*third) >> (4 * half + pair) & eight(1);
                put(codes, low | high << 2, 4);
            }
        }
    }
}

/// The eight 6-bit scales and minimums of Q4_K and Q5_K.
#[inline(always)]
fn six_bits(packed: &[u8], d: f32, dmin: f32, out: &mut Scales<8>) {
    for group in 0..8 {
        let (scale, minimum) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let low = packed[group + 4];
            (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
        };
        out.scales[group] = d * f32::from(scale);
        out.minimums[group] = -dmin * f32::from(minimum);
    }
}

/// Block: d, dmin, 12 bytes of scales and minimums, 128 bytes of nibbles.
#[inline(always)]
fn q4_k(block: &[u8; 144], codes: &mut [i8; 256], out: &mut Scales<8>) {
    six_bits(&block[4..16], half(block, 0), half(block, 2), out);
    for (packed, codes) in block[16..].chunks_exact(32).zip(codes.as_chunks_mut::<64>().0) {
        nibbles::<4>(packed, codes, 0, four_bits);
    }
}

/// Block: d, dmin, 12 bytes of scales and minimums, 32 bytes of fifth bits, 128 bytes of nibbles.
#[inline(always)]
fn q5_k(block: &[u8; 176], codes: &mut [i8; 256], out: &mut Scales<8>) {
    six_bits(&block[4..16], half(block, 0), half(block, 2), out);
    let fifth = block[16..48].as_chunks::<8>().0;
    let quarters = block[48..].chunks_exact(32).zip(codes.as_chunks_mut::<64>().0);
    for (quarter, (packed, codes)) in quarters.enumerate() {
        nibbles::<4>(packed, codes, 0, |half, at| {
            (u64::from_le_bytes(fifth[at]) >> (2 * quarter + half) & eight(1)) << 4
        });
    }
}

/// Block: 128 bytes of low nibbles, 64 bytes of four high pairs, 16 signed scales, d.
#[inline(always)]
fn q6_k(block: &[u8; 210], codes: &mut [i8; 256], out: &mut Scales<16>) {
    let d = half(block, 208);
    for (scale, &byte) in out.scales.iter_mut().zip(&block[192..208]) {
        *scale = d * f32::from(byte as i8);
    }
    for (half, codes) in codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let high = block[128 + 32 * half..][..32].as_chunks::<8>().0;
        for (quarter, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = block[64 * half + 32 * (quarter % 2)..][..32].as_chunks::<8>().0;
            for (codes, (low, high)) in codes.as_chunks_mut::<8>().0.iter_mut().zip(low.iter().zip(high)) {
                let low = u64::from_le_bytes(*low) >> (4 * (quarter / 2)) & eight(15);
                let high = u64::from_le_bytes(*high) >> (2 * quarter) & eight(3);
                put(codes, low | high << 4, 32);
            }
        }
    }
}

/// Widens one row of half-precision, bfloat or single-precision weights.
pub(crate) fn widen(kind: GgmlDType, bytes: &[u8], out: &mut [f32]) {
    match kind {
        GgmlDType::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        GgmlDType::BF16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        _ => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
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

    fn candle(kind: Kind, bytes: &[u8], cols: usize) -> Vec<f32> {
        let storage = QStorage::from_data(bytes.into(), &Device::Cpu, kind).unwrap();
        let tensor = QTensor::new(storage, (1, cols)).unwrap().dequantize(&Device::Cpu).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn ours(kind: Kind, bytes: &[u8], cols: usize) -> Vec<f32> {
        let layout = layout(kind).unwrap();
        let mut row = Row::new(layout, cols);
        row.fill(kind, bytes);
        let value = |at: usize| {
            let minimum = row.minimums.get(at / layout.group).copied().unwrap_or(0.0);
            f32::from(row.codes[at]) * row.scales[at / layout.group] + minimum
        };
        (0..cols).map(value).collect()
    }

    fn agree(kind: Kind, bytes: &[u8], cols: usize) {
        for (at, (ours, candle)) in
            ours(kind, bytes, cols).into_iter().zip(candle(kind, bytes, cols)).enumerate()
        {
            let close = (ours - candle).abs() <= 2e-6 * candle.abs().max(1e-3) * 32.0;
            assert!(close, "{kind:?} weight {at}: {ours}, candle says {candle}");
        }
    }

    proptest! {
        #[test]
        fn every_type_unpacks_to_what_candle_unpacks(values in prop::collection::vec(-3f32..3.0, 512)) {
            let tensor = Tensor::from_slice(&values, (1, 512), &Device::Cpu).unwrap();
            for kind in QUANTIZED {
                let quantized = QTensor::quantize(&tensor, kind).unwrap();
                agree(kind, &quantized.data().unwrap(), 512);
            }
        }
    }

    #[test]
    fn random_bits_unpack_to_what_candle_unpacks() {
        let mut state = 7u32;
        for kind in QUANTIZED {
            let (size, values) = (kind.type_size(), kind.block_size());
            let mut bytes: Vec<u8> = (0..size * 4)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            // Any 16 bits are a number, but random ones are huge; 0.01 where the scales lie.
            for block in bytes.chunks_exact_mut(size) {
                let at: &[usize] = match kind {
                    Kind::Q2K => &[80, 82],
                    Kind::Q3K => &[108],
                    Kind::Q6K => &[208],
                    Kind::Q4_0 | Kind::Q5_0 | Kind::Q8_0 => &[0],
                    _ => &[0, 2],
                };
                for &at in at {
                    block[at..at + 2].copy_from_slice(&f16::from_f32(0.01).to_le_bytes());
                }
            }
            agree(kind, &bytes, 4 * values);
        }
    }

    #[test]
    fn the_float_types_widen_exactly() {
        for kind in [Kind::F32, Kind::F16, Kind::BF16] {
            let values: Vec<f32> = (-20..20).map(|i| i as f32 * 0.25).collect();
            let bytes: Vec<u8> = match kind {
                Kind::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Kind::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            };
            let mut out = vec![0.0; values.len()];
            widen(kind, &bytes, &mut out);
            assert_eq!(out, values);
        }
    }
}

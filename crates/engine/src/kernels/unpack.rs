//! One row of weights out of its blocks: every quantized type becomes bytes with a scale, and where the type has
//! one a minimum, per 16 values. The block layouts are ggml's. The arithmetic on codes wraps by name only: nothing here
//! can overflow, and a check in the loops would keep them from becoming vectors in a test build.

use candle_core::quantized::GgmlDType;
use half::f16;

use super::quantize::GROUP;

/// Weight `i` is `codes[i] * scales[i / GROUP] + minimums[i / GROUP]`.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub codes: Vec<i8>,
    pub scales: Vec<f32>,
    /// Empty for a type without minimums.
    pub minimums: Vec<f32>,
}

/// Bytes and values of one block of `kind`, and whether it has minimums; `None` for a type that is not quantized or
/// that no weight uses.
pub(crate) fn layout(kind: GgmlDType) -> Option<(usize, usize, bool)> {
    Some(match kind {
        GgmlDType::Q4_0 => (18, 32, false),
        GgmlDType::Q4_1 => (20, 32, true),
        GgmlDType::Q5_0 => (22, 32, false),
        GgmlDType::Q5_1 => (24, 32, true),
        GgmlDType::Q8_0 => (34, 32, false),
        GgmlDType::Q2K => (84, 256, true),
        GgmlDType::Q3K => (110, 256, false),
        GgmlDType::Q4K => (144, 256, true),
        GgmlDType::Q5K => (176, 256, true),
        GgmlDType::Q6K => (210, 256, false),
        _ => return None,
    })
}

impl Row {
    /// Room for rows of `cols` weights of `kind`, which has a [`layout`].
    pub fn new(kind: GgmlDType, cols: usize) -> Row {
        let minimums = layout(kind).is_some_and(|(.., minimums)| minimums);
        Row {
            codes: vec![0; cols],
            scales: vec![0.0; cols / GROUP],
            minimums: if minimums { vec![0.0; cols / GROUP] } else { Vec::new() },
        }
    }

    /// Unpacks the blocks of one row.
    pub fn fill(&mut self, kind: GgmlDType, bytes: &[u8]) {
        match kind {
            GgmlDType::Q4_0 => self.each(bytes, q4_0),
            GgmlDType::Q4_1 => self.each(bytes, q4_1),
            GgmlDType::Q5_0 => self.each(bytes, q5_0),
            GgmlDType::Q5_1 => self.each(bytes, q5_1),
            GgmlDType::Q8_0 => self.each(bytes, q8_0),
            GgmlDType::Q2K => self.each(bytes, q2_k),
            GgmlDType::Q3K => self.each(bytes, q3_k),
            GgmlDType::Q4K => self.each(bytes, q4_k),
            GgmlDType::Q5K => self.each(bytes, q5_k),
            GgmlDType::Q6K => self.each(bytes, q6_k),
            _ => unreachable!("a row is only made for a type with a layout"),
        }
    }

    fn each<const BYTES: usize, const VALUES: usize, const GROUPS: usize>(
        &mut self,
        bytes: &[u8],
        unpack: impl Fn(&[u8; BYTES], &mut [i8; VALUES], &mut Scales<GROUPS>),
    ) {
        let codes = self.codes.as_chunks_mut::<VALUES>().0;
        let scales = self.scales.as_chunks_mut::<GROUPS>().0;
        let mut minimums = self.minimums.as_chunks_mut::<GROUPS>().0.iter_mut();
        for ((block, codes), scales) in bytes.as_chunks::<BYTES>().0.iter().zip(codes).zip(scales) {
            let mut both = Scales { scales: [0.0; GROUPS], minimums: [0.0; GROUPS] };
            unpack(block, codes, &mut both);
            *scales = both.scales;
            if let Some(minimums) = minimums.next() {
                *minimums = both.minimums;
            }
        }
    }
}

/// What a block has beside its codes, per group.
struct Scales<const GROUPS: usize> {
    scales: [f32; GROUPS],
    minimums: [f32; GROUPS],
}

/// The half-precision number at `at`.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    // `f16::to_f32` asks the processor each time; multiplying by a power of two converts normal and subnormal
    // numbers alike, and a select restores infinities and NaN.
    const SHIFT: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u16::from_le_bytes([block[at], block[at + 1]]);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = f32::from_bits(magnitude) * SHIFT;
    let value = if bits & 0x7c00 == 0x7c00 { f32::from_bits(magnitude | 0x7f80_0000) } else { finite };
    if bits & 0x8000 == 0 { value } else { -value }
}

/// 16 bytes of two nibbles: low ones first, then high ones, less `zero`.
#[inline(always)]
fn nibbles(packed: &[u8], codes: &mut [i8], zero: i8) {
    let (low, high) = codes.split_at_mut(packed.len());
    for ((byte, low), high) in packed.iter().zip(low).zip(high) {
        *low = ((byte & 15) as i8).wrapping_sub(zero);
        *high = ((byte >> 4) as i8).wrapping_sub(zero);
    }
}

/// Adds a fifth bit, worth 16, to 32 codes: bit `i` of `bits` belongs to code `i`.
#[inline(always)]
fn fifth_bits(bits: &[u8], codes: &mut [i8; 32]) {
    for (byte, codes) in bits.iter().zip(codes.as_chunks_mut::<8>().0) {
        // Eight copies of the byte, each with another bit left standing; then any bit becomes bit 7, then bit 4.
        let spread = u64::from(*byte).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let sixteens = (spread.wrapping_add(0x7f7f_7f7f_7f7f_7f7f) & 0x8080_8080_8080_8080) >> 3;
        for (code, sixteen) in codes.iter_mut().zip(sixteens.to_le_bytes()) {
            *code = code.wrapping_add(sixteen as i8);
        }
    }
}

/// Block: d, 16 bytes of nibbles.
#[inline(always)]
fn q4_0(block: &[u8; 18], codes: &mut [i8; 32], out: &mut Scales<2>) {
    nibbles(&block[2..], codes, 8);
    out.scales = [half(block, 0); 2];
}

/// Block: d, m, 16 bytes of nibbles.
#[inline(always)]
fn q4_1(block: &[u8; 20], codes: &mut [i8; 32], out: &mut Scales<2>) {
    nibbles(&block[4..], codes, 0);
    out.scales = [half(block, 0); 2];
    out.minimums = [half(block, 2); 2];
}

/// Block: d, 32 fifth bits, 16 bytes of nibbles.
#[inline(always)]
fn q5_0(block: &[u8; 22], codes: &mut [i8; 32], out: &mut Scales<2>) {
    nibbles(&block[6..], codes, 16);
    fifth_bits(&block[2..6], codes);
    out.scales = [half(block, 0); 2];
}

/// Block: d, m, 32 fifth bits, 16 bytes of nibbles.
#[inline(always)]
fn q5_1(block: &[u8; 24], codes: &mut [i8; 32], out: &mut Scales<2>) {
    nibbles(&block[8..], codes, 0);
    fifth_bits(&block[4..8], codes);
    out.scales = [half(block, 0); 2];
    out.minimums = [half(block, 2); 2];
}

/// Block: d, 32 codes.
#[inline(always)]
fn q8_0(block: &[u8; 34], codes: &mut [i8; 32], out: &mut Scales<2>) {
    for (code, byte) in codes.iter_mut().zip(&block[2..]) {
        *code = *byte as i8;
    }
    out.scales = [half(block, 0); 2];
}

/// Block: 16 bytes of scale and minimum, 64 bytes of four codes, d, dmin.
#[inline(always)]
fn q2_k(block: &[u8; 84], codes: &mut [i8; 256], out: &mut Scales<16>) {
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (group, &scale) in block[..16].iter().enumerate() {
        out.scales[group] = d * f32::from(scale & 15);
        out.minimums[group] = -dmin * f32::from(scale >> 4);
    }
    for (packed, codes) in block[16..80].chunks_exact(32).zip(codes.as_chunks_mut::<128>().0) {
        for (pair, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(packed) {
                *code = (byte >> (2 * pair) & 3) as i8;
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
    let third = &block[..32];
    for (half, codes) in codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let packed = &block[32 + 32 * half..][..32];
        for (pair, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, (byte, third)) in codes.iter_mut().zip(packed.iter().zip(third)) {
                // The third bit is stored inverted: absent means 4 less.
                let four = third >> (4 * half + pair) & 1;
                *code = ((byte >> (2 * pair) & 3 | four << 2) as i8).wrapping_sub(4);
            }
        }
    }
}

/// The eight 6-bit scales and minimums of Q4_K and Q5_K.
#[inline(always)]
fn six_bits(packed: &[u8], d: f32, dmin: f32, out: &mut Scales<16>) {
    for group in 0..8 {
        let (scale, minimum) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let low = packed[group + 4];
            (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
        };
        out.scales[2 * group..2 * group + 2].fill(d * f32::from(scale));
        out.minimums[2 * group..2 * group + 2].fill(-dmin * f32::from(minimum));
    }
}

/// Block: d, dmin, 12 bytes of scales and minimums, 128 bytes of nibbles.
#[inline(always)]
fn q4_k(block: &[u8; 144], codes: &mut [i8; 256], out: &mut Scales<16>) {
    six_bits(&block[4..16], half(block, 0), half(block, 2), out);
    for (packed, codes) in block[16..].chunks_exact(32).zip(codes.as_chunks_mut::<64>().0) {
        nibbles(packed, codes, 0);
    }
}

/// Block: d, dmin, 12 bytes of scales and minimums, 32 bytes of fifth bits, 128 bytes of nibbles.
#[inline(always)]
fn q5_k(block: &[u8; 176], codes: &mut [i8; 256], out: &mut Scales<16>) {
    six_bits(&block[4..16], half(block, 0), half(block, 2), out);
    let fifth = &block[16..48];
    for (packed, codes) in block[48..].chunks_exact(32).zip(codes.as_chunks_mut::<64>().0) {
        nibbles(packed, codes, 0);
    }
    for (bit, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (code, byte) in codes.iter_mut().zip(fifth) {
            *code |= ((byte >> bit & 1) << 4) as i8;
        }
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
        let (low, high) = (&block[64 * half..][..64], &block[128 + 32 * half..][..32]);
        for (quarter, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = &low[32 * (quarter % 2)..][..32];
            for (code, (low, high)) in codes.iter_mut().zip(low.iter().zip(high)) {
                let nibble = low >> (4 * (quarter / 2)) & 15;
                *code = ((nibble | (high >> (2 * quarter) & 3) << 4) as i8).wrapping_sub(32);
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
        let mut row = Row::new(kind, cols);
        row.fill(kind, bytes);
        let value = |at: usize| {
            let minimum = row.minimums.get(at / GROUP).copied().unwrap_or(0.0);
            f32::from(row.codes[at]) * row.scales[at / GROUP] + minimum
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

        #[test]
        fn a_half_is_what_the_half_crate_says(bits in any::<u16>()) {
            let (ours, exact) = (half(&bits.to_le_bytes(), 0), f16::from_bits(bits).to_f32());
            prop_assert!(ours == exact || ours.is_nan() && exact.is_nan());
        }
    }

    #[test]
    fn random_bits_unpack_to_what_candle_unpacks() {
        let mut state = 7u32;
        for kind in QUANTIZED {
            let (size, values, _) = layout(kind).unwrap();
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

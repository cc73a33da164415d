//! The blocks of a quantized row as a file has them, taken apart into codes and scales. The layouts are ggml's.

use candle_core::quantized::GgmlDType;

/// Weight `i` is `scale * (codes[i] - zero) + minimum`, where `zero` is the type's, `scale` is `d`, times `scales` of
/// its group where the type has them, and `minimum` is the same of `m`.
#[derive(Debug)]
pub(super) struct Block {
    /// As many as the type has in a block: 32 or 256.
    pub codes: [u8; 256],
    /// Half precision.
    pub d: u16,
    /// Half precision; 0 for a type without minimums.
    pub m: u16,
    pub scales: [u8; 16],
    pub minimums: [u8; 16],
}

/// The first block of `bytes`, a row of a quantized type.
#[inline(always)]
pub(super) fn unpack(kind: GgmlDType, bytes: &[u8], block: &mut Block) {
    match kind {
        GgmlDType::Q4_0 => q4_0(first(bytes), block),
        GgmlDType::Q4_1 => q4_1(first(bytes), block),
        GgmlDType::Q5_0 => q5_0(first(bytes), block),
        GgmlDType::Q5_1 => q5_1(first(bytes), block),
        GgmlDType::Q8_0 => q8_0(first(bytes), block),
        GgmlDType::Q2K => q2_k(first(bytes), block),
        GgmlDType::Q3K => q3_k(first(bytes), block),
        GgmlDType::Q4K => q4_k(first(bytes), block),
        GgmlDType::Q5K => q5_k(first(bytes), block),
        GgmlDType::Q6K => q6_k(first(bytes), block),
        other => unreachable!("{other:?} is not quantized"),
    }
}

#[inline(always)]
fn first<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.first_chunk().expect("a row is a whole number of blocks")
}

impl Default for Block {
    fn default() -> Block {
        Block { codes: [0; 256], d: 0, m: 0, scales: [0; 16], minimums: [0; 16] }
    }
}

/// The half-precision number at `at`.
#[inline(always)]
fn half(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The same with the other sign.
#[inline(always)]
fn negative(block: &[u8], at: usize) -> u16 {
    half(block, at) ^ 0x8000
}

/// Eight copies of a byte. Codes are unpacked eight at a time in one integer: a compiler does not reliably turn loops
/// over bytes into vectors, and this needs none.
const fn eight(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// `8 * WORDS` bytes of two nibbles: the low ones are the first half of `codes`, the high ones the second.
/// `extra(half, word)` gives what is to be added to eight codes.
#[inline(always)]
fn nibbles<const WORDS: usize>(packed: &[u8], codes: &mut [u8], extra: impl Fn(usize, usize) -> u64) {
    let (packed, codes) = (packed.as_chunks::<8>().0, codes.as_chunks_mut::<8>().0);
    // Sliced once, so that no index below is checked.
    let (packed, codes) = (&packed[..WORDS], &mut codes[..2 * WORDS]);
    for at in 0..WORDS {
        let both = u64::from_le_bytes(packed[at]);
        codes[at] = (both & eight(15) | extra(0, at)).to_le_bytes();
        codes[WORDS + at] = (both >> 4 & eight(15) | extra(1, at)).to_le_bytes();
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

/// d, 16 bytes of nibbles.
#[inline(always)]
fn q4_0(bytes: &[u8; 18], block: &mut Block) {
    block.d = half(bytes, 0);
    nibbles::<2>(&bytes[2..], &mut block.codes, four_bits);
}

/// d, m, 16 bytes of nibbles.
#[inline(always)]
fn q4_1(bytes: &[u8; 20], block: &mut Block) {
    (block.d, block.m) = (half(bytes, 0), half(bytes, 2));
    nibbles::<2>(&bytes[4..], &mut block.codes, four_bits);
}

/// d, 32 fifth bits, 16 bytes of nibbles.
#[inline(always)]
fn q5_0(bytes: &[u8; 22], block: &mut Block) {
    block.d = half(bytes, 0);
    nibbles::<2>(&bytes[6..], &mut block.codes, |half, at| sixteens(bytes[2 + 2 * half + at]));
}

/// d, m, 32 fifth bits, 16 bytes of nibbles.
#[inline(always)]
fn q5_1(bytes: &[u8; 24], block: &mut Block) {
    (block.d, block.m) = (half(bytes, 0), half(bytes, 2));
    nibbles::<2>(&bytes[8..], &mut block.codes, |half, at| sixteens(bytes[4 + 2 * half + at]));
}

/// d, 32 signed codes, which become unsigned.
#[inline(always)]
fn q8_0(bytes: &[u8; 34], block: &mut Block) {
    block.d = half(bytes, 0);
    for (code, byte) in block.codes.iter_mut().zip(&bytes[2..]) {
        *code = byte ^ 0x80;
    }
}

/// 16 bytes of scale and minimum, 64 bytes of four codes, d, dmin.
#[inline(always)]
fn q2_k(bytes: &[u8; 84], block: &mut Block) {
    (block.d, block.m) = (half(bytes, 80), negative(bytes, 82));
    for (group, &scale) in bytes[..16].iter().enumerate() {
        (block.scales[group], block.minimums[group]) = (scale & 15, scale >> 4);
    }
    for (packed, codes) in bytes[16..80].as_chunks::<32>().0.iter().zip(block.codes.as_chunks_mut::<128>().0)
    {
        for (pair, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (codes, packed) in codes.as_chunks_mut::<8>().0.iter_mut().zip(packed.as_chunks::<8>().0) {
                *codes = (u64::from_le_bytes(*packed) >> (2 * pair) & eight(3)).to_le_bytes();
            }
        }
    }
}

/// 32 bytes of third bits, 64 bytes of four codes, 12 bytes of 6-bit scales, d.
#[inline(always)]
fn q3_k(bytes: &[u8; 110], block: &mut Block) {
    block.d = half(bytes, 108);
    let packed = &bytes[96..108];
    for group in 0..16 {
        let low = packed[group % 8] >> (4 * (group / 8)) & 15;
        let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        block.scales[group] = (low | high << 4).wrapping_sub(32);
    }
    let third = bytes[..32].as_chunks::<8>().0;
    for (half, codes) in block.codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let packed = bytes[32 + 32 * half..][..32].as_chunks::<8>().0;
        for (pair, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (codes, (packed, third)) in
                codes.as_chunks_mut::<8>().0.iter_mut().zip(packed.iter().zip(third))
            {
                let low = u64::from_le_bytes(*packed) >> (2 * pair) & eight(3);
                let high = u64::from_le_bytes(*third) >> (4 * half + pair) & eight(1);
                *codes = (low | high << 2).to_le_bytes();
            }
        }
    }
}

/// The eight 6-bit scales and minimums of Q4_K and Q5_K.
#[inline(always)]
fn six_bits(packed: &[u8], block: &mut Block) {
    for group in 0..8 {
        (block.scales[group], block.minimums[group]) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let low = packed[group + 4];
            (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
        };
    }
}

/// d, dmin, 12 bytes of scales and minimums, 128 bytes of nibbles.
#[inline(always)]
fn q4_k(bytes: &[u8; 144], block: &mut Block) {
    (block.d, block.m) = (half(bytes, 0), negative(bytes, 2));
    six_bits(&bytes[4..16], block);
    for (packed, codes) in bytes[16..].chunks_exact(32).zip(block.codes.as_chunks_mut::<64>().0) {
        nibbles::<4>(packed, codes, four_bits);
    }
}

/// d, dmin, 12 bytes of scales and minimums, 32 bytes of fifth bits, 128 bytes of nibbles.
#[inline(always)]
fn q5_k(bytes: &[u8; 176], block: &mut Block) {
    (block.d, block.m) = (half(bytes, 0), negative(bytes, 2));
    six_bits(&bytes[4..16], block);
    let fifth = bytes[16..48].as_chunks::<8>().0;
    let quarters = bytes[48..].chunks_exact(32).zip(block.codes.as_chunks_mut::<64>().0);
    for (quarter, (packed, codes)) in quarters.enumerate() {
        nibbles::<4>(packed, codes, |half, at| {
            (u64::from_le_bytes(fifth[at]) >> (2 * quarter + half) & eight(1)) << 4
        });
    }
}

/// 128 bytes of low nibbles, 64 bytes of four high pairs, 16 signed scales, d.
#[inline(always)]
fn q6_k(bytes: &[u8; 210], block: &mut Block) {
    block.d = half(bytes, 208);
    block.scales.copy_from_slice(&bytes[192..208]);
    for (half, codes) in block.codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let high = bytes[128 + 32 * half..][..32].as_chunks::<8>().0;
        for (quarter, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = bytes[64 * half + 32 * (quarter % 2)..][..32].as_chunks::<8>().0;
            for (codes, (low, high)) in codes.as_chunks_mut::<8>().0.iter_mut().zip(low.iter().zip(high)) {
                let low = u64::from_le_bytes(*low) >> (4 * (quarter / 2)) & eight(15);
                let high = u64::from_le_bytes(*high) >> (2 * quarter) & eight(3);
                *codes = (low | high << 4).to_le_bytes();
            }
        }
    }
}

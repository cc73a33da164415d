//! Byte dot products with AVX2 and AVX-512: the kernels that the compiler does not find by itself.
//!
//! Both add exactly as [`super::matmul`]'s scalar twin does: integers are exact, and each lane multiplies and adds
//! its floats in the same order without fusing, so that all tiers give the same bits.

use std::arch::x86_64::*;

use super::matmul::{LANES, Operands};
use super::quantize::BLOCK;

#[target_feature(enable = "avx2")]
pub(super) fn dot_avx2<const ROWS: usize, const GROUPS: usize>(
    operands: Operands<'_>,
) -> [[f32; LANES]; ROWS] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_ps(); ROWS];
    for (weights, weight_scales, codes, scales) in operands.blocks::<ROWS, GROUPS>() {
        let weights = load(weights);
        let magnitudes = _mm256_abs_epi8(weights);
        let weight_scales = spread(weight_scales);
        for row in 0..ROWS {
            // |weight| * (code with the weight's sign): at most 2 * 128 * 127, so the 16-bit pairs do not saturate.
            let signed = _mm256_sign_epi8(load(&codes[row]), weights);
            let pairs = _mm256_maddubs_epi16(magnitudes, signed);
            let quads = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones));
            let scale = _mm256_mul_ps(weight_scales, _mm256_set1_ps(scales[row]));
            sums[row] = _mm256_add_ps(sums[row], _mm256_mul_ps(quads, scale));
        }
    }
    sums.map(|lanes| store(lanes))
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dot_avx512<const ROWS: usize, const GROUPS: usize>(
    operands: Operands<'_>,
) -> [[f32; LANES]; ROWS] {
    let mut sums = [_mm256_setzero_ps(); ROWS];
    for (weights, weight_scales, codes, scales) in operands.blocks::<ROWS, GROUPS>() {
        let weights = load(weights);
        let magnitudes = _mm256_abs_epi8(weights);
        let weight_scales = spread(weight_scales);
        for row in 0..ROWS {
            let signed = _mm256_sign_epi8(load(&codes[row]), weights);
            let quads = _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), magnitudes, signed));
            let scale = _mm256_mul_ps(weight_scales, _mm256_set1_ps(scales[row]));
            sums[row] = _mm256_add_ps(sums[row], _mm256_mul_ps(quads, scale));
        }
    }
    sums.map(|lanes| store(lanes))
}

/// The scales of a block, spread over the lanes.
#[target_feature(enable = "avx2")]
fn spread<const GROUPS: usize>(scales: &[f32; GROUPS]) -> __m256 {
    match GROUPS {
        1 => _mm256_set1_ps(scales[0]),
        _ => _mm256_set_m128(_mm_set1_ps(scales[1]), _mm_set1_ps(scales[0])),
    }
}

#[target_feature(enable = "avx2")]
fn load(codes: &[i8; BLOCK]) -> __m256i {
    // SAFETY: 32 bytes are read, and they are there; the load needs no alignment.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn store(lanes: __m256) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    // SAFETY: eight floats are written, and there is room for them; the store needs no alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), lanes) };
    out
}

//! [`Lanes`] in the registers of x86.

use std::arch::x86_64::*;

use super::{Lanes, widen_pair};

/// AVX2 with FMA and F16C: every x86 server since 2013.
pub(crate) struct Avx2;

/// AVX2 with byte dot products in its registers.
pub(crate) struct AvxVnni;

/// AVX-512 with byte dot products.
pub(crate) struct Avx512;

/// [`Avx512`] with bfloat dot products.
pub(crate) struct Avx512Bf16;

/// The functions that registers of eight columns share.
macro_rules! eight_columns {
    () => {
        type Codes = __m256i;
        type Sums = __m256i;
        type Floats = __m256;

        #[inline(always)]
        unsafe fn codes(at: *const u8) -> __m256i {
            unsafe { _mm256_loadu_si256(at.cast()) }
        }

        #[inline(always)]
        unsafe fn splat_codes(byte: u8) -> __m256i {
            unsafe { _mm256_set1_epi8(byte as i8) }
        }

        #[inline(always)]
        unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_and_si256(a, b) }
        }

        #[inline(always)]
        unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_or_si256(a, b) }
        }

        #[inline(always)]
        unsafe fn left(codes: __m256i, by: u32) -> __m256i {
            unsafe { _mm256_sll_epi16(codes, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        unsafe fn right(codes: __m256i, by: u32) -> __m256i {
            unsafe { _mm256_srl_epi16(codes, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        unsafe fn splat_sums(value: i32) -> __m256i {
            unsafe { _mm256_set1_epi32(value) }
        }

        #[inline(always)]
        unsafe fn left_sums(sums: __m256i, by: u32) -> __m256i {
            unsafe { _mm256_sll_epi32(sums, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        unsafe fn to_floats(sums: __m256i) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(sums) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(at: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(at) }
        }

        #[inline(always)]
        unsafe fn store(values: __m256, at: *mut f32) {
            unsafe { _mm256_storeu_ps(at, values) }
        }

        #[inline(always)]
        unsafe fn halves(at: *const u16) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
        }

        #[inline(always)]
        unsafe fn unsigned(at: *const u8) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast()))) }
        }

        #[inline(always)]
        unsafe fn signed(at: *const u8) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))) }
        }

        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn fused(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn dot_pair(sums: __m256, pairs: __m256i, pair: u32) -> __m256 {
            let [even, odd] = widen_pair(pair);
            unsafe {
                let odds = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(!0xffff)));
                let evens = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
                let sums = _mm256_fmadd_ps(odds, _mm256_set1_ps(odd), sums);
                _mm256_fmadd_ps(evens, _mm256_set1_ps(even), sums)
            }
        }
    };
}

/// The functions that registers of sixteen columns share.
macro_rules! sixteen_columns {
    () => {
        const COLUMNS: usize = 16;
        const MAX_ROWS: usize = 8;
        const IS_CENTRED: bool = false;

        type Codes = __m512i;
        type Sums = __m512i;
        type Floats = __m512;

        #[inline(always)]
        unsafe fn codes(at: *const u8) -> __m512i {
            unsafe { _mm512_loadu_si512(at.cast()) }
        }

        #[inline(always)]
        unsafe fn splat_codes(byte: u8) -> __m512i {
            unsafe { _mm512_set1_epi8(byte as i8) }
        }

        #[inline(always)]
        unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_and_si512(a, b) }
        }

        #[inline(always)]
        unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_or_si512(a, b) }
        }

        #[inline(always)]
        unsafe fn left(codes: __m512i, by: u32) -> __m512i {
            unsafe { _mm512_sll_epi16(codes, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        unsafe fn right(codes: __m512i, by: u32) -> __m512i {
            unsafe { _mm512_srl_epi16(codes, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        unsafe fn splat_sums(value: i32) -> __m512i {
            unsafe { _mm512_set1_epi32(value) }
        }

        #[inline(always)]
        unsafe fn left_sums(sums: __m512i, by: u32) -> __m512i {
            unsafe { _mm512_sll_epi32(sums, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        unsafe fn dot(sums: __m512i, codes: __m512i, quad: i32) -> __m512i {
            unsafe { _mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(quad)) }
        }

        #[inline(always)]
        unsafe fn dot_wide(sums: __m512i, codes: __m512i, quad: i32) -> __m512i {
            unsafe { Self::dot(sums, codes, quad) }
        }

        #[inline(always)]
        unsafe fn to_floats(sums: __m512i) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(sums) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m512 {
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(at: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(at) }
        }

        #[inline(always)]
        unsafe fn store(values: __m512, at: *mut f32) {
            unsafe { _mm512_storeu_ps(at, values) }
        }

        #[inline(always)]
        unsafe fn halves(at: *const u16) -> __m512 {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
        }

        #[inline(always)]
        unsafe fn unsigned(at: *const u8) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast()))) }
        }

        #[inline(always)]
        unsafe fn signed(at: *const u8) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast()))) }
        }

        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn fused(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
    };
}

// SAFETY, of every block below: the instructions are there and the pointers are good by the trait's contract.
#[expect(clippy::undocumented_unsafe_blocks, reason = "each is one instruction, under the trait's contract")]
mod implementations {
    use super::*;

    impl Lanes for Avx2 {
        const COLUMNS: usize = 8;
        const MAX_ROWS: usize = 4;
        const IS_CENTRED: bool = true;

        eight_columns!();

        #[inline(always)]
        unsafe fn dot(sums: __m256i, codes: __m256i, quad: i32) -> __m256i {
            unsafe {
                // Two products of at most 127 * 127 fit 16 bits.
                let pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi32(quad));
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn dot_wide(sums: __m256i, codes: __m256i, quad: i32) -> __m256i {
            unsafe {
                let centred = _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN));
                // |weight| times the activation with the weight's sign: at most 2 * 128 * 127, which 16 bits hold.
                let signed = _mm256_sign_epi8(_mm256_set1_epi32(quad), centred);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(centred), signed);
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }
    }

    impl Lanes for AvxVnni {
        const COLUMNS: usize = 8;
        const MAX_ROWS: usize = 4;
        const IS_CENTRED: bool = false;

        eight_columns!();

        #[inline(always)]
        unsafe fn dot(sums: __m256i, codes: __m256i, quad: i32) -> __m256i {
            unsafe { _mm256_dpbusd_avx_epi32(sums, codes, _mm256_set1_epi32(quad)) }
        }

        #[inline(always)]
        unsafe fn dot_wide(sums: __m256i, codes: __m256i, quad: i32) -> __m256i {
            unsafe { Self::dot(sums, codes, quad) }
        }
    }

    impl Lanes for Avx512 {
        sixteen_columns!();

        #[inline(always)]
        unsafe fn dot_pair(sums: __m512, pairs: __m512i, pair: u32) -> __m512 {
            let [even, odd] = widen_pair(pair);
            unsafe {
                let odds = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(!0xffff)));
                let evens = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
                let sums = _mm512_fmadd_ps(odds, _mm512_set1_ps(odd), sums);
                _mm512_fmadd_ps(evens, _mm512_set1_ps(even), sums)
            }
        }
    }

    impl Lanes for Avx512Bf16 {
        sixteen_columns!();

        #[inline(always)]
        unsafe fn dot_pair(sums: __m512, pairs: __m512i, pair: u32) -> __m512 {
            // The instruction takes the second product first and rounds after each, as the others do here.
            unsafe {
                let pair = _mm512_set1_epi32(pair as i32);
                _mm512_dpbf16_ps(
                    sums,
                    std::mem::transmute::<__m512i, __m512bh>(pairs),
                    std::mem::transmute::<__m512i, __m512bh>(pair),
                )
            }
        }
    }
}

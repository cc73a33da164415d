//! [`Lanes`] in the registers of 64-bit ARM with byte dot products: Apple's M1 and later, Graviton 2 and later, Cortex-A75
//! and later.

use std::{arch::aarch64::*, arch::asm};

use super::{Lanes, widen_pair};

/// Two registers of four columns each: with one there would be a load for every product.
pub(crate) struct Neon;

const HALVES: usize = 2;
/// Columns of one register.
const COLUMNS: usize = 4;

/// For both registers. A loop, because a closure is a call that may not get the instructions.
macro_rules! both {
    ($half:ident => $value:expr) => {{
        let $half = 0;
        let first = $value;
        let $half = 1;
        [first, $value]
    }};
}

/// `sums + codes · quads` for each column. The intrinsic is not stable.
#[inline(always)]
unsafe fn sdot(mut sums: int32x4_t, codes: uint8x16_t, quads: int32x4_t) -> int32x4_t {
    // SAFETY: it reads and writes the registers that it names; the caller has the instruction.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {codes:v}.16b, {quads:v}.16b",
            sums = inout(vreg) sums, codes = in(vreg) codes, quads = in(vreg) quads,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Four halves as floats. The intrinsic is not stable.
#[inline(always)]
unsafe fn widen(halves: uint16x4_t) -> float32x4_t {
    let floats: float32x4_t;
    // SAFETY: as above; every processor of this kind has the instruction.
    unsafe {
        asm!(
            "fcvtl {floats:v}.4s, {halves:v}.4h",
            floats = lateout(vreg) floats, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    floats
}

// SAFETY, of every block below: the instructions are there and the pointers are good by the trait's contract.
#[expect(clippy::undocumented_unsafe_blocks, reason = "each is one instruction, under the trait's contract")]
impl Lanes for Neon {
    const COLUMNS: usize = HALVES * COLUMNS;
    const MAX_ROWS: usize = 4;
    const IS_CENTRED: bool = true;

    type Codes = [uint8x16_t; HALVES];
    type Sums = [int32x4_t; HALVES];
    type Floats = [float32x4_t; HALVES];

    #[inline(always)]
    unsafe fn codes(at: *const u8) -> Self::Codes {
        unsafe { both!(half => vld1q_u8(at.add(16 * half))) }
    }

    #[inline(always)]
    unsafe fn splat_codes(byte: u8) -> Self::Codes {
        unsafe { [vdupq_n_u8(byte); HALVES] }
    }

    #[inline(always)]
    unsafe fn and(a: Self::Codes, b: Self::Codes) -> Self::Codes {
        unsafe { both!(half => vandq_u8(a[half], b[half])) }
    }

    #[inline(always)]
    unsafe fn or(a: Self::Codes, b: Self::Codes) -> Self::Codes {
        unsafe { both!(half => vorrq_u8(a[half], b[half])) }
    }

    #[inline(always)]
    unsafe fn left(codes: Self::Codes, by: u32) -> Self::Codes {
        unsafe {
            let by = vdupq_n_s16(by as i16);
            both!(half => vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(codes[half]), by)))
        }
    }

    #[inline(always)]
    unsafe fn right(codes: Self::Codes, by: u32) -> Self::Codes {
        unsafe {
            let by = vdupq_n_s16(-(by as i16));
            both!(half => vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(codes[half]), by)))
        }
    }

    #[inline(always)]
    unsafe fn splat_sums(value: i32) -> Self::Sums {
        unsafe { [vdupq_n_s32(value); HALVES] }
    }

    #[inline(always)]
    unsafe fn left_sums(sums: Self::Sums, by: u32) -> Self::Sums {
        unsafe {
            let by = vdupq_n_s32(by as i32);
            both!(half => vshlq_s32(sums[half], by))
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, codes: Self::Codes, quad: i32) -> Self::Sums {
        // Codes below 128 are the same as signed bytes.
        unsafe {
            let quads = vdupq_n_s32(quad);
            both!(half => sdot(sums[half], codes[half], quads))
        }
    }

    #[inline(always)]
    unsafe fn dot_wide(sums: Self::Sums, codes: Self::Codes, quad: i32) -> Self::Sums {
        unsafe {
            let (quads, top) = (vdupq_n_s32(quad), vdupq_n_u8(128));
            both!(half => sdot(sums[half], veorq_u8(codes[half], top), quads))
        }
    }

    #[inline(always)]
    unsafe fn to_floats(sums: Self::Sums) -> Self::Floats {
        unsafe { both!(half => vcvtq_f32_s32(sums[half])) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        unsafe { [vdupq_n_f32(value); HALVES] }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self::Floats {
        unsafe { both!(half => vld1q_f32(at.add(COLUMNS * half))) }
    }

    #[inline(always)]
    unsafe fn store(values: Self::Floats, at: *mut f32) {
        unsafe {
            vst1q_f32(at, values[0]);
            vst1q_f32(at.add(COLUMNS), values[1]);
        }
    }

    #[inline(always)]
    unsafe fn halves(at: *const u16) -> Self::Floats {
        unsafe { both!(half => widen(vld1_u16(at.add(COLUMNS * half)))) }
    }

    #[inline(always)]
    unsafe fn unsigned(at: *const u8) -> Self::Floats {
        unsafe {
            let bytes = vmovl_u8(vld1_u8(at));
            [vcvtq_f32_u32(vmovl_u16(vget_low_u16(bytes))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(bytes)))]
        }
    }

    #[inline(always)]
    unsafe fn signed(at: *const u8) -> Self::Floats {
        unsafe {
            let bytes = vmovl_s8(vld1_s8(at.cast()));
            [vcvtq_f32_s32(vmovl_s16(vget_low_s16(bytes))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(bytes)))]
        }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        unsafe { both!(half => vmulq_f32(a[half], b[half])) }
    }

    #[inline(always)]
    unsafe fn fused(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        unsafe { both!(half => vfmaq_f32(c[half], a[half], b[half])) }
    }

    #[inline(always)]
    unsafe fn dot_pair(sums: Self::Floats, pairs: Self::Codes, pair: u32) -> Self::Floats {
        let [even, odd] = widen_pair(pair);
        unsafe {
            let high = vdupq_n_u32(!0xffff);
            both!(half => {
                let bits = vreinterpretq_u32_u8(pairs[half]);
                let odds = vreinterpretq_f32_u32(vandq_u32(bits, high));
                let evens = vreinterpretq_f32_u32(vshlq_n_u32::<16>(bits));
                let sums = vfmaq_f32(sums[half], odds, vdupq_n_f32(odd));
                vfmaq_f32(sums, evens, vdupq_n_f32(even))
            })
        }
    }
}

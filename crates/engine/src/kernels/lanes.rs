//! One vector register of the columns of a tile: what the kernels over tiles are written in.
//!
//! There is one body per kernel and one implementation of [`Lanes`] per instruction set. Integers are exact and every
//! multiply-add of floats is fused, in an order that depends on the column alone, so all of them give the same bits.

#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

/// Columns of a tile of weights: its rows of the matrix.
pub(crate) const TILE: usize = 16;

/// # Safety
/// Of every function: the processor has the instructions of the implementation, and a pointer leads to as many
/// elements as the function loads or stores: `COLUMNS`, or four times as many codes. No pointer needs alignment.
pub(super) trait Lanes {
    /// Columns of a register; a divisor of [`TILE`].
    const COLUMNS: usize;
    /// Rows of activations that the registers have room for; 1, 2, 4 or 8.
    const MAX_ROWS: usize;
    /// Whether [`Lanes::dot_wide`] takes 128 from each code, because an unsigned byte would overflow.
    const IS_CENTRED: bool;

    /// Four unsigned bytes for each column.
    type Codes: Copy;
    /// A 32-bit integer for each column.
    type Sums: Copy;
    /// A float for each column.
    type Floats: Copy;

    unsafe fn codes(at: *const u8) -> Self::Codes;
    unsafe fn splat_codes(byte: u8) -> Self::Codes;
    unsafe fn and(a: Self::Codes, b: Self::Codes) -> Self::Codes;
    unsafe fn or(a: Self::Codes, b: Self::Codes) -> Self::Codes;
    /// Bits move within pairs of bytes; what comes from the neighbour must be masked.
    unsafe fn left(codes: Self::Codes, by: u32) -> Self::Codes;
    unsafe fn right(codes: Self::Codes, by: u32) -> Self::Codes;

    unsafe fn splat_sums(value: i32) -> Self::Sums;
    unsafe fn left_sums(sums: Self::Sums, by: u32) -> Self::Sums;
    /// `sums + codes · quad`, where `quad` is four signed bytes and codes are below 128.
    unsafe fn dot(sums: Self::Sums, codes: Self::Codes, quad: i32) -> Self::Sums;
    /// The same for any codes, less 128 each where the implementation `IS_CENTRED`.
    unsafe fn dot_wide(sums: Self::Sums, codes: Self::Codes, quad: i32) -> Self::Sums;
    unsafe fn to_floats(sums: Self::Sums) -> Self::Floats;

    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn load(at: *const f32) -> Self::Floats;
    unsafe fn store(values: Self::Floats, at: *mut f32);
    /// From half precision.
    unsafe fn halves(at: *const u16) -> Self::Floats;
    unsafe fn unsigned(at: *const u8) -> Self::Floats;
    unsafe fn signed(at: *const u8) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    unsafe fn fused(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `sums + pairs · pair`: two bfloats for each column, the second product first, each rounded once.
    unsafe fn dot_pair(sums: Self::Floats, pairs: Self::Codes, pair: u32) -> Self::Floats;
}

/// What every processor has, and the twin that the others are checked against.
pub(super) struct Scalar;

/// For each element of an array, so that a compiler may turn it into what vectors the target has.
#[inline(always)]
fn each<T: Copy, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    std::array::from_fn(f)
}

/// The two bfloats of a pair, widened.
#[inline(always)]
fn widen_pair(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

impl Lanes for Scalar {
    const COLUMNS: usize = TILE;
    const MAX_ROWS: usize = 1;
    const IS_CENTRED: bool = false;

    type Codes = [u32; TILE];
    type Sums = [i32; TILE];
    type Floats = [f32; TILE];

    #[inline(always)]
    unsafe fn codes(at: *const u8) -> Self::Codes {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<Self::Codes>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat_codes(byte: u8) -> Self::Codes {
        [u32::from_ne_bytes([byte; 4]); TILE]
    }

    #[inline(always)]
    unsafe fn and(a: Self::Codes, b: Self::Codes) -> Self::Codes {
        each(|at| a[at] & b[at])
    }

    #[inline(always)]
    unsafe fn or(a: Self::Codes, b: Self::Codes) -> Self::Codes {
        each(|at| a[at] | b[at])
    }

    #[inline(always)]
    unsafe fn left(codes: Self::Codes, by: u32) -> Self::Codes {
        each(|at| codes[at] << by)
    }

    #[inline(always)]
    unsafe fn right(codes: Self::Codes, by: u32) -> Self::Codes {
        each(|at| codes[at] >> by)
    }

    #[inline(always)]
    unsafe fn splat_sums(value: i32) -> Self::Sums {
        [value; TILE]
    }

    #[inline(always)]
    unsafe fn left_sums(sums: Self::Sums, by: u32) -> Self::Sums {
        each(|at| sums[at] << by)
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, codes: Self::Codes, quad: i32) -> Self::Sums {
        let quad = quad.to_le_bytes().map(|byte| i32::from(byte as i8));
        each(|at| {
            let codes = codes[at].to_le_bytes().map(i32::from);
            sums[at] + codes[0] * quad[0] + codes[1] * quad[1] + codes[2] * quad[2] + codes[3] * quad[3]
        })
    }

    #[inline(always)]
    unsafe fn dot_wide(sums: Self::Sums, codes: Self::Codes, quad: i32) -> Self::Sums {
        // SAFETY: nothing here needs any.
        unsafe { Self::dot(sums, codes, quad) }
    }

    #[inline(always)]
    unsafe fn to_floats(sums: Self::Sums) -> Self::Floats {
        each(|at| sums[at] as f32)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        [value; TILE]
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self::Floats {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<Self::Floats>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(values: Self::Floats, at: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<Self::Floats>().write_unaligned(values) }
    }

    #[inline(always)]
    unsafe fn halves(at: *const u16) -> Self::Floats {
        // SAFETY: the caller's promise.
        let halves = unsafe { at.cast::<[u16; TILE]>().read_unaligned() };
        each(|at| half::f16::from_bits(halves[at]).to_f32())
    }

    #[inline(always)]
    unsafe fn unsigned(at: *const u8) -> Self::Floats {
        // SAFETY: the caller's promise.
        let bytes = unsafe { at.cast::<[u8; TILE]>().read_unaligned() };
        each(|at| f32::from(bytes[at]))
    }

    #[inline(always)]
    unsafe fn signed(at: *const u8) -> Self::Floats {
        // SAFETY: the caller's promise.
        let bytes = unsafe { at.cast::<[i8; TILE]>().read_unaligned() };
        each(|at| f32::from(bytes[at]))
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each(|at| a[at] * b[at])
    }

    #[inline(always)]
    unsafe fn fused(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each(|at| a[at].mul_add(b[at], c[at]))
    }

    #[inline(always)]
    unsafe fn dot_pair(sums: Self::Floats, pairs: Self::Codes, pair: u32) -> Self::Floats {
        let [even, odd] = widen_pair(pair);
        each(|at| {
            let weights = widen_pair(pairs[at]);
            weights[0].mul_add(even, weights[1].mul_add(odd, sums[at]))
        })
    }
}

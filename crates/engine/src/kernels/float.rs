//! The few float functions that the kernels share, written so that a compiler turns a loop over them into vectors.

/// Independent sums of one dot product. Fixed, because the order of additions is part of a result.
pub(super) const LANES: usize = 16;

/// `a · b`.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_tail) = a.as_chunks::<LANES>();
    let (b_lanes, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] = a[lane].mul_add(b[lane], sums[lane]);
        }
    }
    let mut sum = reduce(sums);
    for (a, b) in a_tail.iter().zip(b_tail) {
        sum = a.mul_add(*b, sum);
    }
    sum
}

/// Σ of the lanes, halving: what vector registers do well.
#[inline(always)]
pub(super) fn reduce(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Σ of `values`.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    let (lanes, tail) = values.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for values in lanes {
        for lane in 0..LANES {
            sums[lane] += values[lane];
        }
    }
    tail.iter().fold(reduce(sums), |sum, value| sum + value)
}

/// The largest value, NaN left out; minus infinity if there is none.
#[inline(always)]
pub(crate) fn maximum(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (lanes, tail) = values.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for values in lanes {
        for lane in 0..LANES {
            largest[lane] = larger(largest[lane], values[lane]);
        }
    }
    largest.into_iter().chain(tail.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// e^x to within 2 units in the last place, without branches, so that a loop over it becomes vectors. Below the
/// smallest normal number it is 0, above the largest it is infinite, and NaN stays NaN.
///
/// Cody-Waite reduction by ln 2 and the minimax polynomial of degree 6 known from the Cephes library.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Clamped so that the exponent below stays in its field; the two selects at the end set what is outside.
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.0 { -87.0 } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = whole.mul_add(-LN2_LOW, whole.mul_add(-LN2_HIGH, clamped));
    let mut sum: f32 = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum.mul_add(rest, coefficient);
    }
    let mantissa = (sum * rest).mul_add(rest, rest) + 1.0;
    let exponent = (shifted.to_bits() << 23).wrapping_add(0x3f80_0000);
    let result = mantissa * f32::from_bits(exponent);
    let result = if x < -87.0 { 0.0 } else { result };
    if x > 88.0 { f32::INFINITY } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_the_exponential() {
        for step in -87_000..88_000 {
            let x = step as f32 / 1000.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((ours - exact) / exact).abs() < 3e-7, "exp({x}) = {ours}, not {exact}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_maximum_is_found_in_lanes_and_tail_and_is_never_nan() {
        for at in 0..21 {
            let mut values = [-5.0; 21];
            values[at] = f32::NAN;
            values[20 - at] = -2.0;
            assert_eq!(maximum(&values), -2.0);
        }
        assert_eq!(maximum(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn dot_takes_lanes_and_tail() {
        let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..37).map(|i| (i % 3) as f32).collect();
        let exact: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        assert_eq!(dot(&a, &b), exact);
        assert_eq!(dot(&[], &[]), 0.0);
        assert_eq!((sum(&a), sum(&[])), (a.iter().sum(), 0.0));
    }
}

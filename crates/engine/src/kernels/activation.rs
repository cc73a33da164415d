//! The non-linear function of a feed-forward branch.

use super::{Cpu, float, tier::tiered};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// The tanh approximation of x * Φ(x).
    Gelu,
    /// x * Φ(x).
    ExactGelu,
}

/// `gate = activation(gate) * up`.
pub(crate) fn gated(cpu: Cpu, activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Silu => gated_silu(cpu, gate, up),
        Activation::Gelu => gated_gelu(cpu, gate, up),
        Activation::ExactGelu => gated_exact_gelu(cpu, gate, up),
    }
}

/// `values = activation(values)`.
pub(crate) fn plain(cpu: Cpu, activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Silu => plain_silu(cpu, values),
        Activation::Gelu => plain_gelu(cpu, values),
        Activation::ExactGelu => plain_exact_gelu(cpu, values),
    }
}

tiered! { fn gated_silu(gate: &mut [f32], up: &[f32]) = silu_body }
tiered! { fn gated_gelu(gate: &mut [f32], up: &[f32]) = gelu_body }
tiered! { fn gated_exact_gelu(gate: &mut [f32], up: &[f32]) = exact_gelu_body }
tiered! { fn plain_silu(values: &mut [f32]) = plain_silu_body }
tiered! { fn plain_gelu(values: &mut [f32]) = plain_gelu_body }
tiered! { fn plain_exact_gelu(values: &mut [f32]) = plain_exact_gelu_body }

#[inline(always)]
fn silu_body(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = silu(*gate) * up;
    }
}

#[inline(always)]
fn gelu_body(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = gelu(*gate) * up;
    }
}

#[inline(always)]
fn exact_gelu_body(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = exact_gelu(*gate) * up;
    }
}

#[inline(always)]
fn plain_silu_body(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = silu(*value));
}

#[inline(always)]
fn plain_gelu_body(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = gelu(*value));
}

#[inline(always)]
fn plain_exact_gelu_body(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = exact_gelu(*value));
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + float::exp(-x))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let inner = SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x);
    // (1 + tanh(y)) / 2 is the logistic function of 2y.
    x / (1.0 + float::exp(-2.0 * inner))
}

/// With the error function to within 1.5e-7, by formula 7.1.26 of Abramowitz and Stegun's handbook.
#[inline(always)]
fn exact_gelu(x: f32) -> f32 {
    let y = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * y);
    let mut sum = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        sum = sum * t + coefficient;
    }
    let tail = sum * t * float::exp(-y * y); // 1 - erf(y)
    0.5 * x * if x < 0.0 { tail } else { 2.0 - tail }
}

/// `cap * tanh(value / cap)`: keeps values within ±cap.
#[inline(always)]
pub(super) fn soft_cap(value: f32, cap: f32) -> f32 {
    // tanh(y) = 2 / (1 + e^-2y) - 1.
    cap * (2.0 / (1.0 + float::exp(-2.0 * value / cap)) - 1.0)
}

tiered! {
    /// [`soft_cap`] of every value.
    pub(crate) fn cap_all(values: &mut [f32], cap: f32) = cap_body
}

#[inline(always)]
fn cap_body(values: &mut [f32], cap: f32) {
    for value in values {
        *value = soft_cap(*value, cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Tier;

    fn one(activation: Activation, x: f32) -> f32 {
        let mut gate = [x];
        let cpu = Cpu::new(Tier::detect()).unwrap();
        gated(cpu, activation, &mut gate, &[2.0]);
        let mut values = [x];
        plain(cpu, activation, &mut values);
        assert!(values[0] == gate[0] / 2.0 || x.is_nan(), "{activation:?} of {x}");
        values[0]
    }

    #[test]
    fn the_functions_are_their_formulas() {
        for step in -60..60 {
            let x = step as f32 / 4.0;
            let exact = f64::from(x);
            let silu = exact / (1.0 + (-exact).exp());
            let cubed = exact + 0.044715 * exact.powi(3);
            let gelu = 0.5 * exact * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * cubed).tanh());
            assert!((f64::from(one(Activation::Silu, x)) - silu).abs() < 2e-6, "silu({x})");
            assert!((f64::from(one(Activation::Gelu, x)) - gelu).abs() < 2e-6, "gelu({x})");
            let phi = simpson(exact);
            assert!((f64::from(one(Activation::ExactGelu, x)) - exact * phi).abs() < 2e-6, "exact gelu({x})");
            assert!((f64::from(soft_cap(x, 5.0)) - 5.0 * (exact / 5.0).tanh()).abs() < 2e-6, "cap({x})");
        }
    }

    /// Φ(x): the integral of the normal density from 0, by Simpson's rule.
    fn simpson(x: f64) -> f64 {
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (steps, width) = (2000, x / 2000.0);
        let weight = |at: i32| if at == 0 || at == steps { 1.0 } else { f64::from(2 + 2 * (at % 2)) };
        0.5 + (0..=steps).map(|at| weight(at) * density(f64::from(at) * width)).sum::<f64>() * width / 3.0
    }

    #[test]
    fn the_ends_are_finite_and_nan_stays() {
        assert_eq!(one(Activation::Silu, -1e30), 0.0);
        assert_eq!(one(Activation::Gelu, 1e18), 1e18);
        assert_eq!((one(Activation::ExactGelu, 1e18), one(Activation::ExactGelu, -1e18)), (1e18, 0.0));
        assert_eq!(soft_cap(1e30, 30.0), 30.0);
        assert_eq!(soft_cap(-1e30, 30.0), -30.0);
        assert!(one(Activation::Silu, f32::NAN).is_nan() && one(Activation::ExactGelu, f32::NAN).is_nan());
        assert!(soft_cap(f32::NAN, 1.0).is_nan());
    }
}

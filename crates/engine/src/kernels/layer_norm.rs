//! Layer normalisation, <https://arxiv.org/abs/1607.06450>.

use super::{float, tier::tiered};

/// What a normalised row is stretched and moved by.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    /// [dim], or of as many kinds of rows as there are in turn, [kinds, dim].
    pub weight: &'a [f32],
    /// [dim]; empty = nothing is added.
    pub bias: &'a [f32],
    pub epsilon: f32,
}

tiered! {
    /// Each row of `rows`, [n, dim], less its mean, divided by its standard deviation, and then by `affine`.
    pub(crate) fn layer_norm(rows: &mut [f32], dim: usize, affine: Affine<'_>) = body
}

#[inline(always)]
fn body(rows: &mut [f32], dim: usize, affine: Affine<'_>) {
    let Affine { weight, bias, epsilon } = affine;
    for (row, weight) in rows.chunks_exact_mut(dim).zip(weight.chunks_exact(dim).cycle()) {
        let mean = float::sum(row) / dim as f32;
        row.iter_mut().for_each(|value| *value -= mean);
        let scale = 1.0 / (float::dot(row, row) / dim as f32 + epsilon).sqrt();
        for (value, weight) in row.iter_mut().zip(weight) {
            *value = *value * scale * weight;
        }
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Cpu, Tier};

    fn run(tier: Tier, rows: &[f32], dim: usize, affine: Affine<'_>) -> Vec<f32> {
        let mut rows = rows.to_vec();
        layer_norm(Cpu::new(tier).unwrap(), &mut rows, dim, affine);
        rows
    }

    #[test]
    fn rows_have_the_mean_and_the_deviation_that_they_are_given() {
        let rows: Vec<f32> = (0..111).map(|i| ((i * 37) % 101) as f32 + 500.0).collect();
        let affine = Affine { weight: &[2.0; 37], bias: &[7.0; 37], epsilon: 0.0 };
        let normed = run(Tier::detect(), &rows, 37, affine);
        for row in normed.chunks(37) {
            let mean = row.iter().sum::<f32>() / 37.0;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 37.0;
            assert!((mean - 7.0).abs() < 1e-4 && (variance - 4.0).abs() < 1e-3, "{mean} {variance}");
        }
        for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
            assert_eq!(run(tier, &rows, 37, affine), normed, "{tier:?}");
        }
    }

    #[test]
    fn kinds_of_rows_take_turns() {
        let affine = Affine { weight: &[1.0, 1.0, 10.0, 10.0], bias: &[], epsilon: 0.0 };
        let normed = run(Tier::Scalar, &[1.0, 3.0, 5.0, 1.0, 0.0, 4.0, 4.0, 0.0], 2, affine);
        assert_eq!(normed, [-1.0, 1.0, 10.0, -10.0, -1.0, 1.0, 10.0, -10.0]);
    }
}

//! Root mean square normalisation, <https://arxiv.org/abs/1910.07467>.

use super::{float, tier::tiered};

tiered! {
    /// Each row of `rows`, [n, weight.len()], divided by its root mean square and multiplied by `weight`.
    pub(crate) fn rms(rows: &mut [f32], weight: &[f32], epsilon: f32) = body
}

#[inline(always)]
fn body(rows: &mut [f32], weight: &[f32], epsilon: f32) {
    for row in rows.chunks_exact_mut(weight.len()) {
        let mean = float::dot(row, row) / row.len() as f32;
        let scale = 1.0 / (mean + epsilon).sqrt();
        for (value, weight) in row.iter_mut().zip(weight) {
            *value = *value * scale * weight;
        }
    }
}

/// The first row of `rows`, [n, cols], that holds a value that is not finite.
pub(crate) fn not_finite(rows: &[f32], cols: usize) -> Option<usize> {
    // 0 times a value is 0 if the value is finite and NaN if not: one pass without a branch per value.
    rows.chunks_exact(cols)
        .position(|row| row.iter().fold(0.0, |poison: f32, value| poison + value * 0.0) != 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Cpu, Tier};

    #[test]
    fn rows_have_a_mean_square_of_one() {
        let mut rows: Vec<f32> = (0..60).map(|i| i as f32 - 13.0).collect();
        rms(Cpu::new(Tier::detect()).unwrap(), &mut rows, &[2.0; 20], 0.0);
        for row in rows.chunks(20) {
            let mean: f32 = row.iter().map(|value| value * value).sum::<f32>() / 20.0;
            assert!((mean - 4.0).abs() < 1e-4);
        }
    }

    #[test]
    fn the_row_that_is_not_finite_is_named() {
        let mut rows = vec![1e30; 12];
        assert_eq!(not_finite(&rows, 4), None);
        rows[9] = f32::INFINITY;
        assert_eq!(not_finite(&rows, 4), Some(2));
        rows[5] = f32::NAN;
        assert_eq!(not_finite(&rows, 4), Some(1));
    }
}

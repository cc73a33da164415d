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

tiered! {
    /// `row += update`. False when a sum is not finite.
    pub(crate) fn add(row: &mut [f32], update: &[f32]) -> bool = add_body
}

#[inline(always)]
fn add_body(row: &mut [f32], update: &[f32]) -> bool {
    let mut poison = [0f32; float::LANES];
    let (lanes, tail) = row.as_chunks_mut::<{ float::LANES }>();
    let (update_lanes, update_tail) = update.as_chunks::<{ float::LANES }>();
    for (row, update) in lanes.iter_mut().zip(update_lanes) {
        for lane in 0..float::LANES {
            row[lane] += update[lane];
            // 0 times a value is 0 if the value is finite and NaN if not.
            poison[lane] += row[lane] * 0.0;
        }
    }
    let mut rest = 0.0;
    for (value, update) in tail.iter_mut().zip(update_tail) {
        *value += update;
        rest += *value * 0.0;
    }
    float::reduce(poison) + rest == 0.0
}

tiered! {
    /// Whether every value is finite.
    pub(crate) fn is_finite(values: &[f32]) -> bool = is_finite_body
}

#[inline(always)]
fn is_finite_body(values: &[f32]) -> bool {
    let mut poison = [0f32; float::LANES];
    let (lanes, tail) = values.as_chunks::<{ float::LANES }>();
    for values in lanes {
        for lane in 0..float::LANES {
            poison[lane] += values[lane] * 0.0;
        }
    }
    float::reduce(poison) + tail.iter().map(|value| value * 0.0).sum::<f32>() == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Cpu, Tier};

    fn cpu() -> Cpu {
        Cpu::new(Tier::detect()).unwrap()
    }

    #[test]
    fn rows_have_a_mean_square_of_one() {
        let mut rows: Vec<f32> = (0..60).map(|i| i as f32 - 13.0).collect();
        rms(cpu(), &mut rows, &[2.0; 20], 0.0);
        for row in rows.chunks(20) {
            let mean: f32 = row.iter().map(|value| value * value).sum::<f32>() / 20.0;
            assert!((mean - 4.0).abs() < 1e-4);
        }
    }

    #[test]
    fn one_value_that_is_not_finite_is_seen_wherever_it_is() {
        for len in [1, 16, 37] {
            let mut row = vec![1e38; len];
            assert!(is_finite(cpu(), &row) && add(cpu(), &mut row, &vec![1e38; len]));
            assert_eq!(row, vec![2e38; len]);
            for at in 0..len {
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut update = vec![0.0; len];
                    update[at] = bad;
                    assert!(!is_finite(cpu(), &update) && !add(cpu(), &mut row.clone(), &update));
                }
            }
        }
    }
}

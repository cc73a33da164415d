//! Rotary position embedding, <https://arxiv.org/abs/2104.09864>. Scaling is not seen here: it is folded into the
//! frequencies when a model is loaded.

use super::{Cpu, tier::tiered};

/// Which two values of a head are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// Neighbours: (0, 1), (2, 3), ... as in the paper, and as llama's files are permuted for.
    Neighbours,
    /// Halves: (0, d/2), (1, d/2 + 1), ... as GPT-NeoX does.
    Halves,
}

/// Sine and cosine of every angle of a batch, computed once per step for all blocks.
#[derive(Debug, Default)]
pub(crate) struct Angles {
    /// [n, frequencies] each.
    cos: Vec<f32>,
    sin: Vec<f32>,
    frequencies: usize,
}

/// The angles of one row.
#[derive(Clone, Copy)]
pub(crate) struct Turns<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Angles {
    /// For each of `positions`, its angles at `frequencies` (radians per position), scaled by `magnitude`.
    pub fn fill(&mut self, positions: &[u32], frequencies: &[f32], magnitude: f32) {
        self.frequencies = frequencies.len();
        self.cos.clear();
        self.sin.clear();
        for &position in positions {
            for frequency in frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                self.cos.push(cos * magnitude);
                self.sin.push(sin * magnitude);
            }
        }
    }

    /// Cosines and sines, [n, frequencies] each, and how many frequencies.
    pub fn parts(&self) -> (&[f32], &[f32], usize) {
        (&self.cos, &self.sin, self.frequencies)
    }

    pub fn of_row(&self, row: usize) -> Turns<'_> {
        let part = row * self.frequencies..(row + 1) * self.frequencies;
        Turns { cos: &self.cos[part.clone()], sin: &self.sin[part] }
    }
}

/// Turns the heads of a row, [heads, head_dim]. What a head has beyond two values per frequency stays.
pub(crate) fn turn(cpu: Cpu, pairing: Pairing, turns: Turns<'_>, (row, head_dim): (&mut [f32], usize)) {
    match pairing {
        Pairing::Neighbours => turn_neighbours(cpu, turns, row, head_dim),
        Pairing::Halves => turn_halves(cpu, turns, row, head_dim),
    }
}

tiered! { fn turn_neighbours(turns: Turns<'_>, row: &mut [f32], head_dim: usize) = neighbours_body }
tiered! { fn turn_halves(turns: Turns<'_>, row: &mut [f32], head_dim: usize) = halves_body }

#[inline(always)]
fn neighbours_body(turns: Turns<'_>, row: &mut [f32], head_dim: usize) {
    for head in row.chunks_exact_mut(head_dim) {
        for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns.cos).zip(turns.sin) {
            *pair = [pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos];
        }
    }
}

#[inline(always)]
fn halves_body(turns: Turns<'_>, row: &mut [f32], head_dim: usize) {
    let half = turns.cos.len();
    for head in row.chunks_exact_mut(head_dim) {
        let (first, second) = head[..2 * half].split_at_mut(half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(turns.cos).zip(turns.sin) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Tier;

    fn turn_row(pairing: Pairing, angles: &Angles, row: usize, values: &mut [f32], head_dim: usize) {
        turn(Cpu::new(Tier::detect()).unwrap(), pairing, angles.of_row(row), (values, head_dim));
    }

    #[test]
    fn a_quarter_turn_moves_the_first_value_to_the_second() {
        let quarter = std::f32::consts::FRAC_PI_2;
        let mut angles = Angles::default();
        angles.fill(&[0, 1], &[quarter, 0.0], 1.0);
        let turned = |pairing: Pairing, row: usize| {
            let mut values = [1., 2., 3., 4., 9.];
            turn_row(pairing, &angles, row, &mut values, 5);
            values.map(|value| value.round() as i32)
        };
        assert_eq!(turned(Pairing::Neighbours, 0), [1, 2, 3, 4, 9]);
        assert_eq!(turned(Pairing::Neighbours, 1), [-2, 1, 3, 4, 9]);
        assert_eq!(turned(Pairing::Halves, 0), [1, 2, 3, 4, 9]);
        assert_eq!(turned(Pairing::Halves, 1), [-3, 2, 1, 4, 9]);
    }

    #[test]
    fn the_product_of_two_turned_rows_depends_on_their_distance() {
        let frequencies = [1.0, 0.1, 0.01];
        let turned = |position: u32, head: [f32; 6]| {
            let mut angles = Angles::default();
            angles.fill(&[position], &frequencies, 1.0);
            let mut rows = head;
            turn_row(Pairing::Neighbours, &angles, 0, &mut rows, 6);
            rows
        };
        let (q, k) = ([0.3, -1.0, 0.5, 2.0, -0.7, 0.1], [1.0, 0.2, -0.4, 0.9, 0.8, -1.1]);
        let product = |at: u32, other: u32| -> f32 {
            turned(at, q).iter().zip(turned(other, k)).map(|(a, b)| a * b).sum()
        };
        assert!((product(17, 12) - product(105, 100)).abs() < 1e-4);
        assert!((product(17, 12) - product(17, 3)).abs() > 1e-2);
    }
}

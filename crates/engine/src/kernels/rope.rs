//! Rotary position embedding, <https://arxiv.org/abs/2104.09864>. Scaling is not seen here: it is folded into the
//! frequencies when a model is loaded.

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
    /// (cos, sin), [n, frequencies].
    turns: Vec<(f32, f32)>,
    frequencies: usize,
}

impl Angles {
    /// For each of `positions`, its angles at `frequencies` (radians per position), scaled by `magnitude`.
    pub fn fill(&mut self, positions: &[u32], frequencies: &[f32], magnitude: f32) {
        self.frequencies = frequencies.len();
        self.turns.clear();
        for &position in positions {
            self.turns.extend(frequencies.iter().map(|frequency| {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                (cos * magnitude, sin * magnitude)
            }));
        }
    }

    /// Turns the heads of `rows`, [n, heads, head_dim]. What a head has beyond two values per frequency stays.
    pub fn turn(&self, pairing: Pairing, rows: &mut [f32], head_dim: usize) {
        let n = self.turns.len() / self.frequencies;
        let row_len = rows.len() / n;
        for (row, turns) in rows.chunks_exact_mut(row_len).zip(self.turns.chunks_exact(self.frequencies)) {
            for head in row.chunks_exact_mut(head_dim) {
                match pairing {
                    Pairing::Neighbours => turn_neighbours(head, turns),
                    Pairing::Halves => turn_halves(head, turns),
                }
            }
        }
    }
}

fn turn_neighbours(head: &mut [f32], turns: &[(f32, f32)]) {
    for (pair, (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
        *pair = [pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos];
    }
}

fn turn_halves(head: &mut [f32], turns: &[(f32, f32)]) {
    let (first, second) = head[..2 * turns.len()].split_at_mut(turns.len());
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(turns) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_moves_the_first_value_to_the_second() {
        let quarter = std::f32::consts::FRAC_PI_2;
        let mut angles = Angles::default();
        angles.fill(&[0, 1], &[quarter, 0.0], 1.0);
        let rounded = |rows: &[f32]| rows.iter().map(|value| value.round() as i32).collect::<Vec<_>>();
        let mut rows = [1., 2., 3., 4., 9., 1., 2., 3., 4., 9.];
        angles.turn(Pairing::Neighbours, &mut rows, 5);
        assert_eq!(rounded(&rows), [1, 2, 3, 4, 9, -2, 1, 3, 4, 9]);
        let mut rows = [1., 2., 3., 4., 9., 1., 2., 3., 4., 9.];
        angles.turn(Pairing::Halves, &mut rows, 5);
        assert_eq!(rounded(&rows), [1, 2, 3, 4, 9, -3, 2, 1, 4, 9]);
    }

    #[test]
    fn the_product_of_two_turned_rows_depends_on_their_distance() {
        let frequencies = [1.0, 0.1, 0.01];
        let turned = |position: u32, head: [f32; 6]| {
            let mut angles = Angles::default();
            angles.fill(&[position], &frequencies, 1.0);
            let mut rows = head;
            angles.turn(Pairing::Neighbours, &mut rows, 6);
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

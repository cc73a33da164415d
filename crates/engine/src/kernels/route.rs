//! Which experts a row goes through.

use super::float;

/// As llama.cpp does: the weights of experts that are all but impossible are not blown up.
const LEAST_SUM: f32 = 6.103_515_6e-5;

/// The `used` best of one row's `scores`, by expert, and their probabilities: the softmax over all scores, or, where
/// it `is_normalised`, over those alone. Of equal scores the first counts. `scores` are used up.
pub(crate) fn choose(scores: &mut [f32], used: usize, is_normalised: bool, best: &mut Vec<(u32, f32)>) {
    let highest = scores.iter().fold(f32::NEG_INFINITY, |highest, &score| highest.max(score));
    scores.iter_mut().for_each(|score| *score = float::exp(*score - highest));
    // NaN anywhere makes the sum NaN, and with it every weight: the row is found to be broken.
    let total: f32 = scores.iter().sum();
    best.clear();
    best.extend((0..).zip(scores.iter().map(|score| score / total)));
    if used < best.len() {
        best.select_nth_unstable_by(used, |(a, one), (b, other)| other.total_cmp(one).then(a.cmp(b)));
        best.truncate(used);
    }
    best.sort_unstable_by_key(|(expert, _)| *expert);
    if is_normalised {
        let sum: f32 = best.iter().map(|(_, weight)| weight).sum();
        let sum = if sum < LEAST_SUM { LEAST_SUM } else { sum };
        best.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
}

/// Multiplies each row of `rows`, [n, gate.len()], by the logistic function of `gate` · the same row of `inputs`.
pub(crate) fn gate_rows(rows: &mut [f32], inputs: &[f32], gate: &[f32]) {
    for (row, input) in rows.chunks_exact_mut(gate.len()).zip(inputs.chunks_exact(gate.len())) {
        let open = 1.0 / (1.0 + float::exp(-float::dot(gate, input)));
        row.iter_mut().for_each(|value| *value *= open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(scores: &[f32], used: usize, is_normalised: bool) -> Vec<(u32, f32)> {
        let mut best = vec![(7, 7.0)];
        choose(&mut scores.to_vec(), used, is_normalised, &mut best);
        best
    }

    #[test]
    fn the_best_are_chosen_with_their_share_of_all_or_of_themselves() {
        let scores = [1f32, 3.0, -1.0, 2.0];
        let total: f32 = scores.iter().map(|score| score.exp()).sum();
        let close = |found: &[(u32, f32)], expected: [(u32, f32); 2]| {
            found.len() == 2
                && found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6)
        };
        let shares = [3f32.exp() / total, 2f32.exp() / total];
        assert!(close(&chosen(&scores, 2, false), [(1, shares[0]), (3, shares[1])]));
        let sum = shares[0] + shares[1];
        assert!(close(&chosen(&scores, 2, true), [(1, shares[0] / sum), (3, shares[1] / sum)]));
        assert_eq!(chosen(&scores, 4, false).len(), 4);
    }

    #[test]
    fn of_equal_scores_the_first_ones_count() {
        let experts: Vec<u32> = chosen(&[0.5; 9], 3, true).iter().map(|(expert, _)| *expert).collect();
        assert_eq!(experts, [0, 1, 2]);
    }

    #[test]
    fn broken_scores_give_broken_weights_and_no_panic() {
        for broken in [f32::NAN, -f32::NAN, f32::INFINITY] {
            let best = chosen(&[1.0, broken, 2.0, 0.0], 2, true);
            assert!(best.len() == 2 && best.iter().all(|(_, weight)| weight.is_nan()), "{broken}: {best:?}");
        }
    }

    #[test]
    fn a_gate_that_is_half_open_halves_its_row() {
        let mut rows = [2.0, 4.0, 6.0, 8.0];
        gate_rows(&mut rows, &[1.0, 1.0, 60.0, 60.0], &[1.0, -1.0]);
        assert_eq!(rows, [1.0, 2.0, 3.0, 4.0]);
        gate_rows(&mut rows, &[50.0, 50.0, -99.0, -99.0], &[1.0, 1.0]);
        assert_eq!(rows, [1.0, 2.0, 0.0, 0.0]);
    }
}

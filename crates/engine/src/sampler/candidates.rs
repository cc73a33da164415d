//! The tokens that are still in the running, and the filters that take some out. Each filter works on the
//! distribution over what the one before has left, as in llama.cpp.

use std::cmp::Ordering;

use super::Mask;
use crate::Sampling;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    pub logit: f32,
}

/// Never empty once filled; buffers are reused from token to token.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    items: Vec<Candidate>,
    /// How many of the first items are the best ones, best first; the others follow in any order.
    sorted: usize,
    weights: Vec<f64>,
}

/// Best logit first, then lowest id: a total order, so that a result never depends on how it was found.
fn better(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

// === impl Candidates ===

impl Candidates {
    pub fn items(&self) -> &[Candidate] {
        &self.items
    }

    /// The tokens that are allowed and pass every filter.
    pub fn narrow(&mut self, sampling: &Sampling, logits: &[f32], allowed: Option<&Mask>) {
        match sampling.top_k {
            0 => self.fill(logits, allowed),
            k => self.fill_best(logits, allowed, k),
        }
        if sampling.typical_p < 1.0 {
            self.keep_typical(sampling.typical_p);
        }
        if sampling.top_p < 1.0 {
            self.keep_mass(sampling.top_p);
        }
        if sampling.min_p > 0.0 {
            self.keep_likely(sampling.min_p);
        }
    }

    /// All tokens that are allowed.
    fn fill(&mut self, logits: &[f32], allowed: Option<&Mask>) {
        self.items.clear();
        match allowed {
            None => self.items.extend((0..).zip(logits).map(|(id, &logit)| Candidate { id, logit })),
            Some(mask) => self.items.extend(scored(logits, mask)),
        }
        self.sorted = 0;
    }

    /// The `k` best tokens that are allowed, best first, without ever holding all of them: a pass over the logits keeps what beats
    /// the worst of the best `k` so far.
    pub fn fill_best(&mut self, logits: &[f32], allowed: Option<&Mask>, k: usize) {
        let k = k.clamp(1, logits.len().max(1));
        match allowed {
            None => self.keep_best((0..).zip(logits).map(|(id, &logit)| Candidate { id, logit }), k),
            Some(mask) => self.keep_best(scored(logits, mask), k),
        }
    }

    /// `tokens` come with rising ids.
    fn keep_best(&mut self, tokens: impl Iterator<Item = Candidate>, k: usize) {
        // Room to collect between two selections, so that these cost little per token.
        let room = (4 * k).max(256);
        self.items.clear();
        let mut bound = f32::NEG_INFINITY;
        for candidate in tokens {
            // On a tie the lower id wins, and that is already there.
            if candidate.logit <= bound {
                continue;
            }
            self.items.push(candidate);
            if self.items.len() == room {
                self.items.select_nth_unstable_by(k - 1, better);
                self.items.truncate(k);
                bound = self.items[k - 1].logit;
            }
        }
        self.sorted = 0;
        self.sort(k);
        self.items.truncate(k);
    }

    /// Keeps the tokens whose surprise is nearest to the expected one, up to the mass `p` (Meister et al. 2022,
    /// "Locally typical sampling").
    fn keep_typical(&mut self, p: f32) {
        self.weigh();
        let total: f64 = self.weights.iter().sum();
        let surprise = |weight: f64| -(weight / total).max(f64::MIN_POSITIVE).ln();
        let entropy: f64 = self.weights.iter().map(|&weight| weight / total * surprise(weight)).sum();
        let mut order: Vec<(f64, f64, Candidate)> = (self.weights.iter().zip(&self.items))
            .map(|(&weight, &candidate)| ((surprise(weight) - entropy).abs(), weight / total, candidate))
            .collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then_with(|| better(&a.2, &b.2)));
        self.items.clear();
        let mut mass = 0.0;
        for (_, probability, candidate) in order {
            self.items.push(candidate);
            mass += probability;
            if mass > f64::from(p) {
                break;
            }
        }
        self.sorted = 0;
    }

    /// Keeps the best tokens that together have the mass `p`, at least one (Holtzman et al. 2020, "The curious case
    /// of neural text degeneration").
    fn keep_mass(&mut self, p: f32) {
        let best = self.best();
        let total: f64 = self.items.iter().map(|candidate| weight(candidate, best)).sum();
        let mut mass = 0.0;
        let mut kept = 0;
        while kept < self.items.len() && (kept == 0 || mass < f64::from(p) * total) {
            if kept == self.sorted {
                // Few are needed as a rule, so only as many are sorted as turn out to be.
                self.sort((4 * kept).max(128));
            }
            mass += weight(&self.items[kept], best);
            kept += 1;
        }
        self.items.truncate(kept);
        self.sorted = kept;
    }

    /// Keeps the tokens that are at least `p` times as likely as the best one (Nguyen et al. 2024, "Turning up the
    /// heat: min-p sampling").
    fn keep_likely(&mut self, p: f32) {
        let best = self.best();
        let bound = best + p.min(1.0).ln();
        let sorted = &self.items[..self.sorted];
        let still_sorted = sorted.iter().take_while(|candidate| candidate.logit >= bound).count();
        self.items.retain(|candidate| candidate.logit >= bound);
        self.sorted = still_sorted;
    }

    /// The token at `point`, in [0, 1), of the distribution at that temperature, which is above 0.
    pub fn draw(&mut self, temperature: f32, point: f64) -> u32 {
        let best = self.best();
        let temperature = f64::from(temperature);
        self.weights.clear();
        let weights =
            self.items.iter().map(|item| ((f64::from(item.logit) - f64::from(best)) / temperature).exp());
        self.weights.extend(weights);
        let mut rest = point * self.weights.iter().sum::<f64>();
        for (candidate, weight) in self.items.iter().zip(&self.weights) {
            if rest < *weight {
                return candidate.id;
            }
            rest -= weight;
        }
        // Rounding may leave a trace beyond the last one.
        self.items.last().map_or(0, |candidate| candidate.id)
    }

    fn best(&self) -> f32 {
        match self.sorted {
            0 => self.items.iter().fold(f32::NEG_INFINITY, |best, candidate| best.max(candidate.logit)),
            _ => self.items[0].logit,
        }
    }

    fn weigh(&mut self) {
        let best = self.best();
        self.weights.clear();
        self.weights.extend(self.items.iter().map(|candidate| weight(candidate, best)));
    }

    /// Makes the first `count` items the best ones, best first.
    fn sort(&mut self, count: usize) {
        if count <= self.sorted {
            return;
        }
        let unsorted = &mut self.items[self.sorted..];
        let count = (count - self.sorted).min(unsorted.len());
        if count < unsorted.len() {
            unsorted.select_nth_unstable_by(count, better);
        }
        unsorted[..count].sort_unstable_by(better);
        self.sorted += count;
    }
}

/// The tokens of `mask` and their logits.
fn scored(logits: &[f32], mask: &Mask) -> impl Iterator<Item = Candidate> {
    let known = mask.tokens().take_while(|id| (*id as usize) < logits.len());
    known.map(|id| Candidate { id, logit: logits[id as usize] })
}

/// Proportional to the probability.
fn weight(candidate: &Candidate, best: f32) -> f64 {
    f64::from((candidate.logit - best).exp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(candidates: &Candidates) -> Vec<u32> {
        candidates.items.iter().map(|candidate| candidate.id).collect()
    }

    /// Logits of a distribution.
    fn filled(probabilities: &[f32]) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.fill(&probabilities.iter().map(|p| p.ln()).collect::<Vec<_>>(), None);
        candidates
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_with_the_mass() {
        for (p, expected) in
            [(0.0, &[3][..]), (0.39, &[3]), (0.5, &[3, 1]), (0.75, &[3, 1, 0]), (0.99, &[3, 1, 0, 2])]
        {
            let mut candidates = filled(&[0.2, 0.3, 0.1, 0.4]);
            candidates.keep_mass(p);
            assert_eq!(ids(&candidates), expected, "top_p {p}");
        }
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        for (p, expected) in
            [(0.2, &[0, 1, 2, 3][..]), (0.45, &[0, 1, 3]), (0.74, &[1, 3]), (1.0, &[3]), (9.0, &[3])]
        {
            let mut candidates = filled(&[0.2, 0.3, 0.1, 0.4]);
            candidates.keep_likely(p);
            assert_eq!(ids(&candidates), expected, "min_p {p}");
        }
    }

    #[test]
    fn typical_tokens_are_those_whose_surprise_is_the_expected_one() {
        // Entropy 1.14 nats; surprises 0.51, 1.61, 2.30, 2.30: distances 0.58, 0.52, 1.21, 1.21.
        let mut candidates = filled(&[0.6, 0.2, 0.1, 0.1]);
        candidates.keep_typical(0.1);
        assert_eq!(ids(&candidates), [1]);
        let mut candidates = filled(&[0.6, 0.2, 0.1, 0.1]);
        candidates.keep_typical(0.7);
        assert_eq!(ids(&candidates), [1, 0]);
    }

    #[test]
    fn a_point_falls_into_the_share_of_its_token() {
        for (point, expected) in
            [(0.0, 0), (0.19, 0), (0.21, 1), (0.49, 1), (0.51, 2), (0.61, 3), (0.999_999, 3)]
        {
            assert_eq!(filled(&[0.2, 0.3, 0.1, 0.4]).draw(1.0, point), expected, "point {point}");
        }
        assert_eq!(filled(&[0.2, 0.3, 0.1, 0.4]).draw(1e-38, 0.5), 3, "nearly greedy");
        assert_eq!(filled(&[0.2, 0.3, 0.1, 0.4]).draw(f32::MAX, 0.3), 1, "nearly uniform");
    }

    proptest! {
        #[test]
        fn the_best_are_found_as_by_sorting(logits in logits(), k in 1usize..600) {
            let mut fast = Candidates::default();
            fast.fill_best(&logits, None, k);
            let mut slow = Candidates::default();
            slow.fill(&logits, None);
            slow.items.sort_by(better);
            slow.items.truncate(k);
            prop_assert_eq!(fast.items, slow.items);
        }

        #[test]
        fn the_nucleus_is_found_as_by_sorting_all(logits in logits(), p in 0.0f32..1.0) {
            let mut fast = Candidates::default();
            fast.fill(&logits, None);
            fast.keep_mass(p);
            let mut slow = Candidates::default();
            slow.fill_best(&logits, None, logits.len());
            slow.keep_mass(p);
            // The sums run in another order, so the last token may fall on either side of the bound.
            prop_assert!(fast.items.len().abs_diff(slow.items.len()) <= 1);
            let shared = fast.items.len().min(slow.items.len());
            prop_assert_eq!(&fast.items[..shared], &slow.items[..shared]);
        }
    }

    /// Few distinct values, so that ties are common.
    fn logits() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec((-40i32..40).prop_map(|x| x as f32 / 4.0), 1..2000)
    }
}

//! Guesses at what a sequence says next, from what it has said before: what came after the last place that reads like
//! its end (Saxena 2023, "Prompt lookup decoding"). A guess that is right saves a step, one that is wrong costs a row.

/// Tokens that must agree for a place to read alike; fewer agree by chance.
const LONGEST_CONTEXT: usize = 3;
const SHORTEST_CONTEXT: usize = 2;

/// Tokens that are looked at: some ten microseconds' worth.
const MAX_HISTORY: usize = 1 << 14;

/// How often the guesses of a sequence were right lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record(f64);

/// Guesses that a record remembers.
const MEMORY: f64 = 8.0;
/// Steps after which a sequence that was hard to guess is tried again, about.
const PATIENCE: f64 = 64.0;
/// What is expected of a sequence that nothing is known of.
const UNKNOWN: f64 = 0.5;

impl Record {
    /// Of a sequence whose guesses did harm.
    pub fn hopeless() -> Record {
        Record(0.0)
    }

    /// The probability that the next guess is right.
    pub fn hits(self) -> f64 {
        self.0
    }

    /// The first `right` of `guessed` were right; what came after a wrong one was not looked at.
    pub fn note(&mut self, guessed: usize, right: usize) {
        for at in 0..guessed.min(right + 1) {
            let hit = if at < right { 1.0 } else { 0.0 };
            self.0 += (hit - self.0) / MEMORY;
        }
    }

    /// To guess did not seem worth it.
    pub fn forget(&mut self) {
        self.0 += (UNKNOWN - self.0) / PATIENCE;
    }
}

impl Default for Record {
    fn default() -> Record {
        Record(UNKNOWN)
    }
}

/// At most `max` tokens that may follow `history`; empty when nothing reads like its end.
pub(super) fn guess(history: &[u32], max: usize) -> &[u32] {
    let recent = &history[history.len().saturating_sub(MAX_HISTORY)..];
    for context in (SHORTEST_CONTEXT..=LONGEST_CONTEXT).rev() {
        let Some(before) = recent.len().checked_sub(context).filter(|&before| before > 0) else { continue };
        let end = &recent[before..];
        // The place itself does not count: nothing follows it.
        if let Some(at) = recent[..recent.len() - 1].windows(context).rposition(|place| place == end) {
            let next = at + context;
            return &recent[next..recent.len().min(next + max)];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_followed_last_time_is_the_guess() {
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2), [4, 5]);
        assert_eq!(guess(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 1), [5], "the last place counts");
        assert_eq!(guess(&[7, 1, 2, 3, 8, 1, 2, 9, 7, 1, 2], 1), [3], "the longer context wins");
        assert_eq!(guess(&[8, 1, 2, 9, 7, 1, 2], 5), [9, 7, 1, 2], "two that agree are enough");
        assert_eq!(guess(&[5, 5, 5, 5], 8), [5], "it may overlap its end");
    }

    #[test]
    fn what_reads_like_nothing_before_is_not_guessed() {
        for history in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4, 5], &[2, 1, 3, 1]] {
            assert_eq!(guess(history, 4), [0u32; 0], "{history:?}");
        }
    }

    #[test]
    fn a_record_follows_what_happens_and_forgets() {
        let mut record = Record::default();
        for _ in 0..20 {
            record.note(4, 0);
        }
        assert!(record.hits() < 0.05, "{record:?}");
        for _ in 0..200 {
            record.forget();
        }
        assert!(record.hits() > 0.4, "{record:?}");
        for _ in 0..10 {
            record.note(4, 4);
        }
        assert!(record.hits() > 0.95, "{record:?}");
    }

    proptest! {
        #[test]
        fn a_guess_is_what_followed_the_same_tokens(history in prop::collection::vec(0u32..4, 0..60), max in 0usize..9) {
            let guess = guess(&history, max);
            prop_assert!(guess.len() <= max);
            if !guess.is_empty() {
                let told = [&history[history.len() - 2..], guess].concat();
                prop_assert!(history.windows(told.len()).any(|place| place == told));
            }
        }
    }
}

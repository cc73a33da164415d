//! What a step costs by the number of its rows, as whoever has a clock tells it, and how much may be put into one.
//!
//! A decode alone waits for memory, so that the first rows which join it are nearly free; many rows wait for
//! arithmetic. Where the one becomes the other depends on the machine and on the model, so it is measured.

use std::time::Duration;

/// Rows that cost as much as none, where nothing was measured: what a processor computes while it reads the weights.
const FREE_ROWS: f64 = 8.0;

/// How much longer than alone a step with decodes may take for a prompt's sake. Promised is twice as long; the rest is
/// for steps that turn out slower than the ones before.
const SLOWDOWN: f64 = 1.85;

/// Rows that a kernel takes in one go: some more up to a multiple are nearly free, one more than that is not.
const ROWS: usize = 4;

/// Tokens of a prompt that a step takes at least: with fewer a long prompt would never be through.
const MIN_CHUNK: usize = 4;

/// Steps that a figure remembers: few enough to follow a context that grows or a machine that gets busy.
const MEMORY: f64 = 8.0;

/// A step that takes so many times as long as expected was held up by something else, and counts for no more.
const MAX_SURPRISE: f64 = 4.0;

/// Figures by the logarithm of the rows: more than any step has.
const SIZES: usize = 24;

/// Averages of steps of about the same size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Figure {
    rows: f64,
    seconds: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Costs {
    figures: [Option<Figure>; SIZES],
}

impl Costs {
    /// A step of so many rows, at least one, took so long.
    pub fn note(&mut self, rows: usize, took: Duration) {
        // A clock that did not move must not make steps free.
        let (rows, seconds) = (rows.max(1), took.as_secs_f64().max(1e-9));
        let figure = &mut self.figures[(rows.ilog2() as usize).min(SIZES - 1)];
        let rows = rows as f64;
        *figure = Some(match *figure {
            None => Figure { rows, seconds },
            Some(old) => Figure {
                rows: old.rows + (rows - old.rows) / MEMORY,
                seconds: old.seconds + (seconds.min(MAX_SURPRISE * old.seconds) - old.seconds) / MEMORY,
            },
        });
    }

    /// What a step of so many rows would take; in seconds, unless nothing was measured yet. Never falls with the rows.
    pub fn of(&self, rows: usize) -> f64 {
        let rows = rows as f64;
        let guess = |from: Figure| from.seconds * (FREE_ROWS + rows) / (FREE_ROWS + from.rows);
        let mut below: Option<Figure> = None;
        for mut figure in self.figures.iter().flatten().copied() {
            figure.seconds = figure.seconds.max(below.map_or(0.0, |below| below.seconds));
            if figure.rows >= rows {
                return match below {
                    None => guess(figure),
                    Some(below) => {
                        let part = (rows - below.rows) / (figure.rows - below.rows);
                        below.seconds + part * (figure.seconds - below.seconds)
                    }
                };
            }
            below = Some(figure);
        }
        below.map_or(FREE_ROWS + rows, guess)
    }

    /// How many prompt tokens, of `max` at most, may join a step of so many `decodes`.
    pub fn chunk(&self, decodes: usize, max: usize) -> usize {
        if decodes == 0 {
            return max;
        }
        let bound = SLOWDOWN * self.of(decodes);
        let (mut fits, mut over) = (MIN_CHUNK.min(max), max + 1);
        while over - fits > 1 {
            let middle = fits + (over - fits) / 2;
            if self.of(decodes + middle) <= bound { fits = middle } else { over = middle }
        }
        let rows = decodes + fits;
        let whole = if rows / ROWS * ROWS >= decodes + MIN_CHUNK { rows / ROWS } else { rows.div_ceil(ROWS) };
        (whole * ROWS - decodes).min(max)
    }

    /// How many of `max` guessed tokens of one sequence are worth their rows in a step that has `rows` rows and will
    /// give `tokens` tokens, if each guess is right with probability `hits`: as many as give the most tokens per second.
    pub fn guesses(&self, (rows, tokens): (usize, f64), hits: f64, max: usize) -> usize {
        let mut best = (0, tokens / self.of(rows));
        let (mut gain, mut all_right) = (0.0, 1.0);
        for count in 1..=max {
            all_right *= hits;
            gain += all_right;
            let rate = (tokens + gain) / self.of(rows + count);
            if rate > best.1 {
                best = (count, rate);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A machine that reads the weights in 20 ms and computes a row in `row_ms`.
    fn machine(row_ms: f64) -> impl Fn(usize) -> Duration {
        move |rows| Duration::from_secs_f64((rows as f64 * row_ms).max(20.0) / 1000.0)
    }

    fn measured(steps: &[usize], machine: impl Fn(usize) -> Duration) -> Costs {
        let mut costs = Costs::default();
        steps.iter().for_each(|&rows| costs.note(rows, machine(rows)));
        costs
    }

    #[test]
    fn a_measured_size_costs_what_was_measured() {
        let costs = measured(&[1, 16, 128, 512], machine(2.0));
        for (rows, ms) in [(1, 20.0), (16, 32.0), (128, 256.0), (512, 1024.0)] {
            assert!((costs.of(rows) * 1000.0 - ms).abs() < 1e-6, "{rows} rows: {}", costs.of(rows));
        }
    }

    #[test]
    fn the_chunk_settles_where_decodes_take_less_than_twice_as_long() {
        for row_ms in [0.1, 1.0, 2.0, 5.0] {
            let machine = machine(row_ms);
            let mut costs = Costs::default();
            let mut chunk = 0;
            for _ in 0..200 {
                chunk = costs.chunk(4, 512);
                costs.note(4, machine(4));
                costs.note(4 + chunk, machine(4 + chunk));
            }
            let ratio = machine(4 + chunk).as_secs_f64() / machine(4).as_secs_f64();
            assert!(ratio <= 2.0 || chunk == ROWS - 4, "{chunk} tokens at {row_ms} ms: {ratio} times");
            assert!(ratio >= 1.2 || chunk == 512 - 4, "{chunk} tokens at {row_ms} ms: only {ratio} times");
        }
    }

    #[test]
    fn one_hold_up_does_not_change_much() {
        let mut costs = measured(&[1; 20], machine(2.0));
        costs.note(1, Duration::from_secs(60));
        assert!(costs.of(1) < 0.030, "{}", costs.of(1));
    }

    #[test]
    fn guesses_pay_while_rows_are_free_and_hits_are_likely() {
        let costs = measured(&[1, 4, 8, 16, 32, 64], machine(2.5));
        assert_eq!(costs.guesses((1, 1.0), 0.9, 16), 7, "up to the eighth row nothing is lost");
        assert_eq!(costs.guesses((1, 1.0), 0.0, 16), 0);
        assert_eq!(costs.guesses((32, 32.0), 0.5, 16), 0, "a full batch has no free rows");
        assert_eq!(costs.guesses((1, 1.0), 0.9, 3), 3);
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, u64)>> {
        prop::collection::vec((1usize..2000, 1u64..1_000_000), 0..40)
    }

    proptest! {
        #[test]
        fn costs_never_fall_with_rows_and_chunks_keep_their_bounds(steps in steps(), decodes in 0usize..100, max in 1usize..600) {
            let mut costs = Costs::default();
            for (rows, micros) in steps {
                costs.note(rows, Duration::from_micros(micros));
            }
            for rows in 1..700 {
                prop_assert!(costs.of(rows) <= costs.of(rows + 1) * (1.0 + 1e-9), "{rows} rows");
                prop_assert!(costs.of(rows) > 0.0 && costs.of(rows).is_finite());
            }
            let chunk = costs.chunk(decodes, max);
            prop_assert!((1..=max).contains(&chunk) && chunk >= MIN_CHUNK.min(max));
            if decodes == 0 {
                prop_assert_eq!(chunk, max);
            } else {
                let bound = SLOWDOWN * costs.of(decodes);
                // One go is what a step takes even where it is too much.
                let is_least = (decodes + chunk) <= (decodes + MIN_CHUNK).next_multiple_of(ROWS);
                prop_assert!(is_least || costs.of(decodes + chunk) <= bound, "{chunk} are too many");
                prop_assert!(chunk == max || (decodes + chunk) % ROWS == 0, "{chunk} beside {decodes}");
                let is_most = chunk + ROWS > max || costs.of(decodes + chunk + ROWS) > bound;
                prop_assert!(is_most, "{chunk} are too few");
            }
            let guesses = costs.guesses((decodes + 1, 1.0), 0.5, 8);
            prop_assert!(guesses <= 8);
        }
    }
}

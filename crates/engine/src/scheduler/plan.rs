//! Who takes part in the next step, and who gives pages back for it.
//!
//! There may be fewer pages than all contexts need. When they run out, the youngest sequence gives all of its pages
//! back and is computed again later, from what the cache still holds of it. A sequence takes pages only from younger
//! ones, so the oldest always comes to its end, and then the next.

use super::{Scheduler, Share};
use crate::{Error, model::Model};

/// With so many rows a step is bound by arithmetic: more would save nothing, and the answer to the prompt that is
/// complete with it would come later.
const FULL_STEP: usize = 64;

impl<M: Model> Scheduler<M> {
    /// The parts of the next step, with pages for all of them. Never empty while a sequence runs.
    pub(super) fn plan(&mut self) -> Vec<Share> {
        let mut shares = Vec::new();
        let (decodes, mut prefills): (Vec<usize>, Vec<usize>) =
            (0..self.running.len()).partition(|&at| self.running[at].pending() == 1);
        let mut rows = decodes.len();
        // While there are prompts to compute, their rows are worth more than guesses.
        let may_guess = prefills.is_empty();
        for &at in &decodes {
            // One that has just given its pages back is computed again later.
            if self.running[at].pending() == 1 {
                let guesses = if may_guess { self.guess(at, (rows, decodes.len())) } else { 0 };
                rows += guesses;
                self.take(Share { at, tokens: 1 + guesses, guesses }, &mut shares);
            }
        }
        // Stable: of two that are due at the same time, the first to come is the first to go.
        prefills.sort_by_key(|&at| self.running[at].due);
        let mut budget = self.costs.chunk(shares.len(), self.limits.chunk);
        let mut is_full = false;
        for at in prefills {
            // Who is due later does not start before one that waits for pages: that one would wait for ever.
            is_full |= !self.may_start(at);
            if budget == 0 || (is_full && !self.running[at].holds_pages()) {
                continue;
            }
            self.running[at].reuse(&mut self.pages);
            let tokens = self.running[at].pending().min(budget);
            if self.take(Share { at, tokens, guesses: 0 }, &mut shares) {
                budget -= tokens;
                rows += tokens;
                self.prefilled += tokens as u64;
                if self.running[at].pending() == tokens && rows >= FULL_STEP {
                    break;
                }
            }
        }
        shares
    }

    /// Has a decode guess what comes next, as far as that is worth its rows in a step that has `rows` and gives
    /// `tokens` without it, and as there are pages. Returns how many tokens that is.
    fn guess(&mut self, at: usize, (rows, tokens): (usize, usize)) -> usize {
        let (costs, running) = (&self.costs, &mut self.running[at]);
        let max = self.limits.guesses.saturating_sub(rows - tokens);
        let count = running.guess(max, |hits, found| costs.guesses((rows, tokens as f64), hits, found));
        if count > 0 && !running.grow(&mut self.pages, 1 + count) {
            running.drop_guesses();
            return 0;
        }
        count
    }

    /// Grows the sequence of `share`, at the cost of younger ones if need be. False when only older ones are left: it
    /// keeps what it has and waits.
    fn take(&mut self, share: Share, shares: &mut Vec<Share>) -> bool {
        while !self.running[share.at].grow(&mut self.pages, share.tokens) {
            let younger = share.at + 1..self.running.len();
            let Some(youngest) = younger.rev().find(|&at| self.running[at].holds_pages()) else {
                return false;
            };
            self.running[youngest].preempt(&mut self.pages);
            shares.retain(|share| share.at != youngest);
        }
        shares.push(share);
        true
    }

    /// Whether a sequence has begun to be computed, or would get far without giving its pages back soon: for its own
    /// tokens there are pages, and one more for each that is being computed already.
    fn may_start(&self, at: usize) -> bool {
        let running = &self.running[at];
        let others = self.running.iter().filter(|running| running.holds_pages()).count();
        others == 0
            || running.holds_pages()
            || running.missing_pages(&self.pages) + others <= self.pages.available()
    }

    /// Takes pages from the youngest until so many are available.
    pub(super) fn make_available(&mut self, pages: usize) -> Result<(), Error> {
        let found = self.limits.pages;
        if pages > found {
            return Err(Error::TooFewPages { needed: pages, found });
        }
        for running in self.running.iter_mut().rev() {
            if self.pages.available() >= pages {
                break;
            }
            running.preempt(&mut self.pages);
        }
        Ok(())
    }
}

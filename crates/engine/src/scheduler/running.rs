//! One admitted sequence: what its context holds, how much of that is computed, and what it may still do.

use super::{
    guess::{self, Record},
    masks::{Constrained, Masker},
};
use crate::{
    Error, Event, FinishReason, Logprobs, Sampling, Sequence, SequenceId,
    pages::{Pages, Table, pages_for},
    sampler::{Choice, Sampler},
};

/// What the context of a sequence may hold, and what a shift leaves of it.
#[derive(Clone, Copy, Debug)]
struct Context {
    length: usize,
    /// Tokens at the front that a shift keeps.
    keep: usize,
    /// Whether a full context is shifted or ends the sequence.
    shift: bool,
}

pub(super) struct Running {
    pub id: SequenceId,
    context: Context,
    /// Every token so far, the prompt's and the emitted ones; penalties look at its end.
    history: Vec<u32>,
    /// The tokens in the context: `history`, unless it was shifted. Those before `computed` are in the cache.
    window: Vec<u32>,
    computed: usize,
    pub table: Table,
    sampling: Sampling,
    constrained: Option<Constrained>,
    logprobs: Option<u8>,
    prompt_tokens: usize,
    /// How many of them the cache held already.
    cached_tokens: usize,
    /// The most that was ever computed; less is left of it when pages had to be given back.
    reached: usize,
    is_prefilled: bool,
    /// Tokens of output so far, those before a resume included.
    emitted: u64,
    /// Tokens that may still be emitted.
    left: Option<usize>,
    pub ignore_eos: bool,
    /// Tokens that may come next, run in the step that is being made.
    guesses: Vec<u32>,
    /// How many of them have come.
    right: usize,
    record: Record,
    /// By when the prompt would be computed if it had been alone since its admission, in prompt tokens of the whole
    /// engine: whose time comes first goes first.
    pub due: u64,
}

impl Running {
    /// `context_length` is what its slot has. `bos` is kept by a shift in addition to what the sequence asks for.
    pub fn new(sequence: Sequence, context_length: usize, bos: Option<u32>) -> Result<Running, Error> {
        let context_length =
            sequence.context_length.map_or(context_length, |wished| wished.clamp(1, context_length));
        let prompt = sequence.prompt;
        let Some(given) = prompt.len().checked_sub(sequence.resume_at).filter(|&given| given > 0) else {
            return Err(Error::EmptyPrompt);
        };
        sequence.sampling.check()?;
        let has_bos = bos.is_some_and(|bos| prompt[0] == bos);
        let keep = sequence.keep.saturating_add(usize::from(has_bos)).min(context_length - 1);
        let context = Context { length: context_length, keep, shift: sequence.shift };
        let too_long = |tokens| Error::PromptTooLong { tokens, context_length };
        if given > context_length {
            return Err(too_long(given));
        }
        // What was emitted before went through the same shifts then: the window is what it would be now.
        let mut window = prompt[..given].to_vec();
        for &token in &prompt[given..] {
            window.push(token);
            context.settle(&mut window).ok_or_else(|| too_long(prompt.len()))?;
        }
        let constraint = sequence.grammar.map(|grammar| grammar.begin()).transpose()?;
        let constrained = constraint.map(|constraint| Constrained::new(constraint, prompt[given..].to_vec()));
        Ok(Running {
            id: sequence.id,
            context,
            window,
            computed: 0,
            table: Table::default(),
            sampling: sequence.sampling,
            constrained,
            logprobs: sequence.logprobs,
            prompt_tokens: prompt.len(),
            cached_tokens: 0,
            reached: 0,
            is_prefilled: false,
            emitted: sequence.resume_at as u64,
            left: sequence.max_tokens,
            ignore_eos: sequence.ignore_eos,
            guesses: Vec::new(),
            right: 0,
            record: Record::default(),
            due: 0,
            history: prompt,
        })
    }

    /// Tokens of the context that are not in the cache yet.
    pub fn pending(&self) -> usize {
        self.window.len() - self.computed
    }

    /// The next `count` of them, guesses included, and the position of the first.
    pub fn next(&self, count: usize) -> (Vec<u32>, usize) {
        let known = &self.window[self.computed..][..count - self.guesses.len()];
        ([known, &self.guesses].concat(), self.computed)
    }

    /// Whether a token is to be picked after the next `count` tokens, guesses included.
    pub fn picks_after(&self, count: usize) -> bool {
        count - self.guesses.len() == self.pending() && self.left != Some(0)
    }

    /// Guesses what comes next: at most `max` tokens, and so many as `worth` says, which is told how probable a hit is
    /// and how many there could be. Returns how many.
    pub fn guess(&mut self, max: usize, worth: impl Fn(f64, usize) -> usize) -> usize {
        // All of them fit the context, and one more token is picked after the last one.
        let room = self.context.length - self.window.len();
        let left = self.left.map_or(usize::MAX, |left| left.saturating_sub(1));
        let hits = self.record.hits();
        let wanted = worth(hits, max.min(room).min(left));
        self.right = 0;
        self.drop_guesses();
        if wanted == 0 {
            // Not even looked for: a long history takes a while to search.
            self.record.forget();
            return 0;
        }
        let found = guess::guess(&self.history, wanted);
        self.guesses = found[..worth(hits, found.len())].to_vec();
        self.guesses.len()
    }

    pub fn drop_guesses(&mut self) {
        self.guesses.clear();
    }

    /// Throws the guesses away, and guesses no more for a while.
    pub fn distrust(&mut self, pages: &mut Pages) {
        self.record = Record::hopeless();
        self.drop_guesses();
        self.computed = pages.cut(&mut self.table, self.computed);
    }

    /// Whether the token that was accepted last is the one that had been guessed, so that the scores after it are
    /// known. If not, the guesses and what was computed for them are thrown away.
    pub fn confirm(&mut self, pages: &mut Pages) -> bool {
        if self.guesses.get(self.right).is_some_and(|guess| Some(guess) == self.history.last()) {
            self.right += 1;
            self.advance(1, pages);
            return true;
        }
        self.record.note(self.guesses.len(), self.right);
        self.drop_guesses();
        self.computed = pages.cut(&mut self.table, self.computed);
        false
    }

    /// Finds what is left to compute in the cache, as far as it is there.
    pub fn reuse(&mut self, pages: &mut Pages) {
        pages.reuse(&mut self.table, &self.window);
        let before = self.computed;
        self.computed = before.max(self.table.published());
        if !self.is_prefilled {
            // What it had computed itself before it gave it back is not the cache's merit.
            self.cached_tokens += self.computed.saturating_sub(before.max(self.reached));
        }
    }

    /// Pages for all it may ever hold.
    pub fn pages_at_most(&self) -> usize {
        // The last token is told, but not run.
        let left = self.left.map_or(usize::MAX, |left| left.saturating_sub(1));
        pages_for(self.window.len().saturating_add(left).min(self.context.length))
    }

    /// Pages that are not held by anybody yet, for all that it has to compute now.
    pub fn missing_pages(&self, pages: &Pages) -> usize {
        pages_for(self.window.len()) - pages.held(&self.window)
    }

    pub fn holds_pages(&self) -> bool {
        !self.table.ids().is_empty()
    }

    /// Gives all pages back. What was computed is computed again, or found in the cache.
    pub fn preempt(&mut self, pages: &mut Pages) {
        pages.release(std::mem::take(&mut self.table));
        self.computed = 0;
        self.drop_guesses();
    }

    /// Gets pages for the next `count` tokens. False when too few are free.
    pub fn grow(&mut self, pages: &mut Pages, count: usize) -> bool {
        pages.grow(&mut self.table, self.computed + count)
    }

    /// Notes that `count` tokens more are in the cache. An event when that completes the prompt.
    pub fn advance(&mut self, count: usize, pages: &mut Pages) -> Option<Event> {
        self.computed += count;
        self.reached = self.reached.max(self.computed);
        pages.publish(&mut self.table, &self.window[..self.computed]);
        if self.pending() > 0 || self.is_prefilled {
            return None;
        }
        self.is_prefilled = true;
        let Running { id, prompt_tokens, cached_tokens, .. } = *self;
        Some(Event::Prefilled { id, prompt_tokens, cached_tokens })
    }

    /// Has its grammar look for what may be picked after the next `count` tokens, if anything may.
    pub fn ask_grammar(&mut self, count: usize, masker: &mut Masker) {
        if self.picks_after(count)
            && let Some(constrained) = &mut self.constrained
        {
            constrained.ask(&self.guesses, masker);
        }
    }

    /// Picks the next token from `logits`, which are row `row` of its rows of the step. `None` when its grammar has come
    /// to an end.
    pub fn pick(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        row: usize,
    ) -> Result<Option<(u32, Option<Logprobs>)>, Error> {
        let allowed = match &mut self.constrained {
            None => None,
            Some(constrained) => match constrained.mask(row)? {
                None => return Ok(None),
                allowed => allowed,
            },
        };
        let choice = Choice { history: &self.history, position: self.emitted, allowed };
        let token = sampler.sample(&self.sampling, logits, choice)?;
        let logprobs = self.logprobs.map(|top| sampler.logprobs(logits, token, top.into())).transpose()?;
        Ok(Some((token, logprobs)))
    }

    /// Takes a token that was emitted into the context. A reason when it was the last one.
    pub fn accept(&mut self, token: u32, pages: &mut Pages) -> Option<FinishReason> {
        self.emitted += 1;
        self.left = self.left.map(|left| left - 1);
        if let Some(constrained) = &mut self.constrained {
            constrained.accept(token);
        }
        self.history.push(token);
        self.window.push(token);
        let before = self.window.len();
        if self.left == Some(0) || self.context.settle(&mut self.window).is_none() {
            return Some(FinishReason::Length);
        }
        if self.window.len() < before {
            // What a shift moves gets other positions, so it is computed anew, as if it were a prompt.
            self.computed = pages.cut(&mut self.table, self.context.keep);
        }
        None
    }
}

impl Context {
    /// Makes room in a window that is one token too long: drops the older half of what is behind the kept tokens.
    /// `None` when the window is too long and may not be shifted.
    fn settle(self, window: &mut Vec<u32>) -> Option<()> {
        if window.len() > self.length {
            if !self.shift {
                return None;
            }
            let dropped = ((self.length - self.keep) / 2).max(1);
            window.drain(self.keep..self.keep + dropped);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_keeps_the_front_and_the_newer_half() {
        let context = Context { length: 8, keep: 2, shift: true };
        let mut window: Vec<u32> = (0..8).collect();
        assert_eq!(context.settle(&mut window), Some(()));
        assert_eq!(window.len(), 8);
        window.push(8);
        assert_eq!(context.settle(&mut window), Some(()));
        assert_eq!(window, [0, 1, 5, 6, 7, 8]);
    }

    #[test]
    fn a_shift_always_makes_room() {
        for keep in 0..8 {
            let context = Context { length: 8, keep, shift: true };
            let mut window: Vec<u32> = (0..9).collect();
            assert_eq!(context.settle(&mut window), Some(()));
            assert!(window.len() <= 8 && window[..keep] == [0, 1, 2, 3, 4, 5, 6, 7][..keep]);
            assert_eq!(window.last(), Some(&8));
        }
    }

    #[test]
    fn without_shift_a_full_context_is_the_end() {
        let mut window: Vec<u32> = (0..9).collect();
        assert_eq!(Context { length: 8, keep: 0, shift: false }.settle(&mut window), None);
    }
}

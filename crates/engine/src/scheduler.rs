//! Continuous batching: which tokens of which sequences make up the next step, and what a step means for each.
//!
//! Every step takes one token of each sequence that decodes, and one chunk of prompt tokens shared by those that
//! still prefill, so a decode never waits for more than one chunk. The chunk is as large as decodes can bear by what
//! steps have cost, which somebody with a clock tells. It goes to the sequence that is due first;
//! what it leaves goes to the next. A sequence is due when its prompt would be computed if it had been alone since it
//! was admitted: of prompts that arrive together the shortest is answered first and the others one after another, a
//! short one overtakes a long one, and a long one is overtaken only by so much work as its own.
//!
//! A sequence that repeats itself may take part with tokens that are only guessed. Each is computed along with the one
//! before it, and then picked by the sampler like any other; those from the first wrong one on are thrown away.
//!
//! What the cache holds of a prompt is not computed again, whoever computed it. When pages run out, the youngest
//! sequence is computed again later; nobody can tell from what it says.

mod costs;
mod guess;
mod masks;
#[cfg(test)]
mod parrot;
mod plan;
mod running;
#[cfg(test)]
mod tests;

use std::{ops::Range, sync::Arc, time::Duration};

use crate::{
    Error, Event, FinishReason, Sequence, SequenceId, Tokenizer,
    model::{Batch, Logits, Model, Output},
    pages::{PageId, Pages, Table, pages_for},
    sampler::Sampler,
};
use costs::Costs;
use masks::Masker;
use running::Running;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub slots: usize,
    /// Positions of one slot.
    pub context_length: usize,
    /// Prompt tokens of one step at most, over all sequences.
    pub chunk: usize,
    /// Of the KV cache, and the bytes of one.
    pub pages: usize,
    pub page_bytes: u64,
    /// Guessed tokens of one step, over all sequences.
    pub guesses: usize,
}

pub(crate) struct Scheduler<M> {
    model: M,
    tokenizer: Arc<Tokenizer>,
    limits: Limits,
    pages: Pages,
    /// In order of admission.
    running: Vec<Running>,
    /// Prompt tokens computed so far, for all sequences: the clock by which they are due.
    prefilled: u64,
    costs: Costs,
    /// Of the last step; none when nobody may tell any more what it cost.
    rows: Option<usize>,
    logits: Logits,
    sampler: Sampler,
    masker: Masker,
}

/// So many tokens of one sequence take part in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    /// Index into `running`.
    at: usize,
    tokens: usize,
    /// So many of them, the last ones, are guessed.
    guesses: usize,
}

// === impl Scheduler ===

impl<M: Model> Scheduler<M> {
    pub fn new(model: M, tokenizer: Arc<Tokenizer>, limits: Limits) -> Scheduler<M> {
        let pages = Pages::new(limits.pages);
        Scheduler {
            model,
            tokenizer,
            limits,
            pages,
            running: Vec::new(),
            prefilled: 0,
            costs: Costs::default(),
            rows: None,
            logits: Logits::default(),
            sampler: Sampler::default(),
            masker: Masker::default(),
        }
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    pub fn untaken_bytes(&self) -> u64 {
        self.model.untaken_bytes()
    }

    pub fn admit(&mut self, sequence: Sequence) -> Result<(), Error> {
        if self.running.len() >= self.limits.slots {
            return Err(Error::NoSlot { slots: self.limits.slots });
        }
        if self.running.iter().any(|running| running.id == sequence.id) {
            return Err(Error::DuplicateId { id: sequence.id });
        }
        self.check_tokens(&sequence.prompt)?;
        let mut running = Running::new(sequence, self.limits.context_length, self.tokenizer.bos())?;
        let (needed, found) = (running.pages_at_most(), self.limits.pages);
        if needed > found {
            return Err(Error::TooFewPages { needed, found });
        }
        running.due = self.prefilled + running.pending() as u64;
        self.running.push(running);
        Ok(())
    }

    pub fn cancel(&mut self, id: SequenceId) {
        if let Some(at) = self.running.iter().position(|running| running.id == id) {
            self.remove(at);
        }
    }

    /// Schedule, forward, sample, settle.
    pub fn step(&mut self) -> Result<Vec<Event>, Error> {
        let shares = self.plan();
        self.rows = Some(shares.iter().map(|share| share.tokens).sum()).filter(|rows| *rows > 0);
        if shares.is_empty() {
            return Ok(Vec::new());
        }
        self.forward(&shares)?;
        Ok(self.settle(&shares))
    }

    /// The last step took so long.
    pub fn note_step(&mut self, took: Duration) {
        if let Some(rows) = self.rows.take() {
            self.costs.note(rows, took);
        }
    }

    /// Lends the model and pages for `positions` to `work`, between steps and at the cost of what runs.
    pub fn borrow<R>(
        &mut self,
        positions: usize,
        work: impl FnOnce(&mut M, &[PageId]) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.make_available(pages_for(positions))?;
        let mut table = Table::default();
        let has_grown = self.pages.grow(&mut table, positions);
        assert!(has_grown, "the pages were made available");
        let result = work(&mut self.model, table.ids());
        self.pages.release(table);
        result
    }

    pub fn check_tokens(&self, tokens: &[u32]) -> Result<(), Error> {
        let vocab_size = self.model.vocab_size();
        match tokens.iter().find(|&&token| token as usize >= vocab_size) {
            Some(&token) => Err(Error::TokenOutOfRange { token, vocab_size }),
            None => Ok(()),
        }
    }

    fn forward(&mut self, shares: &[Share]) -> Result<(), Error> {
        for share in shares {
            self.running[share.at].ask_grammar(share.tokens, &mut self.masker);
        }
        let mut batch = Batch::default();
        for share in shares {
            let running = &self.running[share.at];
            let output = match running.picks_after(share.tokens) {
                false => Output::None,
                true if share.guesses == 0 => Output::Last,
                true => Output::All,
            };
            let (tokens, position) = running.next(share.tokens);
            batch.push(&tokens, position, running.table.ids(), output);
        }
        self.model.forward(&batch, &mut self.logits)
    }

    fn settle(&mut self, shares: &[Share]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut ended = Vec::new();
        let mut row = 0;
        for (share, fault) in shares.iter().zip(std::mem::take(&mut self.logits.faults)) {
            let picks = self.running[share.at].picks_after(share.tokens);
            let rows = row..row + if picks { 1 + share.guesses } else { 0 };
            row = rows.end;
            let last = match fault {
                None => self.settle_share(*share, rows, &mut events),
                // It may be the fault of a guess: without it all may be well.
                Some(_) if share.guesses > 0 => {
                    self.running[share.at].distrust(&mut self.pages);
                    None
                }
                Some(error) => Some(Event::Failed { id: self.running[share.at].id, error }),
            };
            if let Some(event) = last {
                events.push(event);
                ended.push(self.running[share.at].id);
            }
        }
        ended.into_iter().for_each(|id| self.cancel(id));
        events
    }

    /// What the step means for one sequence; `rows` is where its scores are. Returns its last event, if it has ended.
    fn settle_share(&mut self, share: Share, rows: Range<usize>, events: &mut Vec<Event>) -> Option<Event> {
        let running = &mut self.running[share.at];
        let id = running.id;
        events.extend(running.advance(share.tokens - share.guesses, &mut self.pages));
        if rows.is_empty() {
            // All is computed and nothing may be picked: only what asked for no tokens at all gets here.
            let is_done = running.pending() == 0;
            return is_done.then_some(Event::Finished { id, reason: FinishReason::Length });
        }
        for (at, row) in rows.enumerate() {
            match running.pick(&mut self.sampler, self.logits.row(row), at) {
                Err(error) => return Some(Event::Failed { id, error }),
                // The grammar has come to its end, or the model says that the answer has.
                Ok(None) => return Some(Event::Finished { id, reason: FinishReason::Stop }),
                Ok(Some((token, _))) if self.tokenizer.is_eog(token) && !running.ignore_eos => {
                    return Some(Event::Finished { id, reason: FinishReason::Stop });
                }
                Ok(Some((token, logprob))) => {
                    events.push(Event::Token { id, token, logprob });
                    if let Some(reason) = running.accept(token, &mut self.pages) {
                        return Some(Event::Finished { id, reason });
                    }
                }
            }
            // The next row is of use only if it was computed after what has been picked.
            if !running.confirm(&mut self.pages) {
                break;
            }
        }
        None
    }

    fn remove(&mut self, at: usize) {
        self.pages.release(self.running.remove(at).table);
    }
}

//! Continuous batching: which tokens of which sequences make up the next step, and what a step means for each.
//!
//! Every step takes one token of each sequence that decodes, and one chunk of prompt tokens shared by those that
//! still prefill, so a decode never waits for more than one chunk. The chunk goes to the sequence that is due first;
//! what it leaves goes to the next. A sequence is due when its prompt would be computed if it had been alone since it
//! was admitted: of prompts that arrive together the shortest is answered first and the others one after another, a
//! short one overtakes a long one, and a long one is overtaken only by so much work as its own.
//!
//! What the cache holds of a prompt is not computed again, whoever computed it. Each slot has pages for its whole
//! context, so a sequence that was admitted never runs out of them.

#[cfg(test)]
mod parrot;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    Error, Event, FinishReason, Sequence, SequenceId, Tokenizer,
    model::{Batch, Logits, Model, Output},
    pages::{PageId, Pages, Table},
    sampler::Sampler,
};
use running::Running;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub slots: usize,
    /// Positions of one slot.
    pub context_length: usize,
    /// Prompt tokens of one step, over all sequences.
    pub chunk: usize,
    /// Of the KV cache.
    pub pages: usize,
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
    logits: Logits,
    sampler: Sampler,
}

/// So many tokens of one sequence take part in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    /// Index into `running`.
    at: usize,
    tokens: usize,
}

// === impl Scheduler ===

impl<M: Model> Scheduler<M> {
    pub fn new(model: M, tokenizer: Arc<Tokenizer>, limits: Limits) -> Scheduler<M> {
        let pages = Pages::new(limits.pages);
        let (logits, sampler) = (Logits::default(), Sampler::default());
        Scheduler { model, tokenizer, limits, pages, running: Vec::new(), prefilled: 0, logits, sampler }
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
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
        let shares = self.schedule();
        if shares.is_empty() {
            return Ok(Vec::new());
        }
        self.forward(&shares)?;
        Ok(self.settle(&shares))
    }

    /// Lends the model and pages for `positions` to `work`, between steps.
    pub fn borrow<R>(
        &mut self,
        positions: usize,
        work: impl FnOnce(&mut M, &[PageId]) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut table = Table::default();
        if !self.pages.grow(&mut table, positions) {
            return Err(Error::NoSlot { slots: self.limits.slots });
        }
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

    fn schedule(&mut self) -> Vec<Share> {
        let pending = |at: usize| self.running[at].pending();
        let (decodes, mut prefills): (Vec<usize>, Vec<usize>) =
            (0..self.running.len()).partition(|&at| pending(at) == 1);
        let mut shares: Vec<Share> = decodes.into_iter().map(|at| Share { at, tokens: 1 }).collect();
        // Stable: of two that are due at the same time, the first to come is the first to go.
        prefills.sort_by_key(|&at| self.running[at].due);
        let mut budget = self.limits.chunk;
        for at in prefills {
            if budget == 0 {
                break;
            }
            let running = &mut self.running[at];
            running.reuse(&mut self.pages);
            let tokens = running.pending().min(budget);
            budget -= tokens;
            shares.push(Share { at, tokens });
        }
        for share in &shares {
            let has_grown = self.running[share.at].grow(&mut self.pages, share.tokens);
            assert!(has_grown, "every slot has pages for its whole context");
        }
        self.prefilled += (self.limits.chunk - budget) as u64;
        shares
    }

    fn forward(&mut self, shares: &[Share]) -> Result<(), Error> {
        let mut batch = Batch::default();
        for share in shares {
            let running = &self.running[share.at];
            let (tokens, position) = running.next(share.tokens);
            let output = if running.picks_after(share.tokens) { Output::Last } else { Output::None };
            batch.push(tokens, position, running.table.ids(), output);
        }
        self.model.forward(&batch, &mut self.logits)
    }

    fn settle(&mut self, shares: &[Share]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut ended = Vec::new();
        let mut row = 0;
        for (share, fault) in shares.iter().zip(std::mem::take(&mut self.logits.faults)) {
            let picks = self.running[share.at].picks_after(share.tokens);
            let last = match fault {
                None => self.settle_share(*share, picks.then_some(row), &mut events),
                Some(error) => Some(Event::Failed { id: self.running[share.at].id, error }),
            };
            row += usize::from(picks);
            if let Some(event) = last {
                events.push(event);
                ended.push(self.running[share.at].id);
            }
        }
        ended.into_iter().for_each(|id| self.cancel(id));
        events
    }

    /// What the step means for one sequence; `row` is where its scores are. Returns its last event, if it has ended.
    fn settle_share(&mut self, share: Share, row: Option<usize>, events: &mut Vec<Event>) -> Option<Event> {
        let running = &mut self.running[share.at];
        let id = running.id;
        events.extend(running.advance(share.tokens, &mut self.pages));
        let Some(row) = row else {
            // All is computed and nothing may be picked: only what asked for no tokens at all gets here.
            let is_done = running.pending() == 0;
            return is_done.then_some(Event::Finished { id, reason: FinishReason::Length });
        };
        match running.pick(&mut self.sampler, self.logits.row(row)) {
            Err(error) => Some(Event::Failed { id, error }),
            Ok((token, _)) if self.tokenizer.is_eog(token) && !running.ignore_eos => {
                Some(Event::Finished { id, reason: FinishReason::Stop })
            }
            Ok((token, logprob)) => {
                events.push(Event::Token { id, token, logprob });
                let reason = running.accept(token, &mut self.pages);
                reason.map(|reason| Event::Finished { id, reason })
            }
        }
    }

    fn remove(&mut self, at: usize) {
        self.pages.release(self.running.remove(at).table);
    }
}

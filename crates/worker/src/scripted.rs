//! An engine without a model: it serves any name, answers with a text that derives from prompt and seed, and keeps a
//! fixed token rate. Tests and benchmarks of everything above the engine run on it.
//!
//! A prompt that contains `[[say TEXT]]` is answered with that text, so that a test can have any answer it needs. A document
//! answers a query by the share of the query's words that it has.
//! Grammars are not looked at.

mod pace;
mod script;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use engine::{Engine, Error, Event, FinishReason, Info, Logprobs, Reranker, Sequence, SequenceId, Tokenizer};

pub use self::pace::{Pace, SystemPace};
use crate::hash;

/// What an operator sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Of each sequence; 0 = as fast as it goes (`CARAVAN_SCRIPTED_TOKENS_PER_SECOND`).
    pub tokens_per_second: f64,
}

/// Positions for which the model claims to be trained.
pub const TRAIN_CONTEXT_LENGTH: usize = 32_768;

const EMBEDDING_LENGTH: usize = 64;

/// A sleeper that is later than this starts to count anew: a process that was suspended does not catch up in a burst.
const MAX_LATENESS: Duration = Duration::from_secs(1);

pub struct Scripted {
    info: Info,
    tokenizer: Arc<Tokenizer>,
    schedule: Schedule,
    pace: Box<dyn Pace>,
    running: BTreeMap<SequenceId, Running>,
}

struct Running {
    sequence: Sequence,
    script: Vec<u32>,
    /// How many tokens of the script were emitted, resumed ones included.
    emitted: usize,
    prefilled: bool,
}

/// When the next step is due. Absolute, so that late sleepers do not slow the rate down.
struct Schedule {
    period: Duration,
    /// When the last step was due; `None` while idle.
    last: Option<Duration>,
}

// === impl Scripted ===

impl Scripted {
    pub fn new(slots: usize, context_length: usize, config: &Config, pace: Box<dyn Pace>) -> Scripted {
        let tokenizer = Arc::new(Tokenizer::bytes());
        let rate = config.tokens_per_second;
        let period = if rate > 0.0 { Duration::from_secs_f64(rate.recip()) } else { Duration::ZERO };
        let info = Info {
            architecture: "scripted".into(),
            slots,
            context_length,
            train_context_length: TRAIN_CONTEXT_LENGTH,
            embedding_length: EMBEDDING_LENGTH,
            vocab_size: tokenizer.vocab_size(),
            size_bytes: size_bytes(slots, context_length),
            pooling: None,
            reranker: Some(Reranker::default()),
            chat_template: None,
            add_bos: false,
            bos: String::new(),
            eos: String::new(),
        };
        let schedule = Schedule { period, last: None };
        Scripted { info, tokenizer, schedule, pace, running: BTreeMap::new() }
    }

    /// One token of one sequence; false when that was its end.
    fn advance(&mut self, id: SequenceId, events: &mut Vec<Event>) -> bool {
        let Some(running) = self.running.get_mut(&id) else { return false };
        if !running.prefilled {
            running.prefilled = true;
            let prompt_tokens = running.sequence.prompt.len();
            events.push(Event::Prefilled { id, prompt_tokens, cached_tokens: 0 });
        }
        let context_length = context_length_of(&running.sequence, &self.info);
        let finish = running.finished(context_length);
        if let Some(reason) = finish {
            events.push(Event::Finished { id, reason });
            return false;
        }
        let (token, logprob) = running.next();
        events.push(Event::Token { id, token, logprob });
        // The reason comes with the last token, not a step later.
        match running.finished(context_length) {
            Some(reason @ FinishReason::Length) => {
                events.push(Event::Finished { id, reason });
                false
            }
            _ => true,
        }
    }
}

fn context_length_of(sequence: &Sequence, info: &Info) -> usize {
    sequence.context_length.map_or(info.context_length, |wished| wished.min(info.context_length))
}

/// What a replica claims to take.
pub fn size_bytes(slots: usize, context_length: usize) -> u64 {
    const WEIGHTS: u64 = 1 << 20;
    const POSITION: u64 = 16;
    WEIGHTS + POSITION * slots as u64 * context_length as u64
}

impl Engine for Scripted {
    fn info(&self) -> &Info {
        &self.info
    }

    fn tokenizer(&self) -> Arc<Tokenizer> {
        self.tokenizer.clone()
    }

    fn admit(&mut self, sequence: Sequence) -> Result<(), Error> {
        let tokens = sequence.prompt.len();
        let context_length = context_length_of(&sequence, &self.info);
        let vocab_size = self.info.vocab_size;
        let given = tokens.saturating_sub(sequence.resume_at);
        if self.running.contains_key(&sequence.id) {
            return Err(Error::DuplicateId { id: sequence.id });
        }
        if self.running.len() >= self.info.slots {
            return Err(Error::NoSlot { slots: self.info.slots });
        }
        if given == 0 {
            return Err(Error::EmptyPrompt);
        }
        if given > context_length || (tokens > context_length && !sequence.shift) {
            return Err(Error::PromptTooLong { tokens, context_length });
        }
        if let Some(token) = sequence.prompt.iter().find(|token| **token as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { token: *token, vocab_size });
        }
        let script = script::write(&sequence, &self.tokenizer);
        let emitted = sequence.resume_at;
        self.running.insert(sequence.id, Running { sequence, script, emitted, prefilled: false });
        Ok(())
    }

    fn step(&mut self) -> Result<Vec<Event>, Error> {
        if self.running.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(due) = self.schedule.next(self.pace.now()) {
            self.pace.sleep_until(due);
        }
        let mut events = Vec::new();
        let ids: Vec<SequenceId> = self.running.keys().copied().collect();
        for id in ids {
            if !self.advance(id, &mut events) {
                self.cancel(id);
            }
        }
        Ok(events)
    }

    fn cancel(&mut self, id: SequenceId) {
        self.running.remove(&id);
        if self.running.is_empty() {
            self.schedule.last = None;
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error> {
        inputs
            .iter()
            .map(|input| if input.is_empty() { Err(Error::EmptyPrompt) } else { Ok(row(input)) })
            .collect()
    }

    fn rank(&mut self, pairs: &[Vec<u32>]) -> Result<Vec<f32>, Error> {
        let end = self.tokenizer.eos();
        let rank = |pair: &Vec<u32>| match pair.is_empty() {
            true => Err(Error::EmptyPrompt),
            false => Ok(script::rank(pair, end, &self.tokenizer)),
        };
        pairs.iter().map(rank).collect()
    }
}

// === impl Running ===

impl Running {
    fn finished(&self, context_length: usize) -> Option<FinishReason> {
        let fresh = self.emitted - self.sequence.resume_at;
        let full = !self.sequence.shift && self.sequence.prompt.len() + fresh > context_length;
        if self.sequence.max_tokens.is_some_and(|max| fresh >= max) || full {
            return Some(FinishReason::Length);
        }
        (self.emitted >= self.script.len() && !self.sequence.ignore_eos).then_some(FinishReason::Stop)
    }

    /// Past its end the script begins again.
    fn next(&mut self) -> (u32, Option<Logprobs>) {
        let token = self.script[self.emitted % self.script.len()];
        self.emitted += 1;
        let position = self.emitted as u64;
        let logprob = self.sequence.logprobs.map(|count| {
            let at = |rank: u64| -unit(self.sequence.sampling.seed ^ position) - rank as f32;
            let top = (0..u64::from(count)).map(|rank| ((token + rank as u32) % 256, at(rank))).collect();
            Logprobs { logprob: at(0), top }
        });
        (token, logprob)
    }
}

// === impl Schedule ===

impl Schedule {
    /// When the step that begins now is due; `None` = at once.
    fn next(&mut self, now: Duration) -> Option<Duration> {
        if self.period.is_zero() {
            return None;
        }
        let last =
            self.last.filter(|last| now.saturating_sub(*last) < self.period + MAX_LATENESS).unwrap_or(now);
        self.last = Some(last + self.period);
        self.last
    }
}

/// The same vector for the same tokens, and no two alike.
fn row(input: &[u32]) -> Vec<f32> {
    let seed = hash::tokens(input);
    (0..EMBEDDING_LENGTH as u64).map(|at| unit(seed ^ hash::mix(at)) - 0.5).collect()
}

/// A number from 0 to 1 that only depends on the value.
fn unit(value: u64) -> f32 {
    (hash::mix(value) >> 40) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests;

//! One request inside the engine: what goes in, and the events that come out.

use crate::{Error, Grammar};

pub type SequenceId = u64;

/// What to run. `Default` is an empty greedy sequence without a bound, for `..Default::default()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    /// Chosen by the caller, unique among the sequences that the engine holds.
    pub id: SequenceId,
    /// Never empty. On a resume it ends with the tokens that were already emitted.
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    /// How many tokens to emit, the resumed ones not counted; `None` = until the context is full.
    pub max_tokens: Option<usize>,
    /// How many of the prompt's last tokens are output that was already emitted: where the counter of the random
    /// numbers stands.
    pub resume_at: usize,
    /// Report the log probability of each token, and of so many best candidates.
    pub logprobs: Option<u8>,
    /// Positions that it may use of those that its slot has; `None` = all.
    pub context_length: Option<usize>,
    /// When the context is full: drop the older half instead of finishing.
    pub shift: bool,
    /// How many of the prompt's first tokens a shift keeps (`num_keep`).
    pub keep: usize,
    /// Go on after an end-of-generation token.
    pub ignore_eos: bool,
    /// What the answer must look like. It ends only where the grammar lets it, unless it runs out of room.
    pub grammar: Option<Grammar>,
}

/// How the next token is picked. The default is greedy with every filter and penalty off; the defaults that users
/// see are not the engine's business.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 = greedy.
    pub temperature: f32,
    /// 0 = off.
    pub top_k: usize,
    /// 1 = off.
    pub top_p: f32,
    /// 0 = off.
    pub min_p: f32,
    /// 1 = off.
    pub typical_p: f32,
    /// How many of the last tokens, prompt included, the penalties look at; 0 = none, `usize::MAX` = all.
    pub repeat_last_n: usize,
    /// 1 = off.
    pub repeat_penalty: f32,
    /// 0 = off.
    pub presence_penalty: f32,
    /// 0 = off.
    pub frequency_penalty: f32,
    /// With the position of a token, the only source of its randomness.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

/// Natural logarithms of probabilities, before temperature and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token that was picked.
    pub logprob: f32,
    /// The best candidates, best first.
    pub top: Vec<(u32, f32)>,
}

/// What a step did to a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The whole prompt is in the KV cache; comes right before the first token.
    Prefilled { id: SequenceId, prompt_tokens: usize, cached_tokens: usize },
    /// One token was picked. An end-of-generation token is never an event of its own: see `Finished`.
    Token { id: SequenceId, token: u32, logprob: Option<Logprobs> },
    /// The last event of a sequence; slot and pages are free.
    Finished { id: SequenceId, reason: FinishReason },
    /// The last event of a sequence that went wrong; slot and pages are free.
    Failed { id: SequenceId, error: Error },
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model picked an end-of-generation token.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
}

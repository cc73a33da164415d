//! Picks the next token from the logits: penalties, then top-k, typical-p, top-p, min-p, temperature and the draw, in
//! the order and with the meaning of llama.cpp's chain.
//!
//! Nothing is remembered from token to token. What a choice depends on comes in as arguments, so that it does not
//! matter which engine makes it.

mod candidates;
mod mask;
mod philox;

use std::collections::HashMap;

use crate::{Error, Logprobs, Sampling, kernels::float};
use candidates::Candidates;
pub use mask::Mask;

/// Working memory, one for all sequences of an engine.
#[derive(Debug, Default)]
pub struct Sampler {
    candidates: Candidates,
    /// The logits after penalties.
    penalised: Vec<f32>,
    /// How often each of the last tokens occurs.
    counts: HashMap<u32, u32>,
}

/// What a choice depends on beside the logits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// All tokens before this one, the prompt included; penalties look at its end.
    pub history: &'a [u32],
    /// How many tokens of output come before this one.
    pub position: u64,
    /// What may be picked; `None` = everything. Never empty.
    pub allowed: Option<&'a Mask>,
}

// === impl Sampler ===

impl Sampler {
    /// Picks a token.
    ///
    /// `logits`: one per token of the vocabulary, straight from the model. One that is not finite is an error: the
    /// choice would be garbage.
    ///
    /// At temperature 0 (or below) the best token wins, the lowest id on ties.
    pub fn sample(&mut self, sampling: &Sampling, logits: &[f32], choice: Choice<'_>) -> Result<u32, Error> {
        check_finite(logits)?;
        let logits = match sampling.has_penalties() {
            true => {
                self.penalise(sampling, logits, choice.history)?;
                &self.penalised
            }
            false => logits,
        };
        if sampling.temperature <= 0.0 {
            return Ok(argmax(logits, choice.allowed));
        }
        self.candidates.narrow(sampling, logits, choice.allowed);
        Ok(self.candidates.draw(sampling.temperature, philox::uniform(sampling.seed, choice.position)))
    }

    /// The natural logarithm of the probability of `token`, and the `top` best tokens with theirs, best first: of
    /// the model's own distribution, before penalties, filters and temperature.
    pub fn logprobs(&mut self, logits: &[f32], token: u32, top: usize) -> Result<Logprobs, Error> {
        check_finite(logits)?;
        let Some(&logit) = logits.get(token as usize) else {
            return Err(Error::TokenOutOfRange { token, vocab_size: logits.len() });
        };
        let best = logits.iter().fold(f32::NEG_INFINITY, |best, &logit| best.max(logit));
        let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
        let logprob = |logit: f32| (f64::from(logit) - f64::from(best) - sum.ln()) as f32;
        let mut best_tokens = Vec::new();
        if top > 0 {
            self.candidates.fill_best(logits, None, top);
            let items = self.candidates.items();
            best_tokens.extend(items.iter().map(|candidate| (candidate.id, logprob(candidate.logit))));
        }
        Ok(Logprobs { logprob: logprob(logit), top: best_tokens })
    }

    /// Makes tokens that occurred among the last ones less likely (Keskar et al. 2019, "CTRL", for the factor).
    fn penalise(&mut self, sampling: &Sampling, logits: &[f32], history: &[u32]) -> Result<(), Error> {
        self.counts.clear();
        for &token in &history[history.len().saturating_sub(sampling.repeat_last_n)..] {
            *self.counts.entry(token).or_default() += 1;
        }
        self.penalised.clear();
        self.penalised.extend_from_slice(logits);
        for (&token, &count) in &self.counts {
            let Some(logit) = self.penalised.get_mut(token as usize) else { continue };
            match *logit <= 0.0 {
                true => *logit *= sampling.repeat_penalty,
                false => *logit /= sampling.repeat_penalty,
            }
            *logit -= count as f32 * sampling.frequency_penalty + sampling.presence_penalty;
            if !logit.is_finite() {
                return Err(Error::NotFinite { what: format!("the logit of token {token} after penalties") });
            }
        }
        Ok(())
    }
}

// === impl Sampling ===

impl Sampling {
    /// Refuses what no distribution can come of. Values that merely switch a filter off, or leave one token, pass.
    pub fn check(&self) -> Result<(), Error> {
        let finite = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("typical_p", self.typical_p),
            ("repeat_penalty", self.repeat_penalty),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ];
        for (option, value) in finite {
            if !value.is_finite() {
                return Err(Error::InvalidSampling { option, bound: "a finite number", value });
            }
        }
        if self.repeat_penalty <= 0.0 {
            let value = self.repeat_penalty;
            return Err(Error::InvalidSampling { option: "repeat_penalty", bound: "greater than 0", value });
        }
        Ok(())
    }

    fn has_penalties(&self) -> bool {
        let is_off =
            self.repeat_penalty == 1.0 && self.presence_penalty == 0.0 && self.frequency_penalty == 0.0;
        self.repeat_last_n > 0 && !is_off
    }
}

/// The lowest id with the best logit, of those that are allowed.
fn argmax(logits: &[f32], allowed: Option<&Mask>) -> u32 {
    let Some(mask) = allowed else {
        let best = float::maximum(logits);
        return logits.iter().position(|&logit| logit == best).unwrap_or(0) as u32;
    };
    let known = mask.tokens().take_while(|token| (*token as usize) < logits.len());
    let mut best = (f32::NEG_INFINITY, 0);
    for token in known {
        let logit = logits[token as usize];
        if logit > best.0 {
            best = (logit, token);
        }
    }
    best.1
}

fn check_finite(logits: &[f32]) -> Result<(), Error> {
    if logits.is_empty() {
        return Err(Error::Compute("there are no logits to sample from".to_owned()));
    }
    // The fold has no exit, so that it becomes vector code.
    if logits.iter().fold(true, |all, logit| all & logit.is_finite()) {
        return Ok(());
    }
    let token = logits.iter().position(|logit| !logit.is_finite()).unwrap_or(0);
    Err(Error::NotFinite { what: format!("the logit of token {token}, {},", logits[token]) })
}

#[cfg(test)]
mod tests;

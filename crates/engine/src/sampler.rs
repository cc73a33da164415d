//! Picks the next token from the logits: penalties, then top-k, typical-p, top-p, min-p, temperature and the draw, in
//! the order and with the meaning of llama.cpp's chain.
//!
//! Nothing is remembered from token to token. What a choice depends on comes in as arguments, so that it does not
//! matter which engine makes it.

mod candidates;
mod philox;

use std::collections::HashMap;

use crate::{Error, Logprobs, Sampling};
use candidates::Candidates;

/// Working memory, one for all sequences of an engine.
#[derive(Debug, Default)]
pub struct Sampler {
    candidates: Candidates,
    /// The logits after penalties.
    penalised: Vec<f32>,
    /// How often each of the last tokens occurs.
    counts: HashMap<u32, u32>,
}

// === impl Sampler ===

impl Sampler {
    /// Picks a token.
    ///
    /// * `logits`: one per token of the vocabulary, straight from the model. One that is not finite is an error: the
    ///   choice would be garbage.
    /// * `history`: all tokens before this one, the prompt included; penalties look at its end.
    /// * `position`: how many tokens of output come before this one.
    ///
    /// At temperature 0 (or below) the best token wins, the lowest id on ties.
    pub fn sample(
        &mut self,
        sampling: &Sampling,
        logits: &[f32],
        history: &[u32],
        position: u64,
    ) -> Result<u32, Error> {
        check_finite(logits)?;
        let logits = match sampling.has_penalties() {
            true => {
                self.penalise(sampling, logits, history)?;
                &self.penalised
            }
            false => logits,
        };
        if sampling.temperature <= 0.0 {
            return Ok(argmax(logits));
        }
        self.candidates.narrow(sampling, logits);
        Ok(self.candidates.draw(sampling.temperature, philox::uniform(sampling.seed, position)))
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
            self.candidates.fill_best(logits, top);
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

/// The lowest id with the best logit.
fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().fold(f32::NEG_INFINITY, |best, &logit| best.max(logit));
    logits.iter().position(|&logit| logit == best).unwrap_or(0) as u32
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

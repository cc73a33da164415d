//! One answer in the making: the engine's tokens go through the parser into the outbox, and the time is taken.
//! It lives on the runner's thread, so that a stop string ends the sequence before its next step, however slowly the
//! answer is read.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use api::Error;
use engine::Logprobs;
use protocol::v1::{Done, GenerateChunk, done::Reason};

use crate::{
    outbox::{Reader, Writer, outbox},
    reply::{self, Parser},
};

/// What an answer needs to know beside its tokens.
#[derive(Debug)]
pub struct Answer {
    parser: Parser,
    out: Writer,
    /// For the `context` of the last chunk; `None` = the request wants none.
    prompt: Option<Vec<u32>>,
    /// How many tokens another worker has emitted; they are prompt to the engine and answer to the client.
    resumed: usize,
    started: Option<Instant>,
    prefilled: Option<Instant>,
    /// Told with the first chunk.
    cached_tokens: Option<u64>,
    done: Done,
}

// === impl Answer ===

impl Answer {
    pub fn new(parser: Parser, prompt: Option<Vec<u32>>) -> (Answer, Reader) {
        let (out, reader) = outbox();
        let answer = Answer {
            parser,
            out,
            prompt,
            resumed: 0,
            started: None,
            prefilled: None,
            cached_tokens: None,
            done: Done::default(),
        };
        (answer, reader)
    }

    /// Goes on where another worker was. Break when that was the end already.
    pub fn resume(&mut self, emitted: &[u32], delivered: u64) -> ControlFlow<Reason> {
        self.resumed = emitted.len();
        let step = self.parser.replay(emitted, delivered);
        self.send(step)
    }

    /// The engine has admitted the sequence.
    pub fn start(&mut self, now: Instant) {
        self.started = Some(now);
    }

    pub fn prefill(&mut self, prompt_tokens: usize, cached_tokens: usize, now: Instant) {
        self.prefilled = Some(now);
        let prompt_tokens = prompt_tokens.saturating_sub(self.resumed);
        self.done.prompt_tokens = prompt_tokens as u64;
        self.done.cached_tokens = cached_tokens.min(prompt_tokens) as u64;
        self.cached_tokens = Some(self.done.cached_tokens);
    }

    /// Break when the answer is complete, or nobody can take more of it.
    pub fn push(&mut self, token: u32, logprobs: Option<&Logprobs>) -> ControlFlow<Reason> {
        let step = self.parser.push(token, logprobs);
        self.send(step)
    }

    pub fn finish(mut self, reason: Reason, now: Instant) {
        let chunk = self.parser.finish();
        let context = self.prompt.take().map(|mut tokens| {
            tokens.extend_from_slice(self.parser.tokens());
            tokens
        });
        let since = |from: Option<Instant>, to: Instant| {
            let elapsed = from.map_or(Duration::ZERO, |from| to.saturating_duration_since(from));
            u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
        };
        let done = Done {
            reason: reason.into(),
            prompt_duration_ns: since(self.started, self.prefilled.unwrap_or(now)),
            eval_tokens: self.parser.tokens().len() as u64,
            // The first token comes out of the step that read the prompt, but zero would be taken for "not measured".
            eval_duration_ns: since(self.prefilled, now).max(1),
            context: context.unwrap_or_default(),
            ..std::mem::take(&mut self.done)
        };
        let cached_tokens = self.cached_tokens.take();
        let pushed = self.out.push(GenerateChunk { done: Some(done), cached_tokens, ..chunk });
        self.out.end(pushed);
    }

    pub fn fail(self, error: Error) {
        self.out.end(Err(error));
    }

    /// Whether nobody reads it any more.
    pub fn is_gone(&self) -> bool {
        self.out.is_gone()
    }

    fn send(&mut self, step: reply::Step) -> ControlFlow<Reason> {
        if let Some(chunk) = step.chunk
            && let Err(error) =
                self.out.push(GenerateChunk { cached_tokens: self.cached_tokens.take(), ..chunk })
        {
            self.out.end(Err(error));
            return ControlFlow::Break(Reason::Stop);
        }
        step.ended.map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }
}

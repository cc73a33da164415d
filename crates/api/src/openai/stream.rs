//! Ollama's stream of answers as OpenAI's stream of chunks.

use super::SYSTEM_FINGERPRINT;
use super::chat::ToolCall;
use super::completion::{Chunk, ChunkChoice, Delta, Logprobs, Usage, finish_reason};
use super::error::ErrorBody;
use crate::error::Error;
use crate::events::{Events, Translation};
use crate::ollama::{ChatResponse, DoneReason, Metrics};

/// What all chunks of a stream share.
#[derive(Clone, Debug)]
pub struct Header {
    /// `chatcmpl-<number>`, or `cmpl-<number>`.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// As the client wrote it.
    pub model: String,
    /// Whether the stream ends with a chunk of token counts.
    pub include_usage: bool,
}

/// Remembers what a stream has said so far: the role is told once, and tool calls change how it ends.
#[derive(Debug)]
pub struct Stream {
    header: Header,
    has_role: bool,
    has_tool_calls: bool,
    is_over: bool,
}

impl Translation for Stream {
    type Part = ChatResponse;

    fn push(&mut self, part: ChatResponse, events: &mut Events) {
        if self.is_over {
            return;
        }
        let (done, reason, metrics) = (part.done, part.done_reason, part.metrics);
        self.tell(part, events);
        if done {
            self.finish(reason, metrics, events);
        }
    }

    fn fail(&mut self, error: &Error, events: &mut Events) {
        if !self.is_over {
            self.is_over = true;
            events.data(&ErrorBody::from(error));
            events.done();
        }
    }

    fn end(&mut self, events: &mut Events) {
        if !self.is_over {
            self.finish(None, Metrics::default(), events);
        }
    }
}

// === impl Stream ===

impl Stream {
    pub fn new(header: Header) -> Stream {
        Stream { header, has_role: false, has_tool_calls: false, is_over: false }
    }

    /// What `part` adds: thoughts and the reply are told in chunks of their own.
    fn tell(&mut self, part: ChatResponse, events: &mut Events) {
        let message = part.message;
        let thinking = message.thinking.unwrap_or_default();
        let tool_calls: Vec<ToolCall> = message.tool_calls.iter().map(ToolCall::from).collect();
        self.has_tool_calls |= !tool_calls.is_empty();
        let mut logprobs = part.logprobs.map(|content| Logprobs { content });
        let has_reply = !message.content.is_empty() || !tool_calls.is_empty();
        // The last part often carries nothing but numbers. An answer of nothing else begins with a role nevertheless.
        let is_trailer = part.done && !has_reply && thinking.is_empty() && logprobs.is_none();
        if is_trailer && self.has_role {
            return;
        }
        let mut thought = Delta::thought(thinking);
        if has_reply && thought.reasoning.is_some() {
            self.delta(std::mem::take(&mut thought), logprobs.take(), events);
        }
        self.delta(Delta { content: Some(message.content), tool_calls, ..thought }, logprobs, events);
    }

    fn delta(&mut self, mut delta: Delta, logprobs: Option<Logprobs>, events: &mut Events) {
        if !self.has_role {
            self.has_role = true;
            delta.role = Some("assistant");
        }
        let choice = ChunkChoice { index: 0, delta, finish_reason: None, logprobs };
        events.data(&self.chunk(vec![choice], None));
    }

    fn finish(&mut self, reason: Option<DoneReason>, metrics: Metrics, events: &mut Events) {
        self.is_over = true;
        let finish_reason = finish_reason(reason.or(Some(DoneReason::Stop)), self.has_tool_calls);
        let choice = ChunkChoice { index: 0, delta: Delta::default(), finish_reason, logprobs: None };
        events.data(&self.chunk(vec![choice], None));
        if self.header.include_usage {
            events.data(&self.chunk(Vec::new(), Some(Usage::from(metrics))));
        }
        events.done();
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Chunk {
        Chunk {
            id: self.header.id.clone(),
            object: "chat.completion.chunk",
            created: self.header.created,
            model: self.header.model.clone(),
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage,
        }
    }
}

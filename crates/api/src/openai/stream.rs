//! Ollama's stream of answers as OpenAI's stream of chunks.

use super::SYSTEM_FINGERPRINT;
use super::chat::ToolCall;
use super::completion::{Chunk, ChunkChoice, Delta, Logprobs, Usage, finish_reason};
use crate::ollama::ChatResponse;

/// Remembers what a stream has said so far: the role is told once, and tool calls change how it ends.
#[derive(Debug)]
pub struct Stream {
    id: String,
    created: i64,
    include_usage: bool,
    has_role: bool,
    has_tool_calls: bool,
}

// === impl Stream ===

impl Stream {
    /// `id` is `chatcmpl-<number>`, `created` is in seconds since 1970; all chunks share them.
    pub fn new(id: String, created: i64, include_usage: bool) -> Stream {
        Stream { id, created, include_usage, has_role: false, has_tool_calls: false }
    }

    /// The chunks that say what `response` adds, in order; after those of the last one the caller writes `[DONE]`.
    pub fn push(&mut self, response: ChatResponse) -> Vec<Chunk> {
        let mut chunks = Vec::with_capacity(1);
        let model = &response.model;
        let message = response.message;
        let thinking = message.thinking.unwrap_or_default();
        let tool_calls: Vec<ToolCall> = message.tool_calls.iter().map(ToolCall::from).collect();
        self.has_tool_calls |= !tool_calls.is_empty();
        let logprobs = response.logprobs.map(|content| Logprobs { content });

        let has_reply = !message.content.is_empty() || !tool_calls.is_empty();
        // The last answer often carries nothing but numbers.
        let is_trailer = response.done && !has_reply && thinking.is_empty() && logprobs.is_none();
        let mut delta = Delta { content: Some(message.content), tool_calls, ..Delta::default() };
        if !thinking.is_empty() {
            let reasoning = Some(thinking);
            if has_reply {
                let thought = Delta { reasoning, ..Delta::default() };
                chunks.push(self.chunk(model, vec![self.choice(thought, None, None)]));
            } else {
                delta.reasoning = reasoning;
            }
        }
        if !is_trailer {
            chunks.push(self.chunk(model, vec![self.choice(delta, None, logprobs)]));
        }
        if let Some(first) = chunks.first_mut().filter(|_| !self.has_role) {
            self.has_role = true;
            first.choices[0].delta.role = Some("assistant");
        }
        if response.done {
            let reason = finish_reason(response.done_reason, self.has_tool_calls);
            chunks.push(self.chunk(model, vec![self.choice(Delta::default(), reason, None)]));
            if self.include_usage {
                let usage = Some(Usage::from(response.metrics));
                chunks.push(Chunk { usage, ..self.chunk(model, Vec::new()) });
            }
        }
        chunks
    }

    fn choice(
        &self,
        delta: Delta,
        finish_reason: Option<&'static str>,
        logprobs: Option<Logprobs>,
    ) -> ChunkChoice {
        ChunkChoice { index: 0, delta, finish_reason, logprobs }
    }

    fn chunk(&self, model: &str, choices: Vec<ChunkChoice>) -> Chunk {
        Chunk {
            id: self.id.clone(),
            object: "chat.completion.chunk",
            created: self.created,
            model: model.to_owned(),
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage: None,
        }
    }
}

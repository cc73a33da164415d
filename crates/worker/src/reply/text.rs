//! The stages of an answer's text in their order: stop strings, thinking, tool calls.

use protocol::v1::ToolCall;

use super::{
    Spec,
    stop::Stop,
    thinking::{Split, Thinking},
    tools::{Found, Tools},
};

#[derive(Debug)]
pub struct Text {
    stop: Stop,
    thinking: Option<Thinking>,
    tools: Option<Tools>,
    /// Bytes that came through the stop strings.
    passed: usize,
    stopped_at: Option<usize>,
}

/// What one push released. Thinking comes before content, content before calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    pub thinking: String,
    pub content: String,
    pub calls: Vec<ToolCall>,
    /// A stop string began at this byte of the text.
    pub stopped_at: Option<usize>,
}

// === impl Text ===

impl Text {
    pub fn new(spec: Spec) -> Text {
        Text {
            stop: Stop::new(spec.stops),
            thinking: spec.thinking.map(Thinking::new),
            tools: spec.tools.map(Tools::new),
            passed: 0,
            stopped_at: None,
        }
    }

    /// Text after a stop string is not text of the answer.
    pub fn push(&mut self, text: &str) -> Piece {
        if self.stopped_at.is_some() {
            return Piece { stopped_at: self.stopped_at, ..Piece::default() };
        }
        let passed = self.stop.push(text);
        self.passed += passed.text.len();
        if passed.stopped {
            self.stopped_at = Some(self.passed);
        }
        Piece { stopped_at: self.stopped_at, ..self.split(&passed.text) }
    }

    /// The end of the answer.
    pub fn finish(&mut self) -> Piece {
        let held = self.stop.finish();
        let mut piece = Piece { stopped_at: self.stopped_at, ..self.split(&held) };
        if let Some(thinking) = &mut self.thinking {
            let split = thinking.finish();
            piece.append(self.find_calls(split));
        }
        if let Some(tools) = &mut self.tools {
            piece.append(Piece::from(tools.finish()));
        }
        piece
    }

    fn split(&mut self, text: &str) -> Piece {
        let split = match &mut self.thinking {
            Some(thinking) => thinking.push(text),
            None => Split { thinking: String::new(), content: text.to_owned() },
        };
        self.find_calls(split)
    }

    fn find_calls(&mut self, split: Split) -> Piece {
        let found = match &mut self.tools {
            Some(tools) => tools.push(&split.content),
            None => Found { content: split.content, calls: Vec::new() },
        };
        Piece { thinking: split.thinking, ..Piece::from(found) }
    }
}

// === impl Piece ===

impl Piece {
    /// Nothing that a client would see.
    pub fn is_empty(&self) -> bool {
        self.thinking.is_empty() && self.content.is_empty() && self.calls.is_empty()
    }

    pub fn append(&mut self, next: Piece) {
        self.thinking.push_str(&next.thinking);
        self.content.push_str(&next.content);
        self.calls.extend(next.calls);
        self.stopped_at = self.stopped_at.or(next.stopped_at);
    }

    /// Drops up to so many bytes of thinking, then of content; answers how many. A character that the cut would
    /// divide is dropped whole: half of it was never sent.
    pub fn cut_front(&mut self, bytes: u64) -> u64 {
        let from_thinking = cut_front(&mut self.thinking, bytes);
        from_thinking + cut_front(&mut self.content, bytes - from_thinking)
    }
}

impl From<Found> for Piece {
    fn from(found: Found) -> Piece {
        Piece { content: found.content, calls: found.calls, ..Piece::default() }
    }
}

fn cut_front(text: &mut String, bytes: u64) -> u64 {
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).min(text.len());
    let at = text.ceil_char_boundary(wanted);
    text.drain(..at);
    at.min(wanted) as u64
}

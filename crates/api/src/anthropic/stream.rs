//! Ollama's stream of answers as Anthropic's events.

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::ErrorBody;
use super::message::{self, Block, MessagesResponse, StopReason, Usage};
use super::request::MessagesRequest;
use crate::error::Error;
use crate::events::{Events, Translation};
use crate::ollama::{ChatResponse, DoneReason, Metrics, ToolCall};

/// Remembers what a stream has said so far.
#[derive(Clone, Debug)]
pub struct Stream {
    id: String,
    request_id: String,
    model: String,
    estimated_tokens: u64,
    /// The request has the built-in tool.
    searches: bool,
    progress: Progress,
    /// Of the open block, or of the next.
    index: usize,
    open: Option<Kind>,
    has_tool_calls: bool,
    /// The model asked for a search. What it says afterwards would be made up.
    is_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Running,
    Over,
}

/// Blocks that come in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart { message: MessagesResponse },
    ContentBlockStart { index: usize, content_block: Block },
    ContentBlockDelta { index: usize, delta: Delta },
    ContentBlockStop { index: usize },
    MessageDelta { delta: End, usage: Usage },
    MessageStop,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
}

#[derive(Debug, Serialize)]
struct End {
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
}

impl Translation for Stream {
    type Part = ChatResponse;

    fn push(&mut self, part: ChatResponse, events: &mut Events) {
        if self.progress == Progress::Over {
            return;
        }
        self.start(part.metrics, events);
        if !self.is_refused {
            let message = part.message;
            self.add(Kind::Thinking, message.thinking.unwrap_or_default(), events);
            self.add(Kind::Text, message.content, events);
            for call in message.tool_calls {
                self.call(call, events);
            }
        }
        if part.done {
            self.finish(part.done_reason, Usage::from(part.metrics), events);
        }
    }

    fn fail(&mut self, error: &Error, events: &mut Events) {
        if self.progress != Progress::Over {
            self.progress = Progress::Over;
            events.named("error", &ErrorBody::new(error, self.request_id.clone()));
        }
    }

    fn end(&mut self, events: &mut Events) {
        if self.progress != Progress::Over {
            self.start(Metrics::default(), events);
            self.finish(Some(DoneReason::Stop), Usage::default(), events);
        }
    }
}

// === impl Stream ===

impl Stream {
    /// `id` is `msg_<24 hexadecimal digits>`; `request_id` is `req_` and the same, told if the stream breaks.
    pub fn new(id: String, request_id: String, request: &MessagesRequest) -> Stream {
        Stream {
            id,
            request_id,
            model: request.model.clone(),
            estimated_tokens: request.estimated_tokens(),
            searches: request.wants_web_search(),
            progress: Progress::Waiting,
            index: 0,
            open: None,
            has_tool_calls: false,
            is_refused: false,
        }
    }

    fn start(&mut self, metrics: Metrics, events: &mut Events) {
        if self.progress != Progress::Waiting {
            return;
        }
        self.progress = Progress::Running;
        let input_tokens = match metrics.prompt_eval_count {
            0 => self.estimated_tokens,
            counted => counted,
        };
        let message = MessagesResponse {
            id: self.id.clone(),
            kind: "message",
            role: "assistant",
            model: self.model.clone(),
            content: Some(Vec::new()),
            stop_reason: None,
            usage: Usage { input_tokens, output_tokens: 0 },
        };
        send(events, Event::MessageStart { message });
    }

    /// Text for a block of its kind: the open one if it is, else a new one.
    fn add(&mut self, kind: Kind, text: String, events: &mut Events) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(kind) {
            self.close(events);
            self.open = Some(kind);
            let content_block = match kind {
                Kind::Text => Block::Text { text: String::new() },
                Kind::Thinking => Block::Thinking { thinking: String::new() },
            };
            send(events, Event::ContentBlockStart { index: self.index, content_block });
        }
        let delta = match kind {
            Kind::Text => Delta::Text { text },
            Kind::Thinking => Delta::Thinking { thinking: text },
        };
        send(events, Event::ContentBlockDelta { index: self.index, delta });
    }

    fn call(&mut self, call: ToolCall, events: &mut Events) {
        if self.is_refused {
            return;
        }
        self.close(events);
        if self.searches && message::is_search(&call) {
            self.is_refused = true;
            for block in message::refused_search(&self.id, &call) {
                self.whole(block, None, events);
            }
            return;
        }
        self.has_tool_calls = true;
        let partial_json = Value::Object(call.function.arguments.clone()).to_string();
        let block = match Block::from(call) {
            // The input comes in the delta.
            Block::ToolUse { id, name, .. } => Block::ToolUse { id, name, input: Map::new() },
            other => other,
        };
        self.whole(block, Some(Delta::InputJson { partial_json }), events);
    }

    /// A block that comes at once.
    fn whole(&mut self, content_block: Block, delta: Option<Delta>, events: &mut Events) {
        let index = self.index;
        send(events, Event::ContentBlockStart { index, content_block });
        if let Some(delta) = delta {
            send(events, Event::ContentBlockDelta { index, delta });
        }
        send(events, Event::ContentBlockStop { index });
        self.index += 1;
    }

    fn close(&mut self, events: &mut Events) {
        if self.open.take().is_some() {
            send(events, Event::ContentBlockStop { index: self.index });
            self.index += 1;
        }
    }

    fn finish(&mut self, reason: Option<DoneReason>, usage: Usage, events: &mut Events) {
        self.close(events);
        let stop_reason = match self.is_refused {
            true => Some(StopReason::EndTurn),
            false => StopReason::new(reason, self.has_tool_calls),
        };
        send(events, Event::MessageDelta { delta: End { stop_reason }, usage });
        send(events, Event::MessageStop);
        self.progress = Progress::Over;
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Event::MessageStart { .. } => "message_start",
            Event::ContentBlockStart { .. } => "content_block_start",
            Event::ContentBlockDelta { .. } => "content_block_delta",
            Event::ContentBlockStop { .. } => "content_block_stop",
            Event::MessageDelta { .. } => "message_delta",
            Event::MessageStop => "message_stop",
        }
    }
}

fn send(events: &mut Events, event: Event) {
    events.named(event.name(), &event);
}

//! Ollama's stream of answers as the numbered events of a response.

use serde_json::{Value, json};

use super::response::{OutputItem, OutputText, Response, ResponseError, is_search, no_search};
use crate::error::Error;
use crate::events::{Events, Translation};
use crate::gojson;
use crate::ollama::{ChatResponse, Metrics, ToolCall};

/// Remembers what a stream has said so far.
#[derive(Clone, Debug)]
pub struct ResponseStream {
    /// As it stands; its output are the items that are complete.
    response: Response,
    /// The request has the built-in tool.
    searches: bool,
    open: Option<Open>,
    progress: Progress,
    sequence_number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    /// Thoughts and text may come.
    Talking,
    /// A tool was called; what a model says afterwards is left out, as in Ollama.
    Calling,
    Over,
}

/// The item that comes in pieces.
#[derive(Clone, Debug)]
struct Open {
    kind: Kind,
    id: String,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
}

impl Translation for ResponseStream {
    type Part = ChatResponse;

    fn push(&mut self, part: ChatResponse, events: &mut Events) {
        if self.progress == Progress::Over {
            return;
        }
        self.start(events);
        let message = part.message;
        self.add(Kind::Reasoning, message.thinking.unwrap_or_default(), events);
        if message.tool_calls.is_empty() && self.progress == Progress::Talking {
            self.add(Kind::Message, message.content, events);
        }
        for call in &message.tool_calls {
            if self.searches && is_search(call) {
                return self.fail(&no_search(), events);
            }
            self.call(call, events);
        }
        if part.done {
            let now = gojson::unix_seconds(&part.created_at).unwrap_or(self.response.created_at);
            self.finish(part.metrics, now, events);
        }
    }

    fn fail(&mut self, error: &Error, events: &mut Events) {
        if self.progress == Progress::Over {
            return;
        }
        self.start(events);
        self.close(events);
        self.progress = Progress::Over;
        self.response.status = "failed";
        self.response.error = Some(ResponseError { code: "api_error", message: error.message.clone() });
        self.lifecycle("response.failed", events);
    }

    fn end(&mut self, events: &mut Events) {
        if self.progress != Progress::Over {
            self.start(events);
            self.finish(Metrics::default(), self.response.created_at, events);
        }
    }
}

// === impl ResponseStream ===

impl ResponseStream {
    /// Of a response that has begun. `searches` when the request had the built-in tool.
    pub fn new(response: Response, searches: bool) -> ResponseStream {
        ResponseStream { response, searches, open: None, progress: Progress::Waiting, sequence_number: 0 }
    }

    fn start(&mut self, events: &mut Events) {
        if self.progress == Progress::Waiting {
            self.progress = Progress::Talking;
            self.lifecycle("response.created", events);
            self.lifecycle("response.in_progress", events);
        }
    }

    /// Text for an item of its kind: the open one if it is, else a new one.
    fn add(&mut self, kind: Kind, text: String, events: &mut Events) {
        if text.is_empty() {
            return;
        }
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            self.close(events);
            self.open(kind, events);
        }
        let index = self.index();
        let Some(open) = &mut self.open else { return };
        open.text.push_str(&text);
        let id = open.id.clone();
        match kind {
            Kind::Reasoning => self.send(
                "response.reasoning_summary_text.delta",
                json!({"item_id": id, "output_index": index, "summary_index": 0, "delta": text}),
                events,
            ),
            Kind::Message => self.send(
                "response.output_text.delta",
                json!({"item_id": id, "output_index": index, "content_index": 0, "delta": text, "logprobs": []}),
                events,
            ),
        }
    }

    fn open(&mut self, kind: Kind, events: &mut Events) {
        let index = self.index();
        let (id, item) = match kind {
            Kind::Reasoning => {
                let id = self.response.item_id("rs", index);
                (id.clone(), OutputItem::Reasoning { id, summary: Vec::new(), encrypted_content: None })
            }
            Kind::Message => {
                let (id, content) = (self.response.item_id("msg", index), Vec::new());
                let item =
                    OutputItem::Message { id: id.clone(), status: "in_progress", role: "assistant", content };
                (id, item)
            }
        };
        self.send("response.output_item.added", json!({"output_index": index, "item": item}), events);
        if kind == Kind::Message {
            let part = OutputText::new(String::new());
            let added = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
            self.send("response.content_part.added", added, events);
        }
        self.open = Some(Open { kind, id, text: String::new() });
    }

    /// Completes the open item.
    fn close(&mut self, events: &mut Events) {
        let Some(Open { kind, id, text }) = self.open.take() else { return };
        let index = self.index();
        let item = match kind {
            Kind::Reasoning => {
                let done = json!({"item_id": id, "output_index": index, "summary_index": 0, "text": text});
                self.send("response.reasoning_summary_text.done", done, events);
                OutputItem::thought(id, text)
            }
            Kind::Message => {
                let place = json!({"item_id": id, "output_index": index, "content_index": 0});
                let with = |key: &str, value: Value| {
                    let mut data = place.clone();
                    data[key] = value;
                    data
                };
                let mut done = with("text", text.clone().into());
                done["logprobs"] = json!([]);
                self.send("response.output_text.done", done, events);
                let part = with("part", json!(OutputText::new(text.clone())));
                self.send("response.content_part.done", part, events);
                OutputItem::said(id, text)
            }
        };
        self.send("response.output_item.done", json!({"output_index": index, "item": item}), events);
        self.response.output.push(item);
    }

    fn call(&mut self, call: &ToolCall, events: &mut Events) {
        self.close(events);
        self.progress = Progress::Calling;
        let index = self.index();
        let id = self.response.item_id("fc", index);
        let item = json!(OutputItem::called(id.clone(), call));
        let mut begun = item.clone();
        begun["status"] = "in_progress".into();
        begun["arguments"] = "".into();
        self.send("response.output_item.added", json!({"output_index": index, "item": begun}), events);
        let delta = json!({"item_id": id, "output_index": index, "delta": item["arguments"]});
        self.send("response.function_call_arguments.delta", delta, events);
        let done = json!({"item_id": id, "output_index": index, "name": item["name"], "arguments": item["arguments"]});
        self.send("response.function_call_arguments.done", done, events);
        self.send("response.output_item.done", json!({"output_index": index, "item": item}), events);
        self.response.output.push(OutputItem::called(id, call));
    }

    fn finish(&mut self, metrics: Metrics, now: i64, events: &mut Events) {
        self.close(events);
        self.progress = Progress::Over;
        let output = std::mem::take(&mut self.response.output);
        self.response.complete(output, metrics, now);
        self.lifecycle("response.completed", events);
    }

    /// Where the open item stands, or the next.
    fn index(&self) -> usize {
        self.response.output.len()
    }

    /// An event that shows the response as it stands.
    fn lifecycle(&mut self, name: &'static str, events: &mut Events) {
        let data = json!({"response": self.response});
        self.send(name, data, events);
    }

    fn send(&mut self, name: &'static str, mut data: Value, events: &mut Events) {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence_number.into();
        self.sequence_number += 1;
        events.named(name, &data);
    }
}

//! What a template is rendered with. Plain data, filled in by the caller.

use jiff::civil::Date;
use serde_json::{Map, Value};

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Lower case: `system`, `user`, `assistant`, `tool`, or what the model knows.
    pub role: String,
    pub content: String,
    pub thinking: String,
    /// How many images come with it; their placeholders are already in `content` where a template needs text.
    pub images: usize,
    pub tool_calls: Vec<ToolCall>,
    pub tool_name: String,
    pub tool_call_id: String,
}

/// A call that the model made earlier in the conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolCall {
    pub id: String,
    pub index: u32,
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// Whether the model shall think, and how hard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Think {
    pub on: bool,
    /// `high`, `medium`, `low`, `max`; empty when the request said only yes or no.
    pub level: String,
}

/// Everything that a template may ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// When empty, `system`, `prompt` and `response` stand for a conversation of that many messages.
    pub messages: Vec<Message>,
    /// Tools as the API has them: `{"type":"function","function":{..}}`.
    pub tools: Vec<Value>,
    pub prompt: String,
    /// Not empty together with `prompt`: fill in the middle.
    pub suffix: String,
    pub system: String,
    pub response: String,
    /// `None` when the request did not say.
    pub think: Option<Think>,
    /// For Jinja, which writes the special tokens itself.
    pub bos_token: String,
    pub eos_token: String,
    /// For Jinja: end with the header of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The local date, for templates that put it into the system message.
    pub today: Date,
}

// === impl Message ===

impl Message {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into(), ..Message::default() }
    }
}

// === impl Think ===

impl Think {
    /// A level means yes.
    pub(crate) fn is_on(&self) -> bool {
        self.on || !self.level.is_empty()
    }
}

// === impl Values ===

impl Values {
    /// The messages, or those that `system`, `prompt` and `response` stand for.
    pub(crate) fn conversation(&self) -> Vec<Message> {
        if !self.messages.is_empty() {
            return self.messages.clone();
        }
        let parts = [("system", &self.system), ("user", &self.prompt), ("assistant", &self.response)];
        let said = parts.into_iter().filter(|(_, content)| !content.is_empty());
        said.map(|(role, content)| Message::new(role, content)).collect()
    }
}

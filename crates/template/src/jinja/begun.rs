//! A conversation that ends with what the assistant has begun to say. Its text goes behind the header of the assistant's
//! next turn, so that the model goes on where it ends. No template knows of this; llama.cpp's server does the same.

use crate::{Message, Values};

const THINKS: &str = "<think>";
const THOUGHT: &str = "</think>";

/// The conversation before it, and what has been said; `None` where the assistant has said nothing or is at an end.
pub(super) fn split(values: &Values) -> Option<(Values, Message)> {
    let last = values.messages.last()?;
    let is_said = |message: &&Message| message.role == "assistant" && message.tool_calls.is_empty();
    if !is_said(&last) || last.content.is_empty() {
        return None;
    }
    let said = values.messages.iter().rev().take_while(is_said).count();
    let (before, said) = values.messages.split_at(values.messages.len() - said);
    if before.is_empty() {
        return None;
    }
    // Several are one, as in a Go template.
    let content: Vec<&str> = said.iter().map(|message| message.content.as_str()).collect();
    let begun = Message { content: content.join("\n\n"), ..last.clone() };
    Some((Values { messages: before.to_vec(), ..values.clone() }, begun))
}

/// Adds it to the prompt of the conversation before it.
pub(super) fn append(prompt: &mut String, begun: &Message) {
    // Where the header opens a thought, the thought has come to its end before anything was said.
    if prompt.trim_end().ends_with(THINKS) && !begun.content.contains(THOUGHT) {
        prompt.extend([begun.thinking.as_str(), "\n", THOUGHT, "\n\n"]);
    }
    prompt.push_str(&begun.content);
}

//! Which messages a worker renders: the Modelfile's before the client's, a system prompt unless there is one.

use api::ollama::Message;
use store::Model;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// For a chat. The Modelfile's system prompt yields to a system message at the beginning of the request.
pub fn for_chat(model: &Model, requested: Vec<Message>) -> Vec<Message> {
    let has_system = requested.first().is_some_and(|first| first.role == "system");
    let system = model.system.clone().filter(|text| !text.is_empty() && !has_system);
    let mut messages: Vec<Message> = system.map(system_message).into_iter().collect();
    messages.extend(model.messages.iter().cloned());
    messages.extend(requested);
    if forgets_thoughts(model) {
        forget_thoughts(&mut messages);
    }
    messages
}

/// For one prompt. `continues` is true when the request brings the tokens of an earlier answer, which began with
/// the Modelfile's messages already.
pub fn for_prompt(model: &Model, system: String, user: Message, continues: bool) -> Vec<Message> {
    let system = if system.is_empty() { model.system.clone().unwrap_or_default() } else { system };
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(system_message(system));
    }
    if !continues {
        messages.extend(model.messages.iter().cloned());
    }
    messages.push(user);
    messages
}

fn system_message(content: String) -> Message {
    Message { role: "system".to_owned(), content, ..Message::default() }
}

/// Models whose makers ask that earlier thoughts are not shown to them again, and whose templates do not see to it.
fn forgets_thoughts(model: &Model) -> bool {
    model.config.model_family == "qwen3" || model.name.model == "deepseek-r1"
}

fn forget_thoughts(messages: &mut [Message]) {
    let last_user = messages.iter().rposition(|message| message.role == "user").unwrap_or(0);
    for message in messages[..last_user].iter_mut().filter(|message| message.role == "assistant") {
        message.content = without_thoughts(&message.content);
    }
}

/// Cuts every `<think>..</think>` and the line ends after it.
fn without_thoughts(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((_, after)) = after.split_once(CLOSE) else { break };
        kept.push_str(before);
        rest = after.trim_start_matches('\n');
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_cut_with_the_line_ends_after_them() {
        for (text, kept) in [
            ("<think>a\nb</think>\n\nhi", "hi"),
            ("x<think></think>y<think>z</think>", "xy"),
            ("<think>never closed", "<think>never closed"),
            ("none", "none"),
        ] {
            assert_eq!(without_thoughts(text), kept);
        }
    }
}

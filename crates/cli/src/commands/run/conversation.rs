//! The prompt loop: reads a message, streams the answer, keeps the history.

use anyhow::Result;
use api::ollama::{ChatRequest, ChatResponse, Message};
use futures::StreamExt;
use rustyline::{DefaultEditor, error::ReadlineError};

use super::{Wishes, answer::Answer};
use crate::client::Client;

const HELP: &str = "Available Commands:
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command

Use \"\"\" to begin a multi-line message.
";

/// What one entered line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Message(String),
    Clear,
    Help,
    Bye,
    Nothing,
    Unknown(String),
}

pub async fn hold(client: &Client, wishes: Wishes) -> Result<()> {
    let mut editor = DefaultEditor::new()?;
    let mut messages: Vec<Message> = Vec::new();
    eprintln!("Send a message (/? for help)");
    loop {
        let entry = match tokio::task::block_in_place(|| read_entry(&mut editor)) {
            Ok(entry) => entry,
            Err(ReadlineError::Interrupted) => {
                println!("\nUse Ctrl + d or /bye to exit.");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match entry {
            Entry::Bye => return Ok(()),
            Entry::Nothing => {}
            Entry::Help => eprint!("{HELP}"),
            Entry::Clear => {
                messages.clear();
                println!("Cleared session context");
            }
            Entry::Unknown(command) => println!("Unknown command '{command}'. Type /? for help"),
            Entry::Message(content) => {
                messages.push(Message { role: "user".to_owned(), content, ..Message::default() });
                let reply = chat(client, &wishes, &messages).await?;
                messages.push(reply);
            }
        }
    }
}

fn read_entry(editor: &mut DefaultEditor) -> Result<Entry, ReadlineError> {
    let mut text = editor.readline(">>> ")?;
    while is_open(&text) {
        text.push('\n');
        text.push_str(&editor.readline("... ")?);
    }
    if !text.trim().is_empty() {
        editor.add_history_entry(text.as_str())?;
    }
    Ok(parse(&text))
}

/// Whether three quotes were opened and not closed.
fn is_open(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("\"\"\"") && (text.len() < 6 || !text.ends_with("\"\"\""))
}

fn parse(text: &str) -> Entry {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix("\"\"\"") {
        return Entry::Message(inner.strip_suffix("\"\"\"").unwrap_or(inner).to_owned());
    }
    match text.split_whitespace().next() {
        None => Entry::Nothing,
        Some("/bye" | "/exit") => Entry::Bye,
        Some("/clear") => Entry::Clear,
        Some("/?" | "/help") => Entry::Help,
        Some(command) if command.starts_with('/') && !command[1..].contains('/') => {
            Entry::Unknown(command.to_owned())
        }
        Some(_) => Entry::Message(text.to_owned()),
    }
}

/// Streams one answer; Ctrl-C ends the answer, not the program, and keeps what has come.
async fn chat(client: &Client, wishes: &Wishes, messages: &[Message]) -> Result<Message> {
    let request = ChatRequest {
        model: wishes.model.clone(),
        messages: messages.to_vec(),
        format: wishes.format.clone(),
        keep_alive: wishes.keep_alive,
        think: wishes.think.clone(),
        ..ChatRequest::default()
    };
    let mut answer = Answer::new(wishes);
    let mut reply = Message { role: "assistant".to_owned(), ..Message::default() };
    let mut lines = std::pin::pin!(client.stream::<ChatResponse, _>("/api/chat", &request).await?);
    loop {
        tokio::select! {
            line = lines.next() => {
                let Some(line) = line else { return Ok(reply) };
                let line = line?;
                answer.thinking(line.message.thinking.as_deref().unwrap_or_default())?;
                answer.content(&line.message.content)?;
                reply.content.push_str(&line.message.content);
                if line.done {
                    answer.finish(&line.metrics)?;
                    println!();
                    return Ok(reply);
                }
            }
            _ = tokio::signal::ctrl_c() => {
                answer.interrupt()?;
                return Ok(reply);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_messages() {
        assert_eq!(parse("  hello there "), Entry::Message("hello there".to_owned()));
        assert_eq!(parse("/bye"), Entry::Bye);
        assert_eq!(parse("/clear"), Entry::Clear);
        assert_eq!(parse("/what is this"), Entry::Unknown("/what".to_owned()));
        assert_eq!(parse("/etc/passwd is a file"), Entry::Message("/etc/passwd is a file".to_owned()));
        assert_eq!(parse(" "), Entry::Nothing);
    }

    #[test]
    fn three_quotes_hold_several_lines() {
        assert!(is_open("\"\"\""));
        assert!(is_open("\"\"\"one\ntwo"));
        assert!(!is_open("\"\"\"one\ntwo\"\"\""));
        assert_eq!(parse("\"\"\"one\ntwo\"\"\""), Entry::Message("one\ntwo".to_owned()));
    }
}

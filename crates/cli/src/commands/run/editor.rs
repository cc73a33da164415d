//! The line at the prompt: editing keys, history, placeholder, and the editor behind Ctrl + g. The keys are those of
//! rustyline's Emacs mode.

use std::{
    borrow::Cow,
    io::{Read, Write},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use node::{
    Setting, Sources,
    config::{ollama_bool, strict_bool},
};
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, Helper, KeyEvent,
    RepeatCount,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::{Hint, Hinter},
    history::MemHistory,
    validate::Validator,
};

use super::history::{History, MAX_ENTRIES};
use crate::output::{remark, told};

pub const PROMPT: &str = ">>> ";
const CONTINUATION: &str = "... ";
/// What marks the begin and the end of several lines.
pub const QUOTES: &str = "\"\"\"";

const NO_HISTORY: Setting<bool> =
    Setting::new("", &["OLLAMA_NOHISTORY"], "a bool", strict_bool).ollama(ollama_bool);

/// What came of one time at the prompt.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// One line, or several in quotes, with the quotes.
    Text(String),
    /// Ctrl + c.
    Interrupt { line_was_empty: bool },
    /// Ctrl + d.
    End,
}

pub struct LineEditor {
    editor: Editor<Placeholder, MemHistory>,
    keys: Arc<Keys>,
    /// `None` where it cannot be kept: there is no home folder, or one that nothing can be written to.
    history: Option<History>,
    pub keeps_history: bool,
    /// The program for long texts, with its arguments.
    external: String,
}

/// What the handlers of keys saw at the last prompt.
#[derive(Debug, Default)]
struct Keys {
    line_was_empty: AtomicBool,
    wants_editor: AtomicBool,
}

impl LineEditor {
    pub fn new(sources: &Sources) -> Result<LineEditor> {
        let config = Config::builder().max_history_size(MAX_ENTRIES)?.build();
        let mut editor = Editor::with_history(config.clone(), MemHistory::with_config(&config))?;
        editor.set_helper(Some(Placeholder::default()));
        let keys = Arc::new(Keys::default());
        for (key, handler) in [('C', OnKey::Interrupt as OnKeyOf), ('G', OnKey::OpenEditor)] {
            editor.bind_sequence(
                KeyEvent::ctrl(key),
                EventHandler::Conditional(Box::new(handler(keys.clone()))),
            );
        }
        let history = History::default_path().map(History::read).transpose().unwrap_or_else(|error| {
            remark(format_args!("Warning: {}", told(&error)));
            None
        });
        for entry in history.iter().flat_map(History::entries) {
            editor.add_history_entry(entry)?;
        }
        let variables = ["OLLAMA_EDITOR", "VISUAL", "EDITOR"];
        let external = variables.iter().find_map(|name| sources.variable(name)).unwrap_or("vi").to_owned();
        let keeps_history = !sources.read(&NO_HISTORY, None)?.unwrap_or_default();
        Ok(LineEditor { editor, keys, history, keeps_history, external })
    }

    /// Waits for a text; one that begins with three quotes goes on until three quotes end it.
    pub fn read(&mut self) -> Result<Typed> {
        let mut text = match self.read_line(PROMPT)? {
            Typed::Text(line) => line,
            other => return Ok(other),
        };
        while is_open(&text) {
            match self.read_line(CONTINUATION)? {
                Typed::Text(line) => text = format!("{text}\n{line}"),
                other => return Ok(other),
            }
        }
        Ok(Typed::Text(text))
    }

    fn read_line(&mut self, prompt: &str) -> Result<Typed> {
        if let Some(helper) = self.editor.helper_mut() {
            helper.is_continuation = prompt == CONTINUATION;
        }
        let mut begin = String::new();
        loop {
            match self.editor.readline_with_initial(prompt, (&begin, "")) {
                Ok(line) if self.keys.wants_editor.swap(false, Ordering::Relaxed) => {
                    begin = edit(&self.external, &line).unwrap_or_else(|error| {
                        remark(format_args!("Error: {}", told(&error)));
                        line
                    });
                }
                Ok(line) => {
                    self.remember(&line)?;
                    return Ok(Typed::Text(line));
                }
                Err(ReadlineError::Interrupted) => {
                    let line_was_empty = self.keys.line_was_empty.load(Ordering::Relaxed);
                    return Ok(Typed::Interrupt { line_was_empty });
                }
                Err(ReadlineError::Eof) => return Ok(Typed::End),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn remember(&mut self, text: &str) -> Result<()> {
        if !self.keeps_history {
            return Ok(());
        }
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            self.editor.add_history_entry(line)?;
        }
        if let Some(Err(error)) = self.history.as_mut().map(|history| history.add(text)) {
            // Said once: a conversation does not end because of it.
            remark(format_args!("Warning: {}", told(&error)));
            self.history = None;
        }
        Ok(())
    }
}

/// Whether three quotes were opened and not closed, at the begin of a message or of a system message.
fn is_open(text: &str) -> bool {
    let text = text.trim();
    let set_system =
        text.strip_prefix("/set").map(str::trim_start).and_then(|rest| rest.strip_prefix("system"));
    let quoted = set_system.map_or(text, str::trim_start);
    quoted.starts_with(QUOTES) && (quoted.len() < 2 * QUOTES.len() || !quoted.ends_with(QUOTES))
}

/// Opens `program` on a file with `text` and answers what is in it afterwards.
fn edit(program: &str, text: &str) -> Result<String> {
    let mut file = tempfile::Builder::new().prefix("prompt-").suffix(".txt").tempfile()?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    let mut words = program.split_whitespace();
    let command = words.next().context("the editor has a name")?;
    let ended = Command::new(command).args(words).arg(file.path()).status();
    let status =
        ended.with_context(|| format!("start the editor '{program}'; OLLAMA_EDITOR names another"))?;
    ensure!(status.success(), "the editor '{program}' failed, {status}");
    let mut edited = String::new();
    // Editors may put a new file in the place of the old one.
    std::fs::File::open(file.path())?.read_to_string(&mut edited).context("read what the editor wrote")?;
    Ok(edited.trim_end().to_owned())
}

// === The keys that are ours ===

type OnKeyOf = fn(Arc<Keys>) -> OnKey;

enum OnKey {
    Interrupt(Arc<Keys>),
    OpenEditor(Arc<Keys>),
}

impl ConditionalEventHandler for OnKey {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        match self {
            OnKey::Interrupt(keys) => {
                keys.line_was_empty.store(context.line().is_empty(), Ordering::Relaxed);
                Some(Cmd::Interrupt)
            }
            OnKey::OpenEditor(keys) => {
                keys.wants_editor.store(true, Ordering::Relaxed);
                Some(Cmd::AcceptLine)
            }
        }
    }
}

// === What an empty line says in grey ===

#[derive(Default)]
struct Placeholder {
    is_continuation: bool,
}

struct Grey(&'static str);

impl Hint for Grey {
    fn display(&self) -> &str {
        self.0
    }

    /// It is no text that could be taken over.
    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Placeholder {
    type Hint = Grey;

    fn hint(&self, line: &str, _: usize, _: &rustyline::Context<'_>) -> Option<Grey> {
        let text = match self.is_continuation {
            true => "Use \"\"\" to end multi-line input",
            false => "Send a message (/? for help)",
        };
        line.is_empty().then_some(Grey(text))
    }
}

impl Highlighter for Placeholder {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        format!("\x1b[90m{hint}\x1b[0m").into()
    }
}

impl Completer for Placeholder {
    type Candidate = String;
}

impl Validator for Placeholder {}

impl Helper for Placeholder {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quotes_hold_several_lines() {
        for (text, open) in [
            ("\"\"\"", true),
            ("\"\"\"one\ntwo", true),
            ("\"\"\"one\ntwo\"\"\"", false),
            ("\"\"\"\"\"\"", false),
            ("\"\"\"\"", true),
            ("one \"\"\"", false),
            ("/set system \"\"\"Be", true),
            ("/set system \"\"\"Be\nbrief.\"\"\"", false),
            ("/set system Be brief.", false),
            ("/set parameter stop \"\"\"", false),
        ] {
            assert_eq!(is_open(text), open, "{text:?}");
        }
    }

    #[test]
    fn an_external_editor_changes_the_text() {
        assert_eq!(edit("sed -i s/one/two/", "one\n\n").unwrap(), "two");
        let missing = edit("/nowhere/editor", "").unwrap_err().to_string();
        assert_eq!(missing, "start the editor '/nowhere/editor'; OLLAMA_EDITOR names another");
        assert!(edit("false", "").unwrap_err().to_string().starts_with("the editor 'false' failed"));
    }
}

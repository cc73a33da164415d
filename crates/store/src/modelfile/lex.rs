//! The syntax. A value runs to the end of its line, or, when it opens with a quote, to the first line end before
//! which that quote is closed. There are no escapes.

use super::{Command, Error};

/// Reads all commands.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, Error> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut commands = Vec::new();
    while let Some(instruction) = reader.instruction()? {
        commands.push(reader.command(&instruction)?);
    }
    Ok(commands)
}

/// The text that is left, and the line that it starts on.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

// === impl Reader ===

impl Reader<'_> {
    /// Skips blanks, empty lines and comments, and reads the word that opens the next command, in lower case.
    fn instruction(&mut self) -> Result<Option<String>, Error> {
        loop {
            self.skip(|letter| is_blank(letter) || is_newline(letter));
            match self.rest.chars().next() {
                None => return Ok(None),
                Some('#') => self.skip(|letter| !is_newline(letter)),
                Some(_) => break,
            }
        }
        let line = self.line;
        let word = self.take(|letter| letter.is_ascii_alphabetic()).to_ascii_lowercase();
        let is_known = matches!(
            word.as_str(),
            "from"
                | "license"
                | "template"
                | "system"
                | "adapter"
                | "draft"
                | "renderer"
                | "parser"
                | "parameter"
                | "message"
                | "requires"
        );
        if !is_known {
            return Err(Error::Command { line });
        }
        match self.rest.chars().next() {
            Some(letter) if is_blank(letter) => Ok(Some(word)),
            Some(letter) if !is_newline(letter) => Err(Error::Command { line }),
            // The value is missing.
            _ => Err(Error::End),
        }
    }

    fn command(&mut self, instruction: &str) -> Result<Command, Error> {
        self.skip(is_blank);
        Ok(match instruction {
            "from" => match self.value()? {
                path if path.is_empty() => return Err(Error::End),
                path => Command::From(path),
            },
            "license" => Command::License(self.value()?),
            "template" => Command::Template(self.value()?),
            "system" => Command::System(self.value()?),
            "adapter" => Command::Adapter(self.value()?),
            "draft" => Command::Draft(self.value()?),
            "renderer" => Command::Renderer(self.value()?),
            "parser" => Command::Parser(self.value()?),
            "requires" => Command::Requires(self.value()?),
            "parameter" => Command::Parameter { name: self.argument(is_key)?, value: self.value()? },
            // The only one left of the known instructions.
            _ => Command::Message { role: self.role()?, content: self.value()? },
        })
    }

    /// The word between a command and its value.
    fn argument(&mut self, accepts: fn(char) -> bool) -> Result<String, Error> {
        let word = self.take(accepts).to_owned();
        if word.is_empty() || !self.rest.starts_with(is_blank) {
            return Err(Error::End);
        }
        self.skip(is_blank);
        Ok(word)
    }

    fn role(&mut self) -> Result<String, Error> {
        let line = self.line;
        let role = self.argument(|letter| letter.is_ascii_alphabetic())?;
        match role.as_str() {
            "system" | "user" | "assistant" => Ok(role),
            _ => Err(Error::Role { line }),
        }
    }

    /// Takes lines until the quote that the first one opens, if it opens one, is closed.
    fn value(&mut self) -> Result<String, Error> {
        let mut end = 0;
        loop {
            end += self.rest[end..].find(is_newline).unwrap_or(self.rest.len() - end);
            if let Some(value) = unquote(self.rest[..end].trim()) {
                let value = value.chars().filter(|letter| is_kept(*letter)).collect();
                self.advance(end);
                return Ok(value);
            }
            // Over the line end, which is one byte.
            end += 1;
            if end > self.rest.len() {
                return Err(Error::End);
            }
        }
    }

    fn take(&mut self, accepts: impl Fn(char) -> bool) -> &str {
        let end = self.rest.find(|letter| !accepts(letter)).unwrap_or(self.rest.len());
        self.advance(end)
    }

    fn skip(&mut self, accepts: impl Fn(char) -> bool) {
        self.take(accepts);
    }

    /// Goes on by `bytes` and returns what it passed. A carriage return before a line feed is no line of its own.
    fn advance(&mut self, bytes: usize) -> &str {
        let (passed, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        let returns = passed.matches('\r').count() - passed.matches("\r\n").count();
        self.line += passed.matches('\n').count() + returns;
        passed
    }
}

/// The value without its quotes; `None` while they are open.
fn unquote(text: &str) -> Option<&str> {
    for quote in [r#"""""#, r#"""#] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.strip_suffix(quote);
        }
    }
    Some(text)
}

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t')
}

fn is_newline(letter: char) -> bool {
    matches!(letter, '\n' | '\r')
}

fn is_key(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Terminal escapes and other control characters are dropped, as in Ollama. It also drops what Go does not call
/// printable, the joiners in emoji among them; nobody can want that.
fn is_kept(letter: char) -> bool {
    !letter.is_control() || is_blank(letter) || is_newline(letter)
}

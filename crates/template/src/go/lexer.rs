//! Cuts a template into tokens. Trim markers and comments are dealt with here; the parser never sees them.

use crate::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Open,
    Close,
    Space,
    Pipe,
    Comma,
    /// `=`.
    Assign,
    /// `:=`.
    Declare,
    LeftParen,
    RightParen,
    /// `.` alone.
    Dot,
    /// `.Name`.
    Field,
    /// `$` or `$name`.
    Variable,
    /// A function or a keyword.
    Word,
    Number,
    /// `'c'`.
    Char,
    /// `"text"`.
    Quoted,
    /// Text in backquotes.
    Raw,
    /// Any other printable character: never valid, but the parser words the error.
    Other,
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub line: usize,
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// All tokens of `source`, the last one being [`Kind::End`].
pub(super) fn lex(source: &str) -> Result<Vec<Token<'_>>, Error> {
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new() };
    while lexer.text()? {
        lexer.action()?;
    }
    lexer.push(Kind::End, 0);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token<'a>>,
}

// === impl Lexer ===

impl<'a> Lexer<'a> {
    /// Text and comments up to the next action; false at the end of the template.
    fn text(&mut self) -> Result<bool, Error> {
        loop {
            let rest = self.rest();
            let Some(length) = rest.find("{{") else {
                self.push_text(rest.len(), 0);
                return Ok(false);
            };
            let after = &rest[length + 2..];
            let trims = after.starts_with('-') && after[1..].starts_with(BLANKS);
            let blanks = if trims { length - rest[..length].trim_end_matches(BLANKS).len() } else { 0 };
            self.push_text(length, blanks);
            let marker = if trims { 2 } else { 0 };
            if after[marker..].starts_with("/*") {
                self.skip(2 + marker);
                self.comment()?;
                continue;
            }
            self.push(Kind::Open, 2);
            self.skip(marker);
            return Ok(true);
        }
    }

    /// At `/*`, which must be all that the action holds.
    fn comment(&mut self) -> Result<(), Error> {
        let Some(end) = self.rest()[2..].find("*/") else { return Err(self.error("unclosed comment")) };
        self.skip(end + 4);
        match closing(self.rest()) {
            Some(length) => {
                self.close(length);
                Ok(())
            }
            None => Err(self.error("comment ends before closing delimiter")),
        }
    }

    /// The tokens of one action, including its closing delimiter.
    fn action(&mut self) -> Result<(), Error> {
        let mut open_parens = 0usize;
        loop {
            let rest = self.rest();
            if let Some(length) = closing(rest) {
                if open_parens > 0 {
                    return Err(self.error("unclosed left paren"));
                }
                self.tokens.push(Token { kind: Kind::Close, text: "}}", line: self.line });
                self.close(length);
                return Ok(());
            }
            let Some(first) = rest.chars().next() else { return Err(self.error("unclosed action")) };
            match first {
                '(' => open_parens += 1,
                ')' if open_parens == 0 => return Err(self.error("unexpected right paren")),
                ')' => open_parens -= 1,
                _ => {}
            }
            let (kind, length) = self.token(first)?;
            self.push(kind, length);
        }
    }

    /// Kind and length of the token that begins with `first`.
    fn token(&self, first: char) -> Result<(Kind, usize), Error> {
        let rest = self.rest();
        Ok(match first {
            _ if BLANKS.contains(&first) => (Kind::Space, blanks_before_closing(rest)),
            '=' => (Kind::Assign, 1),
            ':' if rest.starts_with(":=") => (Kind::Declare, 2),
            ':' => return Err(self.error("expected :=")),
            '|' => (Kind::Pipe, 1),
            ',' => (Kind::Comma, 1),
            '(' => (Kind::LeftParen, 1),
            ')' => (Kind::RightParen, 1),
            '"' => (Kind::Quoted, self.quoted('"', "unterminated quoted string")?),
            '\'' => (Kind::Char, self.quoted('\'', "unterminated character constant")?),
            '`' => match rest[1..].find('`') {
                Some(end) => (Kind::Raw, end + 2),
                None => return Err(self.error("unterminated raw quoted string")),
            },
            '.' if !rest[1..].starts_with(|next: char| next.is_ascii_digit()) => self.name(Kind::Field)?,
            '$' => self.name(Kind::Variable)?,
            '+' | '-' | '.' | '0'..='9' => (Kind::Number, number_length(rest)),
            _ if is_name(first) => self.name(Kind::Word)?,
            '!'..='~' => (Kind::Other, 1),
            other => return Err(self.error(&format!("unrecognized character in action: {other:?}"))),
        })
    }

    /// A field, a variable or a word: it must be followed by something that can follow a name.
    fn name(&self, kind: Kind) -> Result<(Kind, usize), Error> {
        let rest = self.rest();
        let prefix = usize::from(kind != Kind::Word);
        let length = prefix + rest[prefix..].find(|next| !is_name(next)).unwrap_or(rest.len() - prefix);
        let after = &rest[length..];
        let ends = after.is_empty()
            || after.starts_with("}}")
            || after.starts_with(BLANKS)
            || after.starts_with(['.', ',', '|', ':', '(', ')']);
        match after.chars().next() {
            Some(bad) if !ends => Err(self.error(&format!("bad character {bad:?}"))),
            _ if kind == Kind::Field && length == 1 => Ok((Kind::Dot, 1)),
            _ => Ok((kind, length)),
        }
    }

    fn quoted(&self, quote: char, unterminated: &str) -> Result<usize, Error> {
        let mut escaped = false;
        for (at, next) in self.rest().char_indices().skip(1) {
            match next {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if next == quote => return Ok(at + 1),
                _ => {}
            }
        }
        Err(self.error(unterminated))
    }

    /// Consumes a closing delimiter, and the blanks after it if it has a trim marker.
    fn close(&mut self, length: usize) {
        self.skip(length);
        if length > 2 {
            let rest = self.rest();
            self.skip(rest.len() - rest.trim_start_matches(BLANKS).len());
        }
    }

    /// `length` bytes of text, of which the last `blanks` are trimmed.
    fn push_text(&mut self, length: usize, blanks: usize) {
        if length > blanks {
            self.push(Kind::Text, length - blanks);
            self.skip(blanks);
        } else {
            self.skip(length);
        }
    }

    fn push(&mut self, kind: Kind, length: usize) {
        self.tokens.push(Token { kind, text: &self.rest()[..length], line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest()[..length].matches('\n').count();
        self.at += length;
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn error(&self, text: &str) -> Error {
        Error::Syntax { line: self.line, text: text.to_owned() }
    }
}

/// The length of a closing delimiter at the start of `rest`: 2, or 4 with a trim marker.
fn closing(rest: &str) -> Option<usize> {
    if rest.starts_with("}}") {
        return Some(2);
    }
    (rest.starts_with(BLANKS) && rest[1..].starts_with("-}}")).then_some(4)
}

/// The length of a run of blanks; the last one is left over when it belongs to a trim marker.
fn blanks_before_closing(rest: &str) -> usize {
    let length = rest.len() - rest.trim_start_matches(BLANKS).len();
    if rest[length..].starts_with("-}}") { length - 1 } else { length }
}

/// Whatever might be meant as a number; the parser finds out whether it is one.
fn number_length(rest: &str) -> usize {
    let unsigned = rest.trim_start_matches(['+', '-']);
    let hexadecimal = unsigned.starts_with("0x") || unsigned.starts_with("0X");
    let mut exponent = false;
    let end = rest.char_indices().find(|&(at, next)| {
        let sign = (next == '+' || next == '-') && (at == 0 || exponent);
        exponent = !hexadecimal && (next == 'e' || next == 'E');
        !(sign || next == '.' || is_name(next))
    });
    end.map_or(rest.len(), |(at, _)| at)
}

fn is_name(next: char) -> bool {
    next == '_' || next.is_alphanumeric()
}

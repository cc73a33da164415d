//! Bytes to a tree, with the errors of Go's scanner.
//!
//! Own code and not serde_json's because clients rely on what Go forgives: half of a surrogate pair and broken UTF-8
//! become U+FFFD, keys may repeat, and whatever follows the first value is ignored.

use std::borrow::Cow;

use super::quote::quote_byte;

/// One JSON value. Keys repeat and keep their order; numbers stay text until a type is known.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("{}", super::MISSING_BODY)]
    Empty,
    #[error("unexpected EOF")]
    UnexpectedEof,
    #[error("invalid character {} {context}", quote_byte(*byte))]
    InvalidCharacter { byte: u8, context: Cow<'static, str> },
    #[error("a request holds at most {MAX_VALUES} JSON values")]
    TooManyValues,
}

type Result<T> = std::result::Result<T, Error>;

/// Arrays and objects inside each other. Go allows 10,000; here every level is a stack frame, in this parser and in
/// each reader of the value behind it, and serde_json behind us stops at 128 too.
pub(super) const MAX_DEPTH: usize = 128;

/// A value takes 32 bytes of memory and may take two of the body, so a body at its bound could cost sixteen times its
/// size. Four million is four times the longest `context` that any model has.
pub(super) const MAX_VALUES: usize = 1 << 22;

/// Parses the first value of `bytes`.
pub(super) fn first_value(bytes: &[u8]) -> Result<Node<'_>> {
    let mut parser = Parser { bytes, at: 0, depth: 0, values: 0 };
    match parser.peek() {
        Ok(_) => parser.value(),
        Err(_) => Err(Error::Empty),
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    values: usize,
}

// === impl Parser ===

impl<'a> Parser<'a> {
    fn value(&mut self) -> Result<Node<'a>> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Error::TooManyValues);
        }
        match self.peek()? {
            b'{' => self.nested(Parser::object),
            b'[' => self.nested(Parser::array),
            b'"' => Ok(Node::String(self.string()?)),
            b'-' | b'0'..=b'9' => Ok(Node::Number(self.number()?)),
            b't' => self.literal("true", Node::Bool(true)),
            b'f' => self.literal("false", Node::Bool(false)),
            b'n' => self.literal("null", Node::Null),
            byte => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    fn nested(&mut self, parse: fn(&mut Self) -> Result<Node<'a>>) -> Result<Node<'a>> {
        let opening = self.next()?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(invalid(opening, "exceeded max depth"));
        }
        let node = parse(self)?;
        self.depth -= 1;
        Ok(node)
    }

    fn array(&mut self) -> Result<Node<'a>> {
        let mut items = Vec::new();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Node::Array(items));
        }
        loop {
            items.push(self.value()?);
            match self.next_after_space()? {
                b',' => {}
                b']' => return Ok(Node::Array(items)),
                byte => return Err(invalid(byte, "after array element")),
            }
        }
    }

    fn object(&mut self) -> Result<Node<'a>> {
        let mut entries = Vec::new();
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Node::Object(entries));
        }
        loop {
            match self.peek()? {
                b'"' => {}
                byte => return Err(invalid(byte, "looking for beginning of object key string")),
            }
            let key = self.string()?;
            match self.next_after_space()? {
                b':' => {}
                byte => return Err(invalid(byte, "after object key")),
            }
            entries.push((key, self.value()?));
            match self.next_after_space()? {
                b',' => {}
                b'}' => return Ok(Node::Object(entries)),
                byte => return Err(invalid(byte, "after object key:value pair")),
            }
        }
    }

    fn literal(&mut self, word: &'static str, node: Node<'a>) -> Result<Node<'a>> {
        for expected in word.bytes() {
            let byte = self.next()?;
            if byte != expected {
                let context = format!("in literal {word} (expecting {})", quote_byte(expected));
                return Err(Error::InvalidCharacter { byte, context: context.into() });
            }
        }
        Ok(node)
    }

    fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {} // No digit may follow; if one does, it is the reader after us that stumbles, as in Go.
            b'1'..=b'9' => self.skip_digits(),
            byte => return Err(invalid(byte, "in numeric literal")),
        }
        if self.current() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.current() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.current() {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).expect("digits, signs and points are ASCII"))
    }

    /// At least one digit.
    fn digits(&mut self, context: &'static str) -> Result<()> {
        match self.next()? {
            b'0'..=b'9' => {
                self.skip_digits();
                Ok(())
            }
            byte => Err(invalid(byte, context)),
        }
    }

    fn skip_digits(&mut self) {
        while self.current().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// A string from its opening quote on. Without an escape the text is borrowed.
    fn string(&mut self) -> Result<Cow<'a, str>> {
        self.at += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let start = self.at;
            while self.current().is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            // Cuts lie beside ASCII bytes, so no valid character is ever torn.
            text += String::from_utf8_lossy(&self.bytes[start..self.at]);
            match self.next()? {
                b'"' => return Ok(text),
                b'\\' => text.to_mut().push(self.escape()?),
                byte => return Err(invalid(byte, "in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        match self.next()? {
            b'n' => Ok('\n'),
            b't' => Ok('\t'),
            b'r' => Ok('\r'),
            b'b' => Ok('\u{8}'),
            b'f' => Ok('\u{c}'),
            byte @ (b'"' | b'\\' | b'/') => Ok(char::from(byte)),
            b'u' => {
                let unit = self.hex4()?;
                Ok(char::from_u32(unit).unwrap_or_else(|| self.low_surrogate(unit)))
            }
            byte => Err(invalid(byte, "in string escape code")),
        }
    }

    /// The character of a surrogate pair whose first half is `high`. Without a second half that fits nothing more is
    /// taken and U+FFFD stands for what there was.
    fn low_surrogate(&mut self, high: u32) -> char {
        let start = self.at;
        if high < 0xDC00 && self.bytes[self.at..].starts_with(b"\\u") {
            self.at += 2;
            if let Ok(low @ 0xDC00..0xE000) = self.hex4() {
                let scalar = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                return char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER);
            }
        }
        self.at = start;
        char::REPLACEMENT_CHARACTER
    }

    fn hex4(&mut self) -> Result<u32> {
        let mut unit = 0;
        for _ in 0..4 {
            let byte = self.next()?;
            let digit = char::from(byte).to_digit(16);
            unit = unit * 16 + digit.ok_or_else(|| invalid(byte, "in \\u hexadecimal character escape"))?;
        }
        Ok(unit)
    }

    fn current(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8> {
        let byte = self.current().ok_or(Error::UnexpectedEof)?;
        self.at += 1;
        Ok(byte)
    }

    /// Skips space and shows the byte behind it.
    fn peek(&mut self) -> Result<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.current() {
            self.at += 1;
        }
        self.current().ok_or(Error::UnexpectedEof)
    }

    fn next_after_space(&mut self) -> Result<u8> {
        self.peek()?;
        self.next()
    }
}

fn invalid(byte: u8, context: &'static str) -> Error {
    Error::InvalidCharacter { byte, context: context.into() }
}

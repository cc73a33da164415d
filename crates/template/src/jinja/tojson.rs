//! `tojson` as chat templates know it: Python's `json.dumps` with `ensure_ascii=False`, nothing escaped for HTML.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::MAX_OUTPUT_BYTES;

/// Values that a template builds can nest deeper than any JSON that came from outside.
const MAX_DEPTH: usize = 100;
/// Python has no bound; real templates use 2 and 4.
const MAX_INDENT: usize = 16;

/// `value|tojson(indent=2, separators=(",", ":"), ensure_ascii=true, sort_keys=true)`.
pub(super) fn filter(value: Value, position: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let indent = indent.or(position);
    if let Some(indent) = indent.filter(|indent| *indent > MAX_INDENT) {
        return Err(invalid(format!("`indent` must be at most {MAX_INDENT}, got {indent}")));
    }
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(other) => return Err(invalid(format!("`separators` must be 2 texts, got {}", other.len()))),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let is_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let is_sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut dumper = Dumper { out: String::new(), indent, comma, colon, is_ascii, is_sorted };
    dumper.value(&value, 0)?;
    Ok(Value::from_safe_string(dumper.out))
}

/// With Python's default separators.
pub(super) fn compact(value: &Value) -> Result<String, Error> {
    let (comma, colon) = (", ".to_owned(), ": ".to_owned());
    let mut dumper =
        Dumper { out: String::new(), indent: None, comma, colon, is_ascii: false, is_sorted: false };
    dumper.value(value, 0)?;
    Ok(dumper.out)
}

struct Dumper {
    out: String,
    indent: Option<usize>,
    comma: String,
    colon: String,
    is_ascii: bool,
    is_sorted: bool,
}

// === impl Dumper ===

impl Dumper {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("a value for JSON nests deeper than {MAX_DEPTH}")));
        }
        if self.out.len() > MAX_OUTPUT_BYTES {
            return Err(invalid(format!("a value is longer than {MAX_OUTPUT_BYTES} bytes as JSON")));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value)?,
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.items(['[', ']'], depth, items, |dumper, item| dumper.value(&item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.is_sorted {
                    keys.sort();
                }
                self.items(['{', '}'], depth, keys, |dumper, key| dumper.entry(value, &key, depth))?;
            }
            other => return Err(invalid(format!("a value of type {other} is not JSON"))),
        }
        Ok(())
    }

    fn items(
        &mut self,
        [open, close]: [char; 2],
        depth: usize,
        items: Vec<Value>,
        mut write: impl FnMut(&mut Dumper, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        let is_empty = items.is_empty();
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.out.push_str(&self.comma);
            }
            self.new_line(depth + 1);
            write(self, item)?;
        }
        if !is_empty {
            self.new_line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn entry(&mut self, map: &Value, key: &Value, depth: usize) -> Result<(), Error> {
        match key.as_str() {
            Some(key) => self.string(key),
            None => self.string(&key.to_string()),
        }
        self.out.push_str(&self.colon);
        self.value(&map.get_item(key)?, depth + 1)
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn number(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_integer() {
            self.out.push_str(&value.to_string());
            return Ok(());
        }
        let float = f64::try_from(value.clone())?;
        self.out.push_str(&python_float(float));
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => self.escape(character),
                '\u{7f}'.. if self.is_ascii => self.escape(character),
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
    }

    /// As UTF-16, which is what `\u` spells.
    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(self.out, "\\u{unit:04x}").expect("a String takes whatever is written to it");
        }
    }
}

/// Python's `repr`: always a point or an exponent, the exponent from 1e16 and below 1e-4.
fn python_float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        // Rust writes `1e16` and `1e-5`, Python `1e+16` and `1e-05`.
        Some((digits, power)) => {
            let power: i32 = power.parse().unwrap_or_default();
            format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
        }
        None if value.is_nan() => "NaN".to_owned(),
        None if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        None => text,
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_in_python() {
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (0.0001, "0.0001"),
            (-2.5e300, "-2.5e+300"),
        ];
        for (value, expected) in cases {
            assert_eq!(python_float(value), expected);
        }
    }
}

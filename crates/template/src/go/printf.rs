//! Go's `printf`: verbs, flags, width and precision. A verb that does not fit its value is printed, not refused,
//! as in Go: `%!d(string=hi)`.

use std::fmt::{Result, Write};
use std::iter::Peekable;
use std::str::Chars;

use super::print::{self, Text};
use super::value::{Printed, Value};

/// Go's own bound for widths and precisions.
const MAX_WIDTH: i64 = 1_000_000;

/// One `%...` of a format.
#[derive(Debug, Default, Clone)]
struct Spec {
    plus: bool,
    minus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
    verb: char,
}

/// Writes `format` with `args` filled in.
pub(super) fn write(out: &mut Text, format: &str, args: &[Value]) -> Result {
    let mut left = args.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.write_str(&rest[..at])?;
        let mut characters = rest[at + 1..].chars().peekable();
        let mut spec = Spec::default();
        spec.flags(&mut characters);
        spec.width = size(out, &mut characters, &mut left, "%!(BADWIDTH)")?;
        if characters.next_if_eq(&'.').is_some() {
            let precision = size(out, &mut characters, &mut left, "%!(BADPREC)")?;
            spec.precision = Some(precision.unwrap_or(0));
        }
        let Some(verb) = characters.next() else {
            out.write_str("%!(NOVERB)")?;
            rest = "";
            break;
        };
        spec.verb = verb;
        match left.len() {
            _ if verb == '%' => out.write_char('%')?,
            0 => write!(out, "%!{verb}(MISSING)")?,
            _ => left.next().map_or(Ok(()), |value| spec.write(out, value))?,
        }
        let unread: usize = characters.map(char::len_utf8).sum();
        rest = &rest[rest.len() - unread..];
    }
    out.write_str(rest)?;
    write_extra(out, left.as_slice())
}

/// A width or a precision: digits, or `*` for the next argument.
fn size(
    out: &mut Text,
    characters: &mut Peekable<Chars<'_>>,
    left: &mut std::slice::Iter<'_, Value>,
    bad: &str,
) -> std::result::Result<Option<usize>, std::fmt::Error> {
    let found = if characters.next_if_eq(&'*').is_some() {
        match left.next() {
            Some(Value::Int(size)) => Some(*size),
            _ => Some(-1),
        }
    } else {
        let mut digits = None;
        while let Some(digit) = characters.next_if(char::is_ascii_digit).and_then(|next| next.to_digit(10)) {
            digits = Some((digits.unwrap_or(0) * 10 + i64::from(digit)).min(MAX_WIDTH + 1));
        }
        digits
    };
    match found {
        Some(size) if !(0..=MAX_WIDTH).contains(&size) => out.write_str(bad).map(|()| None),
        found => Ok(found.map(|size| size as usize)),
    }
}

fn write_extra(out: &mut Text, extra: &[Value]) -> Result {
    if extra.is_empty() {
        return Ok(());
    }
    out.write_str("%!(EXTRA ")?;
    for (at, value) in extra.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        match value {
            Value::Nil => write!(out, "{comma}<nil>")?,
            _ => {
                write!(out, "{comma}{}=", value.type_name())?;
                print::write(out, value)?;
            }
        }
    }
    out.write_char(')')
}

// === impl Spec ===

impl Spec {
    fn flags(&mut self, characters: &mut Peekable<Chars<'_>>) {
        while let Some(flag) = characters.next_if(|next| "+- 0#".contains(*next)) {
            match flag {
                '+' => self.plus = true,
                '-' => self.minus = true,
                ' ' => self.space = true,
                '#' => self.sharp = true,
                _ => self.zero = true,
            }
        }
    }

    fn write(&self, out: &mut Text, value: &Value) -> Result {
        match value {
            Value::Nil if "vT".contains(self.verb) => self.pad(out, "<nil>"),
            _ if self.verb == 'T' => self.pad(out, value.type_name()),
            Value::Nil => write!(out, "%!{}(<nil>)", self.verb),
            Value::Bool(flag) if "tv".contains(self.verb) => {
                self.pad(out, if *flag { "true" } else { "false" })
            }
            Value::Int(int) => self.write_int(out, *int),
            Value::Float(float) => self.write_float(out, *float),
            Value::Text(text) => self.write_text(out, text, value),
            Value::List(_) | Value::Map(_) | Value::Struct(_) => {
                if value.printed() == Printed::Go || !"vsqxX".contains(self.verb) {
                    return print::write_compound(out, value, &mut |out, element| self.write(out, element));
                }
                let mut text = Text::default();
                print::write(&mut text, value)?;
                self.write_text(out, &text.into_string(), value)
            }
            other => self.bad(out, other),
        }
    }

    /// The verb does not fit the value, which is printed with the same flags all the same.
    fn bad(&self, out: &mut Text, value: &Value) -> Result {
        write!(out, "%!{}({}=", self.verb, value.type_name())?;
        Spec { verb: 'v', ..self.clone() }.write(out, value)?;
        out.write_char(')')
    }

    fn write_text(&self, out: &mut Text, text: &str, value: &Value) -> Result {
        let cut = match self.precision {
            Some(length) => text.char_indices().nth(length).map_or(text, |(at, _)| &text[..at]),
            None => text,
        };
        match self.verb {
            'v' if self.sharp => self.pad(out, &quote(cut, '"')),
            'v' | 's' => self.pad(out, cut),
            'q' if self.sharp && !cut.contains('`') && !cut.contains(|next: char| next.is_control()) => {
                self.pad(out, &format!("`{cut}`"))
            }
            'q' => self.pad(out, &quote(cut, '"')),
            'x' | 'X' => self.pad(out, &hex(text, self.precision, self.verb)),
            _ => self.bad(out, value),
        }
    }

    fn write_int(&self, out: &mut Text, int: i64) -> Result {
        let character = u32::try_from(int).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
        let size = int.unsigned_abs();
        let (prefix, digits) = match self.verb {
            'd' | 'v' => ("", size.to_string()),
            'b' => ("0b", format!("{size:b}")),
            'o' => ("0", format!("{size:o}")),
            'O' => ("0o", format!("{size:o}")),
            'x' => ("0x", format!("{size:x}")),
            'X' => ("0X", format!("{size:X}")),
            'c' => return self.pad(out, &character.to_string()),
            'q' => return self.pad(out, &quote(&character.to_string(), '\'')),
            'U' => return self.pad(out, &format!("U+{size:04X}")),
            _ => return self.bad(out, &Value::Int(int)),
        };
        let prefix = if self.sharp || self.verb == 'O' { prefix } else { "" };
        let digits = match self.precision {
            Some(0) if size == 0 => String::new(),
            Some(length) => format!("{digits:0>length$}"),
            None => digits,
        };
        self.write_number(out, int < 0, prefix, &digits)
    }

    fn write_float(&self, out: &mut Text, float: f64) -> Result {
        let size = float.abs();
        let digits = match self.verb {
            'f' | 'F' => format!("{size:.*}", self.precision.unwrap_or(6)),
            'e' | 'E' => scientific(size, self.precision.unwrap_or(6)),
            'g' | 'G' | 'v' => match self.precision {
                Some(precision) => general(size, precision.max(1)),
                None => {
                    let mut text = String::new();
                    print::write_float(&mut text, size)?;
                    text
                }
            },
            _ => return self.bad(out, &Value::Float(float)),
        };
        let digits = if self.verb.is_ascii_uppercase() { digits.to_uppercase() } else { digits };
        self.write_number(out, float.is_sign_negative(), "", &digits)
    }

    /// Sign, prefix and digits, filled with zeros between them if the flag says so.
    fn write_number(&self, out: &mut Text, negative: bool, prefix: &str, digits: &str) -> Result {
        let sign = match (negative, self.plus, self.space) {
            (true, _, _) => "-",
            // `%+v` asks for the names of fields.
            (_, true, _) if self.verb != 'v' => "+",
            (_, _, true) => " ",
            _ => "",
        };
        let fills = self.zero && !self.minus && (self.precision.is_none() || !"dboOxX".contains(self.verb));
        // Go counts the sign but not the prefix.
        let missing = self.width.unwrap_or(0).saturating_sub(sign.len() + digits.len());
        let zeros = "0".repeat(if fills { missing } else { 0 });
        let blanks = Spec { zero: false, ..self.clone() };
        blanks.pad(out, &format!("{sign}{prefix}{zeros}{digits}"))
    }

    /// `text` filled up to the width.
    fn pad(&self, out: &mut Text, text: &str) -> Result {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        match (self.minus, self.zero) {
            (true, _) => write!(out, "{text}{:missing$}", ""),
            (false, true) => write!(out, "{:0>missing$}{text}", ""),
            (false, false) => write!(out, "{:missing$}{text}", ""),
        }
    }
}

fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((digits, power)) => format!("{digits}{}", print::exponent(power.parse().unwrap_or_default())),
        None => text,
    }
}

/// `%g`: at most `precision` digits that count, no zeros at the end.
fn general(value: f64, precision: usize) -> String {
    let text = format!("{value:.*e}", precision - 1);
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or_default();
    let trim = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if power < -4 || power >= i32::try_from(precision).unwrap_or(i32::MAX) {
        return format!("{}{}", trim(digits), print::exponent(power));
    }
    let decimals = usize::try_from(precision as i64 - 1 - i64::from(power)).unwrap_or_default();
    trim(&format!("{value:.decimals$}"))
}

fn hex(text: &str, length: Option<usize>, verb: char) -> String {
    let bytes = text.bytes().take(length.unwrap_or(usize::MAX));
    bytes.map(|byte| if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") }).collect()
}

/// A Go literal.
fn quote(text: &str, mark: char) -> String {
    let mut quoted = String::from(mark);
    for character in text.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            _ if character == mark => quoted.extend(['\\', mark]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\0'..='\x1f' | '\x7f' => quoted.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ if is_printable(character) => quoted.push(character),
            '\u{10000}'.. => quoted.push_str(&format!("\\U{:08x}", u32::from(character))),
            _ => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
        }
    }
    quoted.push(mark);
    quoted
}

/// Rust escapes what is not printable; the letter before it keeps combining marks printable, as in Go.
fn is_printable(character: char) -> bool {
    ['"', '\''].contains(&character) || String::from_iter(['a', character]).escape_debug().count() == 2
}

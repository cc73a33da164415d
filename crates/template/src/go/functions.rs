//! The functions of the dialect: Go's builtins and Ollama's four.

use std::cmp::Ordering;
use std::fmt::Write;

use jiff::civil::Date;

use super::data::PROPERTY;
use super::json;
use super::print::{self, Text};
use super::printf;
use super::value::{Struct, Value};

/// Why a call did not work out.
#[derive(Debug)]
pub(super) enum Failure {
    Text(String),
    /// The result is longer than any prompt may be.
    TooLong,
}

pub(super) type Outcome = Result<Value, Failure>;

/// `and` and `or` are here so that the parser knows them; they do not evaluate all arguments, so they live in `exec`.
const NAMES: [&str; 23] = [
    "and",
    "call",
    "currentDate",
    "eq",
    "ge",
    "gt",
    "html",
    "index",
    "js",
    "json",
    "le",
    "len",
    "lt",
    "ne",
    "not",
    "or",
    "print",
    "printf",
    "println",
    "slice",
    "toTypeScriptType",
    "urlquery",
    "yesterdayDate",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls the function `name`.
pub(super) fn call(name: &str, args: &[Value], today: Date) -> Outcome {
    let arguments = Arguments { name, args };
    match name {
        "eq" => equals(&arguments).map(Value::Bool),
        "ne" => arguments.exactly(2).and_then(|()| equals(&arguments)).map(|equal| Value::Bool(!equal)),
        "lt" => order(&arguments).map(|order| Value::Bool(order == Ordering::Less)),
        "le" => order(&arguments).map(|order| Value::Bool(order != Ordering::Greater)),
        "gt" => order(&arguments).map(|order| Value::Bool(order == Ordering::Greater)),
        "ge" => order(&arguments).map(|order| Value::Bool(order != Ordering::Less)),
        "not" => arguments.one().map(|value| Value::Bool(!value.is_true())),
        "len" => length(arguments.one()?),
        "index" => index(&arguments),
        "slice" => slice(&arguments),
        "print" => text(|out| write_spaced(out, args, Spacing::BetweenNonStrings)),
        "println" => text(|out| {
            write_spaced(out, args, Spacing::Everywhere)?;
            out.write_char('\n')
        }),
        "printf" => format(&arguments),
        "html" => escape(args, html),
        "js" => escape(args, js),
        "urlquery" => escape(args, urlquery),
        "json" => arguments.one().and_then(|value| text(|out| json::write(out, value))),
        "currentDate" => date(&arguments, Some(today)),
        "yesterdayDate" => date(&arguments, today.yesterday().ok()),
        "toTypeScriptType" => typescript(arguments.one()?),
        _ => Err(fail("a template has no functions to call")),
    }
}

fn fail(text: impl Into<String>) -> Failure {
    Failure::Text(text.into())
}

fn text(write: impl FnOnce(&mut Text) -> std::fmt::Result) -> Outcome {
    let mut out = Text::default();
    write(&mut out).map_err(|_| Failure::TooLong)?;
    Ok(Value::text(out.into_string()))
}

struct Arguments<'a> {
    name: &'a str,
    args: &'a [Value],
}

// === impl Arguments ===

impl<'a> Arguments<'a> {
    fn exactly(&self, count: usize) -> Result<(), Failure> {
        let found = self.args.len();
        if found == count {
            return Ok(());
        }
        Err(fail(format!("wrong number of args for {}: want {count} got {found}", self.name)))
    }

    fn one(&self) -> Result<&'a Value, Failure> {
        self.exactly(1)?;
        Ok(&self.args[0])
    }

    fn first(&self) -> Result<(&'a Value, &'a [Value]), Failure> {
        let none = || fail(format!("wrong number of args for {}: want at least 1 got 0", self.name));
        self.args.split_first().ok_or_else(none)
    }
}

/// True when the first equals any of the others.
fn equals(arguments: &Arguments<'_>) -> Result<bool, Failure> {
    let (first, others) = arguments.first()?;
    if others.is_empty() {
        return Err(fail("missing argument for comparison"));
    }
    for other in others {
        let equal = match (first, other) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Nil, Value::Nil) => true,
            (Value::Nil, _) | (_, Value::Nil) => false,
            _ => return Err(incompatible(first, other)),
        };
        if equal {
            return Ok(true);
        }
    }
    Ok(false)
}

fn order(arguments: &Arguments<'_>) -> Result<Ordering, Failure> {
    arguments.exactly(2)?;
    let (first, second) = (&arguments.args[0], &arguments.args[1]);
    match (first, second) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        // A float in a template is a literal or JSON: never NaN.
        (Value::Float(a), Value::Float(b)) => Ok(a.total_cmp(b)),
        (
            Value::Int(_) | Value::Float(_) | Value::Text(_),
            Value::Int(_) | Value::Float(_) | Value::Text(_),
        ) => Err(incompatible(first, second)),
        _ => Err(fail("invalid type for comparison")),
    }
}

fn incompatible(first: &Value, second: &Value) -> Failure {
    let (first, second) = (first.type_name(), second.type_name());
    fail(format!("incompatible types for comparison: {first} and {second}"))
}

fn length(value: &Value) -> Outcome {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items().len(),
        Value::Map(map) => map.entries.len(),
        other => return Err(fail(format!("len of type {}", other.type_name()))),
    };
    Ok(Value::Int(length as i64))
}

fn index(arguments: &Arguments<'_>) -> Outcome {
    let (first, indexes) = arguments.first()?;
    if matches!(first, Value::Nil) {
        return Err(fail("index of untyped nil"));
    }
    let mut item = first.clone();
    for at in indexes {
        item = match (&item, at) {
            (Value::Map(map), Value::Text(key)) => map.entries.get(&**key).cloned().unwrap_or(Value::Nil),
            (Value::Map(_), other) => {
                return Err(fail(format!("value has type {}; should be string", other.type_name())));
            }
            (Value::List(list), at) => list.items()[position(at, list.items().len(), End::Excluded)?].clone(),
            (Value::Text(text), at) => {
                Value::Int(i64::from(text.as_bytes()[position(at, text.len(), End::Excluded)?]))
            }
            (Value::Nil, _) => return Err(fail("index of untyped nil")),
            (other, _) => return Err(fail(format!("can't index item of type {}", other.type_name()))),
        };
    }
    Ok(item)
}

fn slice(arguments: &Arguments<'_>) -> Outcome {
    let (item, bounds) = arguments.first()?;
    let length = match item {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items().len(),
        Value::Nil => return Err(fail("slice of untyped nil")),
        other => return Err(fail(format!("can't slice item of type {}", other.type_name()))),
    };
    if bounds.len() > 3 {
        return Err(fail(format!("too many slice indexes: {}", bounds.len())));
    }
    if bounds.len() == 3 && matches!(item, Value::Text(_)) {
        return Err(fail("cannot 3-index slice a string"));
    }
    let bounds =
        bounds.iter().map(|at| position(at, length, End::Included)).collect::<Result<Vec<_>, _>>()?;
    let start = bounds.first().copied().unwrap_or(0);
    let end = bounds.get(1).copied().unwrap_or(length);
    if start > end || bounds.get(2).is_some_and(|&capacity| end > capacity) {
        return Err(fail(format!("invalid slice index: {start} > {end}")));
    }
    match item {
        // Go cuts bytes; a prompt is text, so half a character becomes the replacement character.
        Value::Text(text) => Ok(Value::text(String::from_utf8_lossy(&text.as_bytes()[start..end]))),
        Value::List(list) => {
            let part = list.slice(start, end).ok_or_else(|| fail(format!("index out of range: {end}")))?;
            Ok(Value::List(part))
        }
        _ => Err(fail("can't slice this")),
    }
}

/// Whether a position may be the one past the last element.
#[derive(PartialEq)]
enum End {
    Included,
    Excluded,
}

fn position(at: &Value, length: usize, end: End) -> Result<usize, Failure> {
    let limit = if end == End::Included { length + 1 } else { length };
    match at {
        Value::Int(at) => {
            let position = usize::try_from(*at).ok().filter(|position| *position < limit);
            position.ok_or_else(|| fail(format!("index out of range: {at}")))
        }
        Value::Nil => Err(fail("cannot index slice/array with nil")),
        other => Err(fail(format!("cannot index slice/array with type {}", other.type_name()))),
    }
}

fn format(arguments: &Arguments<'_>) -> Outcome {
    match arguments.first()? {
        (Value::Text(format), _) if format.contains("%[") => {
            Err(fail("argument indexes like %[1]s are not supported"))
        }
        (Value::Text(format), rest) => text(|out| printf::write(out, format, rest)),
        (other, _) => Err(fail(format!("wrong type for value; expected string; got {}", other.type_name()))),
    }
}

/// Where blanks go between printed operands.
#[derive(PartialEq)]
enum Spacing {
    BetweenNonStrings,
    Everywhere,
}

fn write_spaced(out: &mut Text, args: &[Value], spacing: Spacing) -> std::fmt::Result {
    let is_text = |value: &Value| matches!(value, Value::Text(_));
    for (at, value) in args.iter().enumerate() {
        let apart = spacing == Spacing::Everywhere
            || !(is_text(value) || args[at.saturating_sub(1)..at].iter().all(is_text));
        if at > 0 && apart {
            out.write_char(' ')?;
        }
        print::write(out, value)?;
    }
    Ok(())
}

/// Prints the operands and escapes the result.
fn escape(args: &[Value], escape: fn(&mut Text, &str) -> std::fmt::Result) -> Outcome {
    // Nil reads as everywhere in a template, not as `print` has it.
    let printable =
        |value: &Value| if matches!(value, Value::Nil) { Value::text("<no value>") } else { value.clone() };
    let args: Vec<Value> = args.iter().map(printable).collect();
    let mut plain = Text::default();
    write_spaced(&mut plain, &args, Spacing::BetweenNonStrings).map_err(|_| Failure::TooLong)?;
    text(|out| escape(out, &plain.into_string()))
}

fn html(out: &mut Text, plain: &str) -> std::fmt::Result {
    plain.chars().try_for_each(|character| match character {
        '\0' => out.write_char('\u{fffd}'),
        '"' => out.write_str("&#34;"),
        '\'' => out.write_str("&#39;"),
        '&' => out.write_str("&amp;"),
        '<' => out.write_str("&lt;"),
        '>' => out.write_str("&gt;"),
        _ => out.write_char(character),
    })
}

fn js(out: &mut Text, plain: &str) -> std::fmt::Result {
    plain.chars().try_for_each(|character| match character {
        '\\' | '\'' | '"' => write!(out, "\\{character}"),
        '<' | '>' | '&' | '=' => write!(out, "\\u{:04X}", u32::from(character)),
        _ if character.is_control() => write!(out, "\\u{:04X}", u32::from(character)),
        _ => out.write_char(character),
    })
}

fn urlquery(out: &mut Text, plain: &str) -> std::fmt::Result {
    plain.bytes().try_for_each(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            out.write_char(char::from(byte))
        }
        b' ' => out.write_char('+'),
        _ => write!(out, "%{byte:02X}"),
    })
}

/// `YYYY-MM-DD`; the arguments must be texts and are ignored.
fn date(arguments: &Arguments<'_>, date: Option<Date>) -> Outcome {
    if let Some(other) = arguments.args.iter().find(|value| !matches!(value, Value::Text(_))) {
        return Err(fail(format!("wrong type for value; expected string; got {}", other.type_name())));
    }
    let date = date.ok_or_else(|| fail("there is no day before the first"))?;
    Ok(Value::text(date.to_string()))
}

fn typescript(value: &Value) -> Outcome {
    match value {
        Value::Struct(property) if std::ptr::eq(property.shape, &PROPERTY) => {
            Ok(Value::text(property_type(property)))
        }
        _ => Ok(Value::text("any")),
    }
}

fn property_type(property: &Struct) -> String {
    let list = |name| match property.get(name) {
        Some(Value::List(list)) => list.items(),
        _ => &[],
    };
    let alternatives = list("AnyOf").iter().filter_map(|one| match one {
        Value::Struct(one) => Some(property_type(one)),
        _ => None,
    });
    let types = list("Type").iter().map(|name| match name {
        Value::Text(name) => typescript_name(name).to_owned(),
        _ => "any".to_owned(),
    });
    let alternatives: Vec<String> = alternatives.collect();
    let names = if alternatives.is_empty() { types.collect() } else { alternatives };
    if names.is_empty() { "any".to_owned() } else { names.join(" | ") }
}

fn typescript_name(json: &str) -> &'static str {
    match json {
        "string" => "string",
        "number" | "integer" => "number",
        "boolean" => "boolean",
        "array" => "any[]",
        "object" => "Record<string, any>",
        "null" => "null",
        _ => "any",
    }
}

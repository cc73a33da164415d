//! JSON as Go's `encoding/json` writes it: compact, keys of maps sorted, `<`, `>` and `&` escaped.

use std::fmt::{Result, Write};

use super::value::{Printed, Value};

pub(super) fn write(out: &mut impl Write, value: &Value) -> Result {
    match value {
        Value::Nil => out.write_str("null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Float(value) => write_float(out, *value),
        Value::Text(text) => write_string(out, text),
        // One type is a string, several are a list.
        Value::List(list) if list.printed == Printed::Types && list.items().len() == 1 => {
            write(out, &list.items()[0])
        }
        Value::List(list) => {
            out.write_char('[')?;
            for (at, item) in list.items().iter().enumerate() {
                separate(out, at)?;
                write(out, item)?;
            }
            out.write_char(']')
        }
        Value::Map(map) => {
            out.write_char('{')?;
            for (at, (key, value)) in map.entries.iter().enumerate() {
                separate(out, at)?;
                write_entry(out, key, value)?;
            }
            out.write_char('}')
        }
        Value::Struct(value) => {
            let fields = value.shape.fields.iter().zip(&value.values);
            let present = fields.filter(|(field, value)| !field.optional || value.is_true());
            out.write_char('{')?;
            for (at, (field, value)) in present.enumerate() {
                separate(out, at)?;
                write_entry(out, field.json, value)?;
            }
            out.write_char('}')
        }
    }
}

fn separate(out: &mut impl Write, at: usize) -> Result {
    if at > 0 { out.write_char(',') } else { Ok(()) }
}

fn write_entry(out: &mut impl Write, key: &str, value: &Value) -> Result {
    write_string(out, key)?;
    out.write_char(':')?;
    write(out, value)
}

fn write_string(out: &mut impl Write, text: &str) -> Result {
    out.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(character))?;
            }
            _ => out.write_char(character)?,
        }
    }
    out.write_char('"')
}

/// The shortest digits; an exponent only below 1e-6 and from 1e21.
fn write_float(out: &mut impl Write, value: f64) -> Result {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        // Rust writes `1e21`, Go `1e+21`.
        return match text.split_once('e') {
            Some((digits, power)) if !power.starts_with('-') => write!(out, "{digits}e+{power}"),
            _ => out.write_str(&text),
        };
    }
    write!(out, "{value}")
}

//! Values as text, the way Go's `fmt` prints them with `%v`; and the buffer that bounds what they print into.

use std::fmt::{Error, Result, Write};

use super::json;
use super::value::{Printed, Value};
use crate::MAX_OUTPUT_BYTES;

/// A text that refuses to grow past [`MAX_OUTPUT_BYTES`].
#[derive(Debug, Default)]
pub(super) struct Text(String);

// === impl Text ===

impl Text {
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> Result {
        if text.len() > MAX_OUTPUT_BYTES - self.0.len() {
            return Err(Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// `value` as an action prints it at the top level, or as an element of something larger.
pub(super) fn write(out: &mut impl Write, value: &Value) -> Result {
    match value {
        Value::Nil => out.write_str("<nil>"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Float(value) => write_float(out, *value),
        Value::Text(text) => out.write_str(text),
        compound if compound.printed() == Printed::Json => json::write(out, compound),
        Value::List(list) if list.printed == Printed::Types && list.items().len() < 2 => {
            list.items().iter().try_for_each(|item| write(out, item))
        }
        compound => write_compound(out, compound, &mut |out, value| write(out, value)),
    }
}

/// `[a b]`, `map[k:v]` or `{a b}`, each element written by `element`.
pub(super) fn write_compound<W: Write>(
    out: &mut W,
    value: &Value,
    element: &mut dyn FnMut(&mut W, &Value) -> Result,
) -> Result {
    match value {
        Value::List(list) => {
            out.write_char('[')?;
            write_elements(out, list.items(), element)?;
            out.write_char(']')
        }
        Value::Map(map) => {
            out.write_str("map[")?;
            for (at, (key, value)) in map.entries.iter().enumerate() {
                out.write_str(if at > 0 { " " } else { "" })?;
                element(out, &Value::text(key.as_str()))?;
                out.write_char(':')?;
                element(out, value)?;
            }
            out.write_char(']')
        }
        Value::Struct(value) => {
            out.write_char('{')?;
            write_elements(out, &value.values, element)?;
            out.write_char('}')
        }
        other => element(out, other),
    }
}

fn write_elements<W: Write>(
    out: &mut W,
    values: &[Value],
    element: &mut dyn FnMut(&mut W, &Value) -> Result,
) -> Result {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.write_char(' ')?;
        }
        element(out, value)?;
    }
    Ok(())
}

/// The shortest digits, with an exponent below 1e-4 and from 1e6 on: what Go prints for a float, also a whole one.
pub(super) fn write_float(out: &mut impl Write, value: f64) -> Result {
    let scientific = format!("{value:e}");
    let (digits, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = power.parse().unwrap_or_default();
    if value.is_finite() && value != 0.0 && !(-4..6).contains(&power) {
        return write!(out, "{digits}{}", exponent(power));
    }
    write!(out, "{value}")
}

/// `e+06`.
pub(super) fn exponent(power: i32) -> String {
    format!("e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

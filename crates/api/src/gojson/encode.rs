//! Writing JSON as Go does: HTML-safe strings and JavaScript's spelling of floats.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::error::{Error, Result};

/// Serialises without a newline at the end.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = Serializer::with_formatter(&mut bytes, GoFormatter);
    value
        .serialize(&mut serializer)
        .map_err(|error| Error::internal(format!("encode a response: {error}")))?;
    Ok(bytes)
}

pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let bytes = to_vec(value)?;
    String::from_utf8(bytes).map_err(|error| Error::internal(format!("encode a response: {error}")))
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            let mut characters = special.chars();
            let character = characters.next().map_or(0, u32::from);
            write!(writer, "{plain}\\u{character:04x}")?;
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        match value.abs() {
            0.0 | 1e-6..1e21 => write!(writer, "{value}"),
            _ => write_exponent(writer, &format!("{value:e}")),
        }
    }

    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        match value.abs() {
            0.0 | 1e-6..1e21 => write!(writer, "{value}"),
            _ => write_exponent(writer, &format!("{value:e}")),
        }
    }
}

/// Rust writes `1e21` where Go writes `1e+21`; both write `1e-7`.
fn write_exponent<W: ?Sized + io::Write>(writer: &mut W, text: &str) -> io::Result<()> {
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => write!(writer, "{digits}e+{exponent}"),
        _ => writer.write_all(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_are_safe_inside_html() {
        let written = to_string("<a href='x'>&\u{2028}\u{2029}\u{7f}é\n\u{1}\u{8}</a>").unwrap();
        assert_eq!(
            written,
            "\"\\u003ca href='x'\\u003e\\u0026\\u2028\\u2029\u{7f}é\\n\\u0001\\b\\u003c/a\\u003e\""
        );
    }

    #[test]
    fn keys_are_escaped_as_values_are() {
        assert_eq!(to_string(&json!({"<k>": 1})).unwrap(), r#"{"\u003ck\u003e":1}"#);
    }

    #[test]
    fn floats_are_spelled_as_go_spells_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (-1.5e-9, "-1.5e-9"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (f64::NAN, "null"),
        ] {
            assert_eq!(to_string(&value).unwrap(), text);
            assert_eq!(to_string(&json!({ "x": value })).unwrap(), format!("{{\"x\":{text}}}"));
        }
    }

    #[test]
    fn single_precision_is_written_with_its_own_digits() {
        assert_eq!(to_string(&[0.1_f32, 16_777_216.0, 1e-7, 3.4e38]).unwrap(), "[0.1,16777216,1e-7,3.4e+38]");
    }
}

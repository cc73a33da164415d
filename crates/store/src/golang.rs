//! Values as Go prints them: `/api/show` answers `parameters` in Go's syntax, and clients parse that.

use std::fmt::Write;

use serde_json::Value;

/// Go's `%#v` of a JSON value: text quoted, numbers as `float64`.
pub(crate) fn syntax(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Number(number) => float(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// Go's `strconv.Quote`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            letter if letter.is_control() && letter.is_ascii() => push(&mut out, "\\x", 2, letter),
            letter if letter.is_control() || is_invisible(letter) => push(&mut out, "\\u", 4, letter),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

fn push(out: &mut String, prefix: &str, digits: usize, letter: char) {
    // Writing into a String cannot fail.
    let _ = write!(out, "{prefix}{:0digits$x}", u32::from(letter));
}

/// Go's `%v` as far as a Modelfile can read it back: a whole number has neither fraction nor exponent.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Rust prints a whole float without its fraction.
        Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
        other => other.to_string(),
    }
}

/// Blanks and joiners that Go does not count as printable.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{a0}' | '\u{ad}' | '\u{1680}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}'
        | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{feff}')
}

/// Go's `%v` of a `float64`: the shortest digits, with an exponent when it is below -4 or above 5.
fn float(number: f64) -> String {
    // Rust's `{:e}` also has the shortest digits: `1.5e-7`.
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_modelfile_gets_numbers_that_it_can_read_back() {
        for (value, text) in [
            (json!(4096.0), "4096"),
            (json!(123456789), "123456789"),
            (json!(0.7), "0.7"),
            (json!("a b"), "a b"),
        ] {
            assert_eq!(plain(&value), text);
        }
    }

    #[test]
    fn values_look_like_go_syntax() {
        for (value, text) in [
            (json!("<|im_end|>"), r#""<|im_end|>""#),
            (json!("a\"b\\c\n\t\u{7}\u{1}é日\u{a0}"), r#""a\"b\\c\n\t\a\x01é日\u00a0""#),
            (json!(0.7), "0.7"),
            (json!(4096), "4096"),
            (json!(1.0), "1"),
            (json!(-1), "-1"),
            (json!(0.0001), "0.0001"),
            (json!(0.00001), "1e-05"),
            (json!(131072), "131072"),
            (json!(1048576), "1.048576e+06"),
            (json!(1.5e22), "1.5e+22"),
            (json!(true), "true"),
        ] {
            assert_eq!(syntax(&value), text);
        }
    }
}

//! Numbers, characters and strings as Go writes them.

use super::ast::Operand;

/// A number, or what is wrong with it. Its spelling decides between int and float, as in Go.
pub(super) fn number(text: &str) -> Result<Operand, String> {
    let bad = || format!("bad number syntax: {text:?}");
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.ends_with('i') {
        return Err(format!("complex numbers are not supported: {text:?}"));
    }
    let digits = without_underscores(digits).ok_or_else(bad)?;
    let (radix, body) = radix(&digits);
    if radix == 10 && digits.contains(['.', 'e', 'E']) {
        let all_decimal = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
        let value: f64 =
            digits.parse().ok().filter(|value: &f64| all_decimal && value.is_finite()).ok_or_else(bad)?;
        return Ok(Operand::Float(if negative { -value } else { value }));
    }
    if !body.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return Err(bad());
    }
    // `089` is no octal number; Go then reads it as a decimal one.
    let value = i128::from_str_radix(body, radix).or_else(|_| digits.parse()).map_err(|_| bad())?;
    let value = if negative { -value } else { value };
    i64::try_from(value).map(Operand::Int).map_err(|_| format!("{text} overflows int"))
}

fn radix(digits: &str) -> (u32, &str) {
    let lower = digits.get(..2).unwrap_or_default().to_ascii_lowercase();
    match lower.as_str() {
        "0x" => (16, &digits[2..]),
        "0o" => (8, &digits[2..]),
        "0b" => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') && !digits.contains(['.', 'e', 'E']) => {
            (8, &digits[1..])
        }
        _ => (10, digits),
    }
}

/// Underscores may stand between digits, and between a base prefix and a digit.
fn without_underscores(digits: &str) -> Option<String> {
    let parts: Vec<&str> = digits.split('_').collect();
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let all_between = parts
        .windows(2)
        .all(|pair| is_digit(pair[0].as_bytes().last()) && is_digit(pair[1].as_bytes().first()));
    all_between.then(|| parts.concat())
}

/// The one character of `'c'` as a number.
pub(super) fn character(quoted: &str) -> Result<Operand, String> {
    let bad = || format!("malformed character constant: {quoted}");
    let text = unquote(quoted).map_err(|_| bad())?;
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(character), None) => Ok(Operand::Int(i64::from(u32::from(character)))),
        _ => Err(bad()),
    }
}

/// The text of a string in double quotes, single quotes or backquotes.
pub(super) fn unquote(quoted: &str) -> Result<String, String> {
    let inner = &quoted[1..quoted.len() - 1];
    if quoted.starts_with('`') {
        return Ok(inner.replace('\r', ""));
    }
    let quote = quoted.as_bytes()[0];
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        bytes.extend(&rest.as_bytes()[..at]);
        rest = escape(&rest[at + 1..], quote, &mut bytes)
            .ok_or_else(|| format!("invalid escape in {quoted}"))?;
    }
    bytes.extend(rest.as_bytes());
    // Escapes can spell broken UTF-8, which a prompt cannot hold.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Decodes one escape, `text` being what follows the backslash; answers the rest.
fn escape<'a>(text: &'a str, quote: u8, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let first = *text.as_bytes().first()?;
    let simple = match first {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' => b'\\',
        _ if first == quote => quote,
        b'x' => {
            bytes.push(u8::from_str_radix(hex(text, 2)?, 16).ok()?);
            return Some(&text[3..]);
        }
        b'u' | b'U' => {
            let length = if first == b'u' { 4 } else { 8 };
            let character = char::from_u32(u32::from_str_radix(hex(text, length)?, 16).ok()?)?;
            bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&text[1 + length..]);
        }
        b'0'..=b'7' => {
            bytes.push(u8::from_str_radix(text.get(..3)?, 8).ok()?);
            return Some(&text[3..]);
        }
        _ => return None,
    };
    bytes.push(simple);
    Some(&text[1..])
}

/// The `length` hexadecimal digits after the letter.
fn hex(text: &str, length: usize) -> Option<&str> {
    text.get(1..1 + length).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_go() {
        let ints = [
            ("0", 0),
            ("-7", -7),
            ("+7", 7),
            ("0x1F", 31),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("089", 89),
        ];
        for (text, expected) in ints {
            assert!(matches!(number(text), Ok(Operand::Int(found)) if found == expected), "{text}");
        }
        assert!(matches!(number("1_000"), Ok(Operand::Int(1000))));
        for (text, expected) in [("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("-2.", -2.0), ("0.5", 0.5)] {
            assert!(matches!(number(text), Ok(Operand::Float(found)) if found == expected), "{text}");
        }
        for text in
            ["1x", "0x", "1.2.3", "-", "+-1", "1__0", "_1", "1_.0", "1_", "0xg", "1e", "inf", "0x-1", "1i"]
        {
            assert!(number(text).is_err(), "{text}");
        }
        assert_eq!(number("99999999999999999999").unwrap_err(), "99999999999999999999 overflows int");
    }

    #[test]
    fn escapes_read_as_in_go() {
        assert_eq!(unquote(r#""a\n\t\"\\\x41\u00e9\U0001F600\101""#).unwrap(), "a\n\t\"\\A\u{e9}\u{1F600}A");
        assert_eq!(unquote("`a\\n\r\n`").unwrap(), "a\\n\n");
        assert_eq!(unquote(r#""\xff""#).unwrap(), "\u{fffd}");
        for text in [r#""\q""#, r#""\x4""#, r#""\u12""#, r#""\ud800""#, r#""\'""#, r#""\18""#, r#""\x4é""#] {
            assert!(unquote(text).is_err(), "{text}");
        }
        assert!(matches!(character("'a'"), Ok(Operand::Int(97))));
        assert!(matches!(character(r"'\n'"), Ok(Operand::Int(10))));
        assert!(character("'ab'").is_err());
    }
}

//! Text between quotes as Go's `%q` shows it.

/// `"a\nb"`: what is not printable is escaped in Go's way (`\x07`, `\u200b`), which is not quite Rust's.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            other => push_escaped(&mut quoted, other),
        }
    }
    quoted.push('"');
    quoted
}

/// `'x'`, as syntax errors show a byte; above ASCII it stands for the character of that number.
pub(super) fn quote_byte(byte: u8) -> String {
    let mut quoted = String::from("'");
    match byte {
        b'\'' => quoted.push_str("\\'"),
        other => push_escaped(&mut quoted, char::from(other)),
    }
    quoted.push('\'');
    quoted
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        '\\' => out.push_str("\\\\"),
        '\u{07}' => out.push_str("\\a"),
        '\u{08}' => out.push_str("\\b"),
        '\u{0b}' => out.push_str("\\v"),
        '\u{0c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        ' '..='~' => out.push(character),
        '\0'..='\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(character))),
        // Rust escapes what is not printable just as Go does, except for spaces, which it lets through.
        _ if character.escape_debug().len() == 1 && !character.is_whitespace() => out.push(character),
        '\0'..='\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
        _ => out.push_str(&format!("\\U{:08x}", u32::from(character))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        assert_eq!(quote("plain 'text'"), "\"plain 'text'\"");
        assert_eq!(quote("a\"b\\c\n\u{7}\u{1}\u{7f}"), r#""a\"b\\c\n\a\x01\x7f""#);
        assert_eq!(quote("é\u{a0}\u{200b}😀\u{e0001}"), r#""é\u00a0\u200b😀\U000e0001""#);
    }

    #[test]
    fn a_byte_is_quoted_as_the_character_of_its_number() {
        assert_eq!(quote_byte(b'\''), r"'\''");
        assert_eq!(quote_byte(b'"'), "'\"'");
        assert_eq!(quote_byte(b'\\'), r"'\\'");
        assert_eq!(quote_byte(0), r"'\x00'");
        assert_eq!(quote_byte(0xc3), "'Ã'");
        assert_eq!(quote_byte(0x80), r"'\u0080'");
    }
}

//! Finds balanced brackets in a text that grows, looking at each character once.

use std::ops::Range;

/// Walks over a text. Brackets inside JSON strings do not count; quotes outside of every bracket are prose.
#[derive(Debug, Default)]
pub struct Scanner {
    /// How many bytes were looked at.
    at: usize,
    /// Where the outermost open bracket is.
    start: Option<usize>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether `[` opens a region too; else only `{` does.
    lists: bool,
}

impl Scanner {
    /// Starts at a byte, and counts both kinds of brackets from the one that stands there.
    pub fn after(at: usize) -> Scanner {
        Scanner { at, lists: true, ..Scanner::default() }
    }

    /// The next balanced region, brackets included. `text` is what it was at the last call, or longer.
    pub fn next(&mut self, text: &str) -> Option<Range<usize>> {
        // All the characters that matter are ASCII, which is never a part of a longer character.
        for (at, byte) in text.bytes().enumerate().skip(self.at) {
            self.at = at + 1;
            if let Some(start) = self.look(at, byte) {
                return Some(start..at + 1);
            }
        }
        None
    }

    /// The start of the region that this byte closes.
    fn look(&mut self, at: usize, byte: u8) -> Option<usize> {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return None;
        }
        match byte {
            b'"' => self.in_string = self.depth > 0,
            b'{' => self.open(at),
            b'[' if self.lists => self.open(at),
            b'}' => return self.close(),
            b']' if self.lists => return self.close(),
            _ => {}
        }
        None
    }

    fn open(&mut self, at: usize) {
        self.start.get_or_insert(at);
        self.depth += 1;
    }

    fn close(&mut self) -> Option<usize> {
        self.depth = self.depth.checked_sub(1)?;
        if self.depth == 0 { self.start.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(text: &str, mut scanner: Scanner) -> Vec<&str> {
        std::iter::from_fn(|| scanner.next(text)).map(|region| &text[region]).collect()
    }

    #[test]
    fn objects_are_found_one_after_the_other() {
        assert_eq!(regions("a {\"b\":{}} c {} }", Scanner::default()), ["{\"b\":{}}", "{}"]);
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = r#"{"a":"}\"{","b":"\\"} rest"#;
        assert_eq!(regions(text, Scanner::default()), [r#"{"a":"}\"{","b":"\\"}"#]);
    }

    #[test]
    fn a_quote_in_prose_opens_no_string() {
        assert_eq!(regions("6\" pipe {}", Scanner::default()), ["{}"]);
    }

    #[test]
    fn a_list_is_a_region_where_lists_count() {
        assert_eq!(regions(" [{\"a\":[1]}] x", Scanner::after(1)), ["[{\"a\":[1]}]"]);
    }

    #[test]
    fn a_text_that_grows_is_looked_at_once() {
        let mut scanner = Scanner::default();
        assert_eq!(scanner.next("{\"é"), None);
        assert_eq!(scanner.next("{\"é\":1} x"), Some(0..8));
    }
}

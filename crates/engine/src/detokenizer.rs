//! Tokens to text, one at a time. A token need not end at the end of a character: what is incomplete is held until
//! the rest comes, and what can no longer become a character is U+FFFD. Where no rest comes it is never given.

use std::sync::Arc;

use crate::Tokenizer;

/// The text of one running sequence.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
    shows_special: bool,
    /// The next piece may start with a space that is not in the text.
    strips_space: bool,
}

// === impl Detokenizer ===

impl Detokenizer {
    /// For text that continues other text, such as a prompt: every space counts. Control tokens are not shown.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Detokenizer {
        Detokenizer { tokenizer, held: Vec::new(), shows_special: false, strips_space: false }
    }

    /// For text from its beginning: drops the space that the vocabulary puts in front of every text, if it does.
    pub fn from_start(tokenizer: Arc<Tokenizer>) -> Detokenizer {
        let strips_space = tokenizer.adds_space_prefix();
        Detokenizer { strips_space, ..Detokenizer::new(tokenizer) }
    }

    /// Writes control tokens out.
    #[must_use]
    pub fn with_special(self) -> Detokenizer {
        Detokenizer { shows_special: true, ..self }
    }

    /// Adds a token and gives the characters that are complete now, perhaps none.
    pub fn push(&mut self, token: u32) -> String {
        let mut piece = match self.shows_special {
            true => self.tokenizer.piece_with_special(token),
            false => self.tokenizer.piece(token),
        };
        if self.strips_space && !piece.is_empty() {
            piece = piece.strip_prefix(b" ").unwrap_or(piece);
            self.strips_space = false;
        }
        self.held.extend_from_slice(piece);
        self.complete()
    }

    fn complete(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        let mut text = String::with_capacity(held.len());
        let mut rest = held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(broken) = error.error_len() else {
                        self.held = after.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[broken..];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> Detokenizer {
        Detokenizer::new(Arc::new(Tokenizer::bytes()))
    }

    fn push_all(detokenizer: &mut Detokenizer, bytes: &[u8]) -> Vec<String> {
        bytes.iter().map(|&byte| detokenizer.push(u32::from(byte))).collect()
    }

    #[test]
    fn a_character_comes_out_when_its_last_byte_is_there() {
        assert_eq!(push_all(&mut bytes(), "a😀é".as_bytes()), ["a", "", "", "", "😀", "", "é"]);
    }

    #[test]
    fn broken_bytes_are_replaced_as_soon_as_they_are_known_to_be_broken() {
        assert_eq!(push_all(&mut bytes(), b"\xffa"), ["\u{fffd}", "a"]);
        assert_eq!(push_all(&mut bytes(), b"\xe4\xb8a"), ["", "", "\u{fffd}a"]);
        assert_eq!(push_all(&mut bytes(), b"\xe4\xe4\xb8\xad"), ["", "\u{fffd}", "", "中"]);
    }

    #[test]
    fn what_is_cut_off_within_a_character_is_not_given() {
        assert_eq!(push_all(&mut bytes(), b"a\xf0\x9f"), ["a", "", ""]);
    }

    #[test]
    fn control_tokens_are_shown_only_when_asked_for() {
        let eos = Tokenizer::bytes().eos().expect("it has one");
        assert_eq!(bytes().push(eos), "");
        assert_eq!(bytes().with_special().push(eos), "</s>");
        assert_eq!(bytes().push(9999), "");
    }

    proptest! {
        #[test]
        fn the_parts_are_the_lossy_text(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut detokenizer = bytes();
            let mut text = push_all(&mut detokenizer, &input).concat();
            // What is still held is one broken character at most.
            if !detokenizer.held.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            prop_assert_eq!(text, String::from_utf8_lossy(&input));
        }
    }
}

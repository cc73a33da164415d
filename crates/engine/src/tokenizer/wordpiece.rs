//! WordPiece as BERT runs it (Schuster and Nakajima 2012, <https://arxiv.org/abs/1810.04805>): a text is cleaned, cut
//! into words, and each word is spelled in the longest tokens from its beginning on. A word that cannot be spelled is
//! unknown as a whole.
//!
//! llama.cpp drops all but the first letter of a Korean syllable, the vowel signs of Indian scripts, and takes U+0085 for
//! white space. The tokenizers that models are trained with do not, and neither does this.

use icu_normalizer::DecomposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData,
    props::{GeneralCategory, GeneralCategoryGroup},
};

use super::vocab::Vocab;

/// What a GGUF writes in front of a token that begins a word: U+2581.
const WORD_START: &str = "\u{2581}";

/// What one vocabulary needs beside its tokens.
pub(super) struct WordPiece {
    /// Longest key of a token: longer pieces need no look-up.
    max_token_bytes: usize,
    unknown: Option<u32>,
    lowercase: bool,
    strips_accents: bool,
}

// === impl WordPiece ===

impl WordPiece {
    pub fn new(vocab: &Vocab, unknown: Option<u32>, lowercase: bool, strips_accents: bool) -> WordPiece {
        let max_token_bytes = vocab.keys().map(|(key, _)| key.len()).max().unwrap_or(0);
        WordPiece { max_token_bytes, unknown, lowercase, strips_accents }
    }

    /// `text` as it came; what is not UTF-8 is left out.
    pub fn encode(&self, vocab: &Vocab, text: &[u8], tokens: &mut Vec<u32>) {
        let text = String::from_utf8_lossy(text);
        let mut word = String::new();
        let mut flush = |word: &mut String| {
            if !word.is_empty() {
                self.encode_word(vocab, word, tokens);
                word.clear();
            }
        };
        for character in self.normalized(&text) {
            if character.is_whitespace() {
                flush(&mut word);
            } else if stands_alone(character) {
                flush(&mut word);
                word.push(character);
                flush(&mut word);
            } else {
                word.push(character);
            }
        }
        flush(&mut word);
    }

    /// Without control characters and, if the vocabulary has none, accents and capitals.
    fn normalized<'a>(&self, text: &'a str) -> Box<dyn Iterator<Item = char> + 'a> {
        let is_text = |character: &char| *character != char::REPLACEMENT_CHARACTER && !is_control(*character);
        let mut characters: Box<dyn Iterator<Item = char> + 'a> = Box::new(text.chars().filter(is_text));
        if self.strips_accents {
            let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize_iter(characters);
            let is_base = |character: &char| category(*character) != GeneralCategory::NonspacingMark;
            characters = Box::new(decomposed.filter(is_base));
        }
        if self.lowercase {
            characters = Box::new(characters.flat_map(char::to_lowercase));
        }
        characters
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, tokens: &mut Vec<u32>) {
        let word = [WORD_START, word].concat().into_bytes();
        let before = tokens.len();
        let mut rest = word.as_slice();
        while !rest.is_empty() {
            let longest = rest.len().min(self.max_token_bytes);
            let found = (1..=longest).rev().find_map(|len| Some((vocab.id(&rest[..len])?, len)));
            let Some((token, len)) = found else {
                tokens.truncate(before);
                tokens.extend(self.unknown);
                return;
            };
            tokens.push(token);
            rest = &rest[len..];
        }
    }
}

fn category(character: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(character)
}

/// Line breaks and tabs are white space, not this; U+0085 is this, though it is white space elsewhere.
fn is_control(character: char) -> bool {
    !matches!(character, '\t' | '\n' | '\r') && GeneralCategoryGroup::Other.contains(category(character))
}

/// Whether a character is a word of its own: punctuation, every ASCII symbol, and Chinese.
fn stands_alone(character: char) -> bool {
    character.is_ascii_punctuation()
        || is_chinese(character)
        || (!character.is_ascii() && GeneralCategoryGroup::Punctuation.contains(category(character)))
}

/// The blocks that BERT's own tokenizer lists; the fifth begins where the Rust implementation of Hugging Face lets it.
fn is_chinese(character: char) -> bool {
    matches!(
        u32::from(character),
        0x3400..=0x4DBF
            | 0x4E00..=0x9FFF
            | 0xF900..=0xFAFF
            | 0x20000..=0x2A6DF
            | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF
            | 0x2F800..=0x2FA1F
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::vocab::Kind;

    fn vocab(tokens: &[&str]) -> Vocab {
        let mut vocab = Vocab::default();
        for token in tokens {
            vocab.push(token.as_bytes(), Some(token.as_bytes()), Kind::Normal);
        }
        vocab
    }

    fn encode(tokens: &[&str], text: &str) -> Vec<u32> {
        let vocab = vocab(tokens);
        let mut found = Vec::new();
        WordPiece::new(&vocab, Some(99), true, true).encode(&vocab, text.as_bytes(), &mut found);
        found
    }

    #[test]
    fn a_word_is_spelled_in_the_longest_tokens_or_is_unknown() {
        let tokens = ["▁un", "▁u", "aff", "able", "a", "▁"];
        assert_eq!(encode(&tokens, "unaffable"), [0, 2, 3]);
        assert_eq!(encode(&tokens, "unaffable unx una"), [0, 2, 3, 99, 0, 4]);
        assert_eq!(encode(&tokens, "ua"), [1, 4]);
    }

    #[test]
    fn capitals_accents_and_control_characters_are_no_part_of_a_word() {
        let tokens = ["▁cafe", "▁a", "▁!", "▁中", "▁$"];
        assert_eq!(encode(&tokens, "CAFÉ\u{200b} \u{0}A\u{7}!中a$\u{fffd}"), [0, 1, 2, 3, 1, 4]);
        assert!(encode(&tokens, " \n\t").is_empty());
    }

    #[test]
    fn a_vocabulary_with_capitals_and_accents_keeps_them() {
        let vocab = vocab(&["▁É", "▁é", "▁e"]);
        let run = |lowercase, strips| {
            let mut tokens = Vec::new();
            WordPiece::new(&vocab, None, lowercase, strips).encode(&vocab, "É".as_bytes(), &mut tokens);
            tokens
        };
        assert_eq!((run(false, false), run(true, false), run(true, true)), (vec![0], vec![1], vec![2]));
    }
}

//! SentencePiece as its BPE models are run (Kudo and Richardson 2018): characters are merged into the token with the
//! best score first, and what is no token in the end is spelled in byte tokens.
//!
//! SentencePiece writes a space as U+2581. Here tokens are keyed by what they render as, and that character is a
//! space in the text too, which comes to the same.

use super::merge::{MAX_WORD_BYTES, Merger};
use super::vocab::{Kind, Vocab};

/// U+2581, LOWER ONE EIGHTH BLOCK.
const SPACE_MARK: &[u8] = "\u{2581}".as_bytes();

/// What one vocabulary needs beside its tokens.
pub(super) struct Spm {
    /// By token: the better its score, the lower.
    costs: Vec<u32>,
    /// The token of each byte: `<0x0A>`, or the byte itself.
    byte_tokens: [Option<u32>; 256],
    /// Bytes after which a space can be the middle of a token. Before any other space a text can be cut.
    joins: [bool; 256],
    /// Longest key of a token: longer pairs need no look-up.
    max_token_bytes: usize,
    unknown: Option<u32>,
}

// === impl Spm ===

impl Spm {
    /// `scores` has one entry per token of `vocab`.
    pub fn new(vocab: &Vocab, scores: &[f32], unknown: Option<u32>) -> Spm {
        let mut joins = [false; 256];
        let mut max_token_bytes = 0;
        for (key, _) in vocab.keys() {
            max_token_bytes = max_token_bytes.max(key.len());
            for pair in key.windows(2) {
                joins[usize::from(pair[0])] |= pair[1] == b' ';
            }
        }
        let byte_tokens = std::array::from_fn(|byte| {
            let byte = byte as u8;
            let spelled = vocab.id(format!("<0x{byte:02X}>").as_bytes());
            spelled.or_else(|| vocab.id(&[byte]))
        });
        let costs = scores.iter().map(|&score| descending(score)).collect();
        Spm { costs, byte_tokens, joins, max_token_bytes, unknown }
    }

    /// `text` as it came; see [`key`] for what a token is found by.
    pub fn encode(&self, vocab: &Vocab, text: &[u8], merger: &mut Merger, tokens: &mut Vec<u32>) {
        let text = key(text);
        for word in self.words(&text) {
            self.encode_word(vocab, word, merger, tokens);
        }
    }

    /// Cuts where no token can span the cut, so that each part can be merged by itself.
    fn words<'a>(&self, text: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let bound = rest.len().min(MAX_WORD_BYTES);
            let is_cut = |at: &usize| {
                rest[*at] == b' ' && rest[*at - 1] != b' ' && !self.joins[usize::from(rest[*at - 1])]
            };
            let cut = (1..bound).find(is_cut).unwrap_or_else(|| character_boundary(rest, bound));
            let (word, after) = rest.split_at(cut);
            rest = after;
            (!word.is_empty()).then_some(word)
        })
    }

    fn encode_word(&self, vocab: &Vocab, word: &[u8], merger: &mut Merger, tokens: &mut Vec<u32>) {
        merger.clear();
        for chunk in word.utf8_chunks() {
            chunk.valid().chars().for_each(|character| merger.push(0, character.len_utf8()));
            chunk.invalid().iter().for_each(|_| merger.push(0, 1));
        }
        merger.run(|left, right| {
            let pair = &word[left.range().start..right.range().end];
            let token = (pair.len() <= self.max_token_bytes).then(|| vocab.id(pair))??;
            Some((self.costs[token as usize], token))
        });
        for symbol in merger.symbols() {
            let bytes = &word[symbol.range()];
            match vocab.id(bytes) {
                Some(token) => tokens.push(token),
                None => tokens.extend(bytes.iter().filter_map(|&byte| self.byte_token(byte))),
            }
        }
    }

    fn byte_token(&self, byte: u8) -> Option<u32> {
        self.byte_tokens[usize::from(byte)].or(self.unknown)
    }
}

/// What a token of such a vocabulary renders as. Tokens that are cut out of the text are written as they are.
pub(super) fn piece(text: &[u8], kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Normal => key(text),
        Kind::Byte => byte_value(text).map_or_else(|| text.to_vec(), |byte| vec![byte]),
        Kind::Unused => Vec::new(),
        Kind::Control | Kind::Unknown | Kind::UserDefined => text.to_vec(),
    }
}

/// What a token, or a text, is looked up by: with spaces for space marks.
pub(super) fn key(text: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SPACE_MARK) {
            key.push(b' ');
            rest = after;
        } else {
            key.push(first);
            rest = after;
        }
    }
    key
}

/// `<0x0A>` is 10.
fn byte_value(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text).ok()?.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}

/// The last place at or before `at` that is not inside a character; `at` where there is none.
fn character_boundary(text: &[u8], at: usize) -> usize {
    let is_inside = |at: usize| text.get(at).is_some_and(|&byte| byte & 0xC0 == 0x80);
    // A character has at most three bytes that continue it.
    (at.saturating_sub(3)..=at).rev().find(|&at| at > 0 && !is_inside(at)).unwrap_or(at)
}

/// Maps floats to integers in the opposite order. Both zeros are one score.
fn descending(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocab(tokens: &[&str]) -> Vocab {
        let mut vocab = Vocab::default();
        for token in tokens {
            let key = key(token.as_bytes());
            vocab.push(&key, Some(&key), Kind::Normal);
        }
        vocab
    }

    fn encode(vocab: &Vocab, scores: &[f32], text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        Spm::new(vocab, scores, None).encode(vocab, text.as_bytes(), &mut Merger::default(), &mut tokens);
        tokens
    }

    #[test]
    fn the_best_score_is_merged_first_and_the_leftmost_on_ties() {
        let vocab = vocab(&["a", "b", "ab", "ba", "aba"]);
        assert_eq!(encode(&vocab, &[0.0, 0.0, -2.0, -1.0, -9.0], "aba"), [4]);
        assert_eq!(encode(&vocab, &[0.0, 0.0, -2.0, -1.0, -9.0], "abab"), [4, 1]);
        assert_eq!(encode(&vocab, &[0.0, 0.0, -1.0, -1.0, -9.0], "abab"), [2, 2]);
    }

    #[test]
    fn a_space_inside_a_token_is_no_place_to_cut() {
        let vocab = vocab(&[">", "▁", "<", ">▁", ">▁<", "a", "▁a"]);
        assert_eq!(encode(&vocab, &[0.0; 7], "> < a"), [4, 6]);
        assert_eq!(encode(&vocab, &[0.0; 7], "a a"), [5, 6]);
        assert_eq!(encode(&vocab, &[0.0; 7], "a▁a"), [5, 6]);
    }

    #[test]
    fn what_is_no_token_is_spelled_in_bytes() {
        let mut vocab = vocab(&["a", "<0xC3>", "<0xA9>"]);
        vocab.push(b"z", Some(b"z"), Kind::Normal);
        assert_eq!(encode(&vocab, &[0.0; 4], "aéz"), [0, 1, 2, 3]);
        assert_eq!(encode(&vocab, &[0.0; 4], "ü"), [1], "0xBC has no token and there is no unknown one");
    }

    #[test]
    fn higher_scores_have_lower_costs() {
        let scores = [f32::INFINITY, 3.0, 0.5, 0.0, -0.5, -1000.0, f32::NEG_INFINITY];
        let costs: Vec<u32> = scores.iter().map(|&score| descending(score)).collect();
        assert!(costs.is_sorted_by(|a, b| a < b), "{costs:?}");
        assert_eq!(descending(0.0), descending(-0.0));
    }

    #[test]
    fn an_endless_word_is_cut_between_characters() {
        let text = "é".repeat(MAX_WORD_BYTES);
        let vocab = vocab(&["é"]);
        let spm = Spm::new(&vocab, &[0.0], None);
        let mut text = text.into_bytes();
        text.insert(0, b'x');
        for word in spm.words(&text) {
            assert!(word.len() <= MAX_WORD_BYTES && std::str::from_utf8(word).is_ok());
        }
        assert_eq!(spm.words(&text).map(<[u8]>::len).sum::<usize>(), text.len());
    }
}

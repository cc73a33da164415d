//! Tokens that are cut out of a text before the rest of it is encoded: control, unknown and user-defined ones.

use std::collections::{HashMap, HashSet};

use super::Parse;
use super::vocab::{Kind, Vocab};

/// A trie over the texts of the added tokens. The leftmost match wins, then the longest.
///
/// llama.cpp cuts out the longest token of the whole text first. That differs only where two different tokens
/// overlap, and there this is what the Hugging Face tokenizers do, which models are trained with.
#[derive(Default)]
pub(super) struct Added {
    edges: HashMap<(u32, u8), u32>,
    /// By node: the token that ends there.
    ends: Vec<Option<(u32, Kind)>>,
    /// Tokens that swallow the whitespace after them.
    trims: HashSet<u32>,
}

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'a> {
    Text(&'a [u8]),
    Token(u32),
}

// === impl Added ===

impl Added {
    /// `trims`: the tokens after which whitespace is dropped.
    pub fn new(vocab: &Vocab, trims: HashSet<u32>) -> Added {
        let mut added = Added { edges: HashMap::new(), ends: vec![None], trims };
        for id in 0..vocab.len() as u32 {
            if let Some(kind) = vocab.kind(id).filter(|kind| kind.is_added()) {
                added.insert(vocab.piece(id), id, kind);
            }
        }
        added
    }

    fn insert(&mut self, text: &[u8], id: u32, kind: Kind) {
        let mut node = 0;
        for &byte in text {
            let next = self.ends.len() as u32;
            node = *self.edges.entry((node, byte)).or_insert(next);
            if node == next {
                self.ends.push(None);
            }
        }
        if node != 0 {
            self.ends[node as usize].get_or_insert((id, kind));
        }
    }

    /// Cuts the text. No part is empty.
    pub fn split<'a>(&self, text: &'a [u8], parse: Parse) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let Some((token, len)) = self.longest(&text[at..], parse) else {
                at += 1;
                continue;
            };
            if start < at {
                parts.push(Part::Text(&text[start..at]));
            }
            parts.push(Part::Token(token));
            at += len;
            if self.trims.contains(&token) {
                at += text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            }
            start = at;
        }
        if start < text.len() {
            parts.push(Part::Text(&text[start..]));
        }
        parts
    }

    fn longest(&self, text: &[u8], parse: Parse) -> Option<(u32, usize)> {
        let (mut node, mut best) = (0, None);
        for (at, &byte) in text.iter().enumerate() {
            let Some(&next) = self.edges.get(&(node, byte)) else { break };
            node = next;
            if let Some((id, kind)) = self.ends[node as usize]
                && (parse == Parse::Special || !kind.is_hidden())
            {
                best = Some((id, at + 1));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::Part::{Text, Token};
    use super::*;

    fn added() -> Added {
        let mut vocab = Vocab::default();
        for (text, kind) in [
            ("<s>", Kind::Control),
            ("\n", Kind::UserDefined),
            ("\n\n\n", Kind::UserDefined),
            ("a", Kind::Normal),
            ("<s>!", Kind::Control),
        ] {
            vocab.push(text.as_bytes(), None, kind);
        }
        Added::new(&vocab, HashSet::from([4]))
    }

    #[test]
    fn the_longest_token_is_cut_out() {
        let parts = added().split(b"a<s>b\n\n\n\n\n<s", Parse::Special);
        let expected = [Text(b"a"), Token(0), Text(b"b"), Token(2), Token(1), Token(1), Text(b"<s")];
        assert_eq!(parts, expected);
    }

    #[test]
    fn control_tokens_are_text_unless_they_are_asked_for() {
        assert_eq!(added().split(b"<s>\n", Parse::Text), [Text(b"<s>"), Token(1)]);
        assert_eq!(added().split(b"", Parse::Special), []);
    }

    #[test]
    fn a_trimming_token_swallows_the_whitespace_after_it() {
        assert_eq!(added().split(b"<s>! \n x", Parse::Special), [Token(4), Text(b"x")]);
    }
}

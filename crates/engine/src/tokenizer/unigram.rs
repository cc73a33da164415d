//! SentencePiece as its unigram models are run (Kudo 2018, <https://arxiv.org/abs/1804.10959>): a text is normalised, and
//! then read as that row of tokens whose scores have the largest sum. XLM-RoBERTa and T5 have such vocabularies.

use super::charsmap::Charsmap;
use super::merge::MAX_WORD_BYTES;
use super::vocab::{Kind, Vocab};

/// What a space becomes: U+2581, LOWER ONE EIGHTH BLOCK.
const SPACE_MARK: &[u8] = "\u{2581}".as_bytes();
/// What a byte that belongs to no character becomes: U+FFFD.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
/// How much worse an unknown character is than the worst token, as in SentencePiece.
const UNKNOWN_PENALTY: f32 = 10.0;
/// Longest token that is looked for. SentencePiece makes none of more than 16 characters; every further byte would cost
/// a look-up at every byte of every text.
pub(super) const MAX_TOKEN_BYTES: usize = 256;
/// A part of a text that is read at once, if it can be cut there: bounds memory, and nothing depends on it.
const PART_BYTES: usize = 1 << 16;

/// What one vocabulary needs beside its tokens.
pub(super) struct Unigram {
    spaces: Spaces,
    charsmap: Charsmap,
    /// The tokens that a text is read as, in the order of their keys.
    sorted: Vec<u32>,
    /// Where in `sorted` the keys with each first byte begin.
    starts: Vec<u32>,
    /// By token.
    scores: Vec<f32>,
    unknown: Option<u32>,
    unknown_score: f32,
    /// Whether a token goes on after a space. If none does, a text can be cut before any.
    spans_spaces: bool,
}

/// What becomes of white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spaces {
    /// A text gets one in front.
    pub add_prefix: bool,
    /// Several become one, and those at both ends none.
    pub remove_extra: bool,
}

/// The best way to read a text up to some byte.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// The last token, and where it begins.
    token: Option<u32>,
    start: u32,
}

// === impl Unigram ===

impl Unigram {
    /// `scores` has one finite entry per token of `vocab`.
    pub fn new(
        vocab: &Vocab,
        mut scores: Vec<f32>,
        unknown: Option<u32>,
        spaces: Spaces,
        charsmap: Charsmap,
    ) -> Unigram {
        let kind = |id: u32| vocab.kind(id).unwrap_or(Kind::Unused);
        let mut worst = f32::MAX;
        for (id, score) in (0..).zip(&mut scores) {
            match kind(id) {
                Kind::Normal => worst = worst.min(*score),
                // Better than any token with a probability.
                Kind::UserDefined => *score = 0.0,
                _ => {}
            }
        }
        let mut sorted: Vec<u32> = vocab.keys().map(|(_, id)| id).collect();
        sorted.sort_unstable_by_key(|&id| vocab.key(id));
        let starts = (0..=256usize).map(|first| {
            sorted.partition_point(|&id| vocab.key(id).first().is_some_and(|&byte| usize::from(byte) < first))
        });
        Unigram {
            starts: starts.map(|start| start as u32).collect(),
            spans_spaces: sorted.iter().any(|&id| spans_a_space(vocab.key(id))),
            unknown_score: worst - UNKNOWN_PENALTY,
            spaces,
            charsmap,
            sorted,
            scores,
            unknown,
        }
    }

    /// `text` as it came.
    pub fn encode(&self, vocab: &Vocab, text: &[u8], tokens: &mut Vec<u32>) {
        let mut reader = Reader { unigram: self, vocab, tokens, score: 0.0, is_unknown: false };
        let mut part = Vec::new();
        let mut is_word = false;
        let mut has_prefix = false;
        let mut rest = text;
        while !rest.is_empty() {
            let (normal, len) = self.normalise(rest);
            rest = &rest[len..];
            for &byte in normal {
                if byte == b' ' {
                    is_word = false;
                    if self.spaces.remove_extra {
                        continue;
                    }
                } else if is_word {
                    part.push(byte);
                    continue;
                }
                let is_cut = part.len() >= PART_BYTES && !self.spans_spaces && !part.ends_with(SPACE_MARK);
                if is_cut {
                    reader.read(&part);
                    part.clear();
                }
                if byte == b' ' {
                    part.extend_from_slice(SPACE_MARK);
                    continue;
                }
                is_word = true;
                if self.spaces.remove_extra || (self.spaces.add_prefix && !has_prefix) {
                    part.extend_from_slice(SPACE_MARK);
                    has_prefix = true;
                }
                part.push(byte);
            }
            if part.len() >= MAX_WORD_BYTES {
                reader.read(&part);
                part.clear();
            }
        }
        reader.read(&part);
    }

    /// What the beginning of `text`, which is not empty, becomes, and how long that beginning is.
    fn normalise<'a>(&'a self, text: &'a [u8]) -> (&'a [u8], usize) {
        if let Some(found) = self.charsmap.longest(text) {
            return found;
        }
        let len = character_len(text[0]);
        let is_character = text[0] & 0xC0 != 0x80
            && text.get(1..len).is_some_and(|more| more.iter().all(|byte| byte & 0xC0 == 0x80));
        if is_character { (&text[..len], len) } else { (REPLACEMENT, 1) }
    }

    /// Tells every token that `text` begins with, and its length, the shortest first.
    fn prefixes(&self, vocab: &Vocab, text: &[u8], mut tell: impl FnMut(u32, usize)) {
        let first = usize::from(text[0]);
        let (mut low, mut high) = (self.starts[first] as usize, self.starts[first + 1] as usize);
        for (depth, byte) in text.iter().enumerate().take(MAX_TOKEN_BYTES) {
            let ids = &self.sorted[low..high];
            let end = ids.partition_point(|&id| vocab.key(id).get(depth) <= Some(byte));
            low += ids[..end].partition_point(|&id| vocab.key(id).get(depth) < Some(byte));
            high = high - ids.len() + end;
            let Some(&id) = self.sorted[low..high].first() else { return };
            if vocab.key(id).len() == depth + 1 {
                tell(id, depth + 1);
            }
        }
    }
}

/// Reads the parts of one text, one after another.
struct Reader<'a> {
    unigram: &'a Unigram,
    vocab: &'a Vocab,
    tokens: &'a mut Vec<u32>,
    /// The sum over the parts before: sums are compared as if there had been one part only.
    score: f64,
    /// Whether the part before has ended in an unknown character.
    is_unknown: bool,
}

// === impl Reader ===

impl Reader<'_> {
    fn read(&mut self, text: &[u8]) {
        let mut best = vec![Best { score: f64::MIN, token: None, start: 0 }; text.len() + 1];
        best[0].score = self.score;
        let mut at = 0;
        while at < text.len() {
            let len = character_len(text[at]).min(text.len() - at);
            let before = best[at].score;
            let mut offer = |end: usize, token: Option<u32>, score: f32| {
                let score = before + f64::from(score);
                if score > best[end].score {
                    best[end] = Best { score, token, start: at as u32 };
                }
            };
            let mut is_known = false;
            self.unigram.prefixes(self.vocab, &text[at..], |token, bytes| {
                is_known |= bytes == len;
                offer(at + bytes, Some(token), self.unigram.scores[token as usize]);
            });
            if !is_known {
                offer(at + len, None, self.unigram.unknown_score);
            }
            at += len;
        }
        self.score = best[text.len()].score;
        self.trace(&best);
    }

    /// Adds the tokens of the best way, which is found from its end. A run of unknown characters is one token.
    fn trace(&mut self, best: &[Best]) {
        let first = self.tokens.len();
        let mut ends_unknown = None;
        let mut was_unknown = false;
        let mut at = best.len() - 1;
        while at > 0 {
            let Best { token, start, .. } = best[at];
            if token.is_some() || !was_unknown {
                self.tokens.extend(token.or(self.unigram.unknown));
            }
            was_unknown = token.is_none();
            ends_unknown.get_or_insert(was_unknown);
            at = start as usize;
        }
        // Found last, it comes first: the end of a run that the part before began.
        if was_unknown && self.is_unknown && self.unigram.unknown.is_some() {
            self.tokens.pop();
        }
        self.tokens[first..].reverse();
        self.is_unknown = ends_unknown.unwrap_or(self.is_unknown);
    }
}

/// Bytes of the character that begins with `first`, as far as that byte tells.
fn character_len(first: u8) -> usize {
    match first {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    }
}

/// Whether something other than a space is before a space in `key`.
fn spans_a_space(key: &[u8]) -> bool {
    (1..key.len()).any(|at| key[at..].starts_with(SPACE_MARK) && !key[..at].ends_with(SPACE_MARK))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPACES: Spaces = Spaces { add_prefix: true, remove_extra: true };

    /// A token of each text and score, after an unknown one.
    fn unigram(tokens: &[(&str, f32)], spaces: Spaces) -> (Unigram, Vocab) {
        let mut vocab = Vocab::default();
        vocab.push(b"<unk>", None, Kind::Unknown);
        for (text, _) in tokens {
            vocab.push(text.as_bytes(), Some(text.as_bytes()), Kind::Normal);
        }
        let scores = [0.0].into_iter().chain(tokens.iter().map(|(_, score)| *score)).collect();
        (Unigram::new(&vocab, scores, Some(0), spaces, Charsmap::default()), vocab)
    }

    fn encode((unigram, vocab): &(Unigram, Vocab), text: &[u8]) -> Vec<u32> {
        let mut tokens = Vec::new();
        unigram.encode(vocab, text, &mut tokens);
        tokens
    }

    #[test]
    fn the_tokens_with_the_best_sum_are_found() {
        let model = unigram(&[("▁", -1.0), ("a", -3.0), ("b", -3.0), ("ab", -4.0), ("▁aba", -4.5)], SPACES);
        assert_eq!(encode(&model, b"ab"), [1, 4]);
        assert_eq!(encode(&model, b"aba"), [5]);
        assert_eq!(encode(&model, b"abab"), [5, 3], "-7.5 is better than -9");
    }

    #[test]
    fn white_space_is_kept_as_the_vocabulary_wants_it() {
        let tokens = [("▁", -1.0), ("a", -2.0), ("▁a", -2.5)];
        let encode = |spaces, text: &str| encode(&unigram(&tokens, spaces), text.as_bytes());
        let keep = Spaces { remove_extra: false, ..SPACES };
        assert_eq!(encode(SPACES, "  a   a "), [3, 3]);
        assert_eq!(encode(keep, "  a   a "), [1, 1, 3, 1, 1, 3, 1]);
        assert_eq!(encode(Spaces { add_prefix: false, ..keep }, "aa a"), [2, 2, 3]);
        assert_eq!((encode(SPACES, "  "), encode(SPACES, "")), (vec![], vec![]));
    }

    #[test]
    fn a_run_of_unknown_characters_is_one_token() {
        let model = unigram(&[("▁", -1.0), ("a", -2.0)], SPACES);
        assert_eq!(encode(&model, "aéüa".as_bytes()), [1, 2, 0, 2]);
        assert_eq!(encode(&model, b"\xff\xc3(a"), [1, 0, 2]);
        let without = Unigram { unknown: None, ..model.0 };
        assert_eq!(encode(&(without, model.1), "aéüa".as_bytes()), [1, 2, 2]);
    }

    #[test]
    fn a_long_text_is_read_in_parts_as_if_it_were_one() {
        let word = [("▁", -1.0), ("a", -2.0), ("▁ab", -2.5)];
        let spanning = [("▁", -1.0), ("a", -2.0), ("▁ab", -2.5), ("z▁z", -9.0)];
        let text = "ab aé ".repeat(PART_BYTES);
        assert!(!unigram(&word, SPACES).0.spans_spaces && unigram(&spanning, SPACES).0.spans_spaces);
        let parts = encode(&unigram(&word, SPACES), text.as_bytes());
        assert_eq!(parts, [3, 1, 2, 0].repeat(PART_BYTES));
        assert_eq!(parts, encode(&unigram(&spanning, SPACES), text.as_bytes()));
        let unknown = encode(&unigram(&word, SPACES), "é".repeat(MAX_WORD_BYTES).as_bytes());
        assert_eq!(unknown, [1, 0]);
    }

    /// Every way to read `text`, tried one after another.
    fn slowly(model: &(Unigram, Vocab), text: &[u8]) -> f64 {
        let mut best = vec![f64::MIN; text.len() + 1];
        best[0] = 0.0;
        for end in 1..=text.len() {
            for start in 0..end {
                if let Some(id) = model.1.id(&text[start..end]) {
                    best[end] = best[end].max(best[start] + f64::from(model.0.scores[id as usize]));
                }
            }
        }
        best[text.len()]
    }

    proptest! {
        #[test]
        fn no_other_tokens_have_a_better_sum(
            pieces in proptest::collection::btree_map("[abc]{1,4}", -9.0f32..0.0, 0..20),
            text in "[abc]{1,24}",
        ) {
            let mut tokens = vec![("a", -12.0), ("b", -12.0), ("c", -12.0)];
            tokens.extend(pieces.iter().filter(|(text, _)| text.len() > 1).map(|(text, score)| (text.as_str(), *score)));
            let model = unigram(&tokens, Spaces { add_prefix: false, remove_extra: false });
            let found = encode(&model, text.as_bytes());
            let sum: f64 = found.iter().map(|&id| f64::from(model.0.scores[id as usize])).sum();
            let spelled: Vec<u8> = found.iter().flat_map(|&id| model.1.key(id)).copied().collect();
            prop_assert_eq!(spelled, text.as_bytes());
            prop_assert!((sum - slowly(&model, text.as_bytes())).abs() < 1e-6);
        }
    }
}

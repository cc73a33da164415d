//! Byte-level byte-pair encoding, as GPT-2 introduced it (Radford et al. 2019, after Sennrich et al. 2016): a text is
//! cut into words, a word is its bytes, and neighbours are merged in the order in which training found the pairs.

use std::borrow::Cow;
use std::collections::HashMap;

use super::merge::{MAX_WORD_BYTES, Merger};
use super::pretokenizer::Pretokenizer;
use super::vocab::Vocab;

/// The merges of one vocabulary. Ids below the vocabulary's size are tokens; a byte or an intermediate result that
/// is no token has an id above.
pub(super) struct Bpe {
    pretokenizer: Pretokenizer,
    byte_symbols: [u32; 256],
    /// Pair to (rank, merged symbol).
    merges: HashMap<(u32, u32), (u32, u32)>,
    vocab_size: u32,
}

// === impl Bpe ===

impl Bpe {
    /// `merges` are lines of `tokenizer.ggml.merges`, the first the most important. A line that cannot be read as
    /// two parts is left out: it can never apply.
    pub fn new(vocab: &Vocab, merges: &[&[u8]], pretokenizer: Pretokenizer) -> Bpe {
        let mut symbols = Symbols { vocab, extra: HashMap::new() };
        let byte_symbols = std::array::from_fn(|byte| symbols.id(&[byte as u8]));
        let mut table = HashMap::with_capacity(merges.len());
        for (rank, line) in merges.iter().enumerate() {
            let Some((left, right)) = parse_merge(line) else { continue };
            let pair = (symbols.id(&left), symbols.id(&right));
            let merged = symbols.id(&[left, right].concat());
            table.entry(pair).or_insert((rank as u32, merged));
        }
        Bpe { pretokenizer, byte_symbols, merges: table, vocab_size: vocab.len() as u32 }
    }

    pub fn encode(&self, vocab: &Vocab, text: &[u8], merger: &mut Merger, tokens: &mut Vec<u32>) {
        for word in self.pretokenizer.split(&repaired(text)) {
            for word in word.as_bytes().chunks(MAX_WORD_BYTES) {
                self.encode_word(vocab, word, merger, tokens);
            }
        }
    }

    fn encode_word(&self, vocab: &Vocab, word: &[u8], merger: &mut Merger, tokens: &mut Vec<u32>) {
        if self.pretokenizer.whole_words
            && let Some(token) = vocab.id(word)
        {
            tokens.push(token);
            return;
        }
        merger.clear();
        for &byte in word {
            merger.push(self.byte_symbols[usize::from(byte)], 1);
        }
        merger.run(|left, right| self.merges.get(&(left.id, right.id)).copied());
        for symbol in merger.symbols() {
            if symbol.id < self.vocab_size {
                tokens.push(symbol.id);
            } else {
                // Bytes that the vocabulary lacks (0xFF never occurs in UTF-8) are lost, as in the reference.
                let bytes = word[symbol.range()].iter().map(|&byte| self.byte_symbols[usize::from(byte)]);
                tokens.extend(bytes.filter(|&id| id < self.vocab_size));
            }
        }
    }
}

/// Gives ids to byte strings: the token's where there is one, a new one above the vocabulary otherwise.
struct Symbols<'a> {
    vocab: &'a Vocab,
    extra: HashMap<Vec<u8>, u32>,
}

impl Symbols<'_> {
    fn id(&mut self, bytes: &[u8]) -> u32 {
        if let Some(id) = self.vocab.id(bytes) {
            return id;
        }
        let next = (self.vocab.len() + self.extra.len()) as u32;
        *self.extra.entry(bytes.to_vec()).or_insert(next)
    }
}

fn parse_merge(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let line = std::str::from_utf8(line).ok()?;
    // A part may itself start with a space, hence not at 0.
    let space = line.char_indices().skip(1).find(|&(_, c)| c == ' ')?.0;
    Some((decode(&line[..space])?, decode(&line[space + 1..])?))
}

/// The bytes that a token of such a vocabulary stands for; `None` if a character is not in GPT-2's alphabet.
///
/// The alphabet gives every byte a printable character: printable Latin-1 stands for itself, and the other 68 bytes,
/// in order, for U+0100 and up.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte_of).collect()
}

fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The text, with U+FFFD for every byte that is not part of a UTF-8 sequence.
fn repaired(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    let mut repaired = String::with_capacity(text.len() + 16);
    for chunk in text.utf8_chunks() {
        repaired.push_str(chunk.valid());
        repaired.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(repaired)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_alphabet_has_one_character_for_every_byte() {
        let bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(bytes.iter().collect::<HashSet<_>>().len(), 256);
        assert_eq!(decode("Ġthe").as_deref(), Some(&b" the"[..]));
        assert_eq!(decode("Ċ").as_deref(), Some(&b"\n"[..]));
        assert_eq!(decode("你"), None);
    }

    #[test]
    fn every_broken_byte_becomes_one_replacement_character() {
        assert_eq!(repaired(b"a\xe4\xb8b\xff"), "a\u{fffd}\u{fffd}b\u{fffd}");
        assert!(matches!(repaired("a你".as_bytes()), Cow::Borrowed("a你")));
    }

    #[test]
    fn a_merge_line_is_split_at_its_first_space_that_is_not_at_the_front() {
        assert_eq!(parse_merge("Ġ t".as_bytes()), Some((b" ".to_vec(), b"t".to_vec())));
        assert_eq!(parse_merge(b"ab"), None);
        assert_eq!(parse_merge(b""), None);
        assert_eq!(parse_merge(b"\xff a"), None);
    }
}

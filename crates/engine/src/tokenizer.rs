//! Text to tokens and back, as a GGUF describes it: byte-level byte-pair encoding, SentencePiece of either kind, or
//! WordPiece, after the tokens that stand for themselves have been cut out. What comes out is what llama.cpp's tokenizer gives.

mod added;
mod bpe;
mod charsmap;
mod load;
mod merge;
mod pair;
mod pretokenizer;
mod special;
mod spm;
mod unigram;
mod vocab;
mod wordpiece;

use std::collections::HashSet;
use std::fmt;

use gguf::Gguf;

use crate::Error;
use added::{Added, Part};
use bpe::Bpe;
use merge::Merger;
use pretokenizer::Pretokenizer;
use special::Special;
use spm::Spm;
use unigram::Unigram;
use vocab::{Kind, Vocab};
use wordpiece::WordPiece;

pub use pair::{Pairs, Reranker};
pub use special::Fim;

/// Text to tokens and back.
pub struct Tokenizer {
    vocab: Vocab,
    encoder: Encoder,
    added: Added,
    special: Special,
}

enum Encoder {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
    WordPiece(WordPiece),
    Unigram(Box<Unigram>),
}

/// Whether control tokens in a text are tokens or just text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parse {
    Special,
    Text,
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys. Errors name the key and what is wrong with it.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, Error> {
        load::load(&gguf.metadata)
    }

    /// A vocabulary of the 256 bytes (token = byte), `<s>` (256) and `</s>` (257, ends a generation), for engines
    /// without a model file.
    pub fn bytes() -> Tokenizer {
        let mut vocab = Vocab::with_capacity(258);
        for byte in 0..=u8::MAX {
            vocab.push(&[byte], Some(&[byte]), Kind::Normal);
        }
        vocab.push(b"<s>", None, Kind::Control);
        vocab.push(b"</s>", None, Kind::Control);
        let special = Special {
            bos: Some(256),
            eos: Some(257),
            unknown: None,
            fim: None,
            eog: HashSet::from([257]),
            add_bos: false,
            add_eos: false,
            separator: Some(257),
            add_separator: true,
            add_space_prefix: false,
        };
        let encoder = Encoder::Bpe(Box::new(Bpe::new(&vocab, &[], Pretokenizer::none())));
        let added = Added::new(&vocab, HashSet::new());
        Tokenizer { vocab, encoder, added, special }
    }

    /// The tokens of a text. `parse_special`: control tokens written in the text become that token; user-defined
    /// ones always do. `add_bos`: also add the tokens at the beginning and the end that the model asks for, except
    /// that a text which begins with the first one does not get a second.
    pub fn encode(&self, text: &str, parse_special: bool, add_bos: bool) -> Vec<u32> {
        self.encode_bytes(text.as_bytes(), parse_special, add_bos)
    }

    /// [`encode`](Tokenizer::encode) for a text that need not be UTF-8.
    pub fn encode_bytes(&self, text: &[u8], parse_special: bool, add_bos: bool) -> Vec<u32> {
        let parse = if parse_special { Parse::Special } else { Parse::Text };
        let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
        if add_bos && self.special.add_bos {
            tokens.extend(self.special.bos);
        }
        let mut merger = Merger::default();
        let parts = self.added.split(text, parse);
        let has_bos = matches!(parts.first(), Some(Part::Token(token)) if tokens.contains(token));
        self.encode_parts(parts.into_iter().skip(usize::from(has_bos)), &mut merger, &mut tokens);
        if add_bos && self.special.add_eos {
            tokens.extend(self.special.eos);
        }
        tokens
    }

    /// The text of the tokens: what [`encode`](Tokenizer::encode) was given, without control tokens.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| self.piece(token)).copied().collect();
        let bytes = match self.special.add_space_prefix {
            true => bytes.strip_prefix(b" ").unwrap_or(&bytes),
            false => &bytes,
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// What a token adds to the text, not always whole characters. Empty for control tokens and for unknown ids.
    pub fn piece(&self, token: u32) -> &[u8] {
        match self.vocab.kind(token) {
            Some(kind) if !kind.is_hidden() => self.vocab.piece(token),
            _ => &[],
        }
    }

    /// As [`piece`](Tokenizer::piece), but control tokens are written out: `<|im_end|>`.
    pub fn piece_with_special(&self, token: u32) -> &[u8] {
        self.vocab.piece(token)
    }

    /// Whether the token ends a generation.
    pub fn is_eog(&self, token: u32) -> bool {
        self.special.eog.contains(&token)
    }

    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Whether a prompt begins with [`bos`](Tokenizer::bos).
    pub fn add_bos(&self) -> bool {
        self.special.add_bos
    }

    /// The tokens around a gap, for models that fill gaps.
    pub fn fim(&self) -> Option<Fim> {
        self.special.fim
    }

    /// Whether the first token of a text has a space in front that is not in the text.
    pub(crate) fn adds_space_prefix(&self) -> bool {
        self.special.add_space_prefix
    }

    fn encode_parts<'a>(
        &self,
        parts: impl IntoIterator<Item = Part<'a>>,
        merger: &mut Merger,
        tokens: &mut Vec<u32>,
    ) {
        let mut is_start = true;
        for part in parts {
            match part {
                Part::Token(token) => tokens.push(token),
                Part::Text(text) => self.encode_text(text, is_start, merger, tokens),
            }
            is_start = matches!(part, Part::Token(_));
        }
    }

    /// `is_start`: nothing but tokens that stand for themselves is right before this text.
    fn encode_text(&self, text: &[u8], is_start: bool, merger: &mut Merger, tokens: &mut Vec<u32>) {
        match &self.encoder {
            Encoder::Bpe(bpe) => bpe.encode(&self.vocab, text, merger, tokens),
            Encoder::Spm(spm) if is_start && self.special.add_space_prefix => {
                spm.encode(&self.vocab, &[b" ", text].concat(), merger, tokens);
            }
            Encoder::Spm(spm) => spm.encode(&self.vocab, text, merger, tokens),
            Encoder::WordPiece(wordpiece) => wordpiece.encode(&self.vocab, text, tokens),
            // It puts the space in front of every text itself, after what it drops there.
            Encoder::Unigram(unigram) => unigram.encode(&self.vocab, text, tokens),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("tokens", &self.vocab.len())
            .field("special", &self.special)
            .finish()
    }
}

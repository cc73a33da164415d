//! From GGUF metadata to a tokenizer. Every error names the key.

use std::collections::{HashMap, HashSet};

use gguf::{Array, Metadata, Value};

use super::added::Added;
use super::bpe::{self, Bpe};
use super::charsmap::Charsmap;
use super::pretokenizer::Pretokenizer;
use super::special::{Defaults, Finder, Special};
use super::spm::{self, Spm};
use super::unigram::{self, Spaces, Unigram};
use super::vocab::{Kind, Vocab};
use super::wordpiece::WordPiece;
use super::{Encoder, Tokenizer};
use crate::Error;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const MERGES: &str = "tokenizer.ggml.merges";
/// The first files spelled it so, and all later ones.
const SEPARATOR: &str = "tokenizer.ggml.seperator_token_id";
/// How the vocabularies of RoBERTa's kind are cut: two texts in one input have two tokens between them.
const ROBERTAS: [&str; 3] = ["jina-v1-en", "jina-v2-code", "roberta-bpe"];

pub(super) fn load(metadata: &Metadata) -> Result<Tokenizer, Error> {
    let model = metadata.str(MODEL)?.ok_or_else(|| missing(MODEL))?;
    match model {
        "gpt2" => load_bpe(metadata),
        "llama" => load_spm(metadata),
        "bert" => load_wordpiece(metadata),
        "t5" => load_unigram(metadata),
        other => Err(invalid(MODEL, format!("{other:?} is not supported; supported: gpt2, llama, bert, t5"))),
    }
}

fn load_bpe(metadata: &Metadata) -> Result<Tokenizer, Error> {
    let pre = metadata.str("tokenizer.ggml.pre")?;
    let pretokenizer = Pretokenizer::named(pre)?;
    let mut tokens = Tokens::read(metadata)?;
    // What llama.cpp takes for granted, after Falcon's vocabulary.
    let bos = pretokenizer.default_bos.then_some(11);
    let add_bos = pretokenizer.add_bos;
    let defaults = Defaults {
        bos,
        eos: Some(11),
        unknown: None,
        add_bos,
        add_eos: false,
        add_separator: pre.is_some_and(|pre| ROBERTAS.contains(&pre)),
        add_space_prefix: false,
    };
    let special = tokens.special(metadata, defaults)?;
    let vocab = tokens.vocab(|text, kind| {
        let decoded = std::str::from_utf8(text).ok().and_then(bpe::decode);
        let piece = match (kind, &decoded) {
            (Kind::Unused, _) => Vec::new(),
            (Kind::Normal, Some(decoded)) => decoded.clone(),
            _ => text.to_vec(),
        };
        (piece, decoded)
    });
    let merges = byte_strings(metadata, MERGES)?;
    let encoder = Encoder::Bpe(Box::new(Bpe::new(&vocab, &merges, pretokenizer)));
    assemble(metadata, vocab, encoder, special)
}

fn load_spm(metadata: &Metadata) -> Result<Tokenizer, Error> {
    let mut tokens = Tokens::read(metadata)?;
    let defaults = Defaults {
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        add_bos: true,
        add_eos: false,
        add_separator: false,
        add_space_prefix: true,
    };
    let special = tokens.special(metadata, defaults)?;
    // A token with a real space in it is never found by merging: a text has space marks by then.
    let key = |text: &[u8]| (!text.contains(&b' ')).then(|| spm::key(text));
    let vocab = tokens.vocab(|text, kind| (spm::piece(text, kind), key(text)));
    let scores = scores(metadata, vocab.len())?;
    let encoder = Encoder::Spm(Box::new(Spm::new(&vocab, &scores, special.unknown)));
    assemble(metadata, vocab, encoder, special)
}

/// A text always stands between the token that begins a sequence and the one that separates two of them.
fn load_wordpiece(metadata: &Metadata) -> Result<Tokenizer, Error> {
    let mut tokens = Tokens::read(metadata)?;
    let defaults = Defaults {
        bos: Some(101),
        eos: None,
        unknown: Some(100),
        add_bos: false,
        add_eos: false,
        add_separator: false,
        add_space_prefix: true,
    };
    let special = tokens.special(metadata, defaults)?;
    let (first, last) = ("tokenizer.ggml.bos_token_id", metadata.u64(SEPARATOR)?.unwrap_or(102));
    let bos =
        special.bos.ok_or_else(|| invalid(first, "it is missing, and there is no token 101".to_owned()))?;
    let eos =
        u32::try_from(last).ok().filter(|&last| (last as usize) < tokens.texts.len()).ok_or_else(|| {
            invalid(SEPARATOR, format!("it must be one of the {} tokens, got {last}", tokens.texts.len()))
        })?;
    let special = Special {
        bos: Some(bos),
        eos: Some(eos),
        add_bos: true,
        add_eos: true,
        add_separator: false,
        ..special
    };
    let vocab = tokens.vocab(|text, kind| (spm::piece(text, kind), Some(text.to_vec())));
    let lowercase = metadata.bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    let strips_accents = metadata.bool("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
    let encoder = Encoder::WordPiece(WordPiece::new(&vocab, special.unknown, lowercase, strips_accents));
    assemble(metadata, vocab, encoder, special)
}

/// What is taken for granted is T5's; XLM-RoBERTa's files say what they have.
fn load_unigram(metadata: &Metadata) -> Result<Tokenizer, Error> {
    let mut tokens = Tokens::read(metadata)?;
    let defaults = Defaults {
        bos: None,
        eos: Some(1),
        unknown: Some(2),
        add_bos: false,
        add_eos: true,
        add_separator: true,
        add_space_prefix: false,
    };
    let special = tokens.special(metadata, defaults)?;
    let is_read = |kind: Kind| matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused);
    let longest = tokens.texts.iter().zip(&tokens.kinds).filter(|(_, kind)| is_read(**kind));
    let longest = longest.map(|(text, _)| text.len()).max().unwrap_or(0);
    if longest > unigram::MAX_TOKEN_BYTES {
        let bound = unigram::MAX_TOKEN_BYTES;
        return Err(invalid(TOKENS, format!("a token must have at most {bound} bytes, got {longest}")));
    }
    let vocab = tokens.vocab(|text, kind| (spm::piece(text, kind), is_read(kind).then(|| text.to_vec())));
    let scores = scores(metadata, vocab.len())?;
    if let Some(at) = scores.iter().position(|score| score.is_infinite()) {
        return Err(invalid(SCORES, format!("entry {at} is not finite")));
    }
    let spaces = Spaces {
        add_prefix: special.add_space_prefix,
        remove_extra: metadata.bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
    };
    let unigram = Unigram::new(&vocab, scores, special.unknown, spaces, charsmap(metadata)?);
    assemble(metadata, vocab, Encoder::Unigram(Box::new(unigram)), special)
}

fn charsmap(metadata: &Metadata) -> Result<Charsmap, Error> {
    let bytes: Vec<u8> = match metadata.array(CHARSMAP)? {
        None => return Ok(Charsmap::default()),
        Some(Array::U8(bytes)) => bytes.clone(),
        Some(Array::I8(bytes)) => bytes.iter().map(|byte| byte.cast_unsigned()).collect(),
        Some(other) => {
            return Err(invalid(CHARSMAP, format!("it must be u8 or i8, got {}", other.element_name())));
        }
    };
    if bytes.is_empty() {
        return Ok(Charsmap::default());
    }
    Charsmap::parse(&bytes).map_err(|problem| invalid(CHARSMAP, problem))
}

fn assemble(
    metadata: &Metadata,
    vocab: Vocab,
    encoder: Encoder,
    special: Special,
) -> Result<Tokenizer, Error> {
    let added = Added::new(&vocab, trims(metadata, &vocab)?);
    Ok(Tokenizer { vocab, encoder, added, special })
}

/// The tokens as the file writes them, and their kinds.
struct Tokens<'a> {
    texts: Vec<&'a [u8]>,
    kinds: Vec<Kind>,
}

// === impl Tokens ===

impl<'a> Tokens<'a> {
    fn read(metadata: &'a Metadata) -> Result<Tokens<'a>, Error> {
        let texts = byte_strings(metadata, TOKENS)?;
        if texts.is_empty() {
            return Err(invalid(TOKENS, "it is empty".to_owned()));
        }
        if u32::try_from(texts.len()).is_err() {
            return Err(invalid(TOKENS, format!("it must have fewer than 2^32 tokens, got {}", texts.len())));
        }
        let kinds = match metadata.integers(TYPES)? {
            Some(types) => {
                check_len(TYPES, types.len(), texts.len())?;
                types.iter().take(texts.len()).map(|&id| Kind::from_id(id)).collect()
            }
            None => vec![Kind::Normal; texts.len()],
        };
        Ok(Tokens { texts, kinds })
    }

    fn special(&mut self, metadata: &Metadata, defaults: Defaults) -> Result<Special, Error> {
        let mut ids = HashMap::with_capacity(self.texts.len());
        for (id, text) in (0..).zip(&self.texts) {
            ids.entry(*text).or_insert(id);
        }
        let finder = Finder { metadata, ids: &ids, tokens: self.texts.len() };
        finder.find(defaults, &mut self.kinds)
    }

    /// `read` gives what a token renders as and what it is found by.
    fn vocab(&self, read: impl Fn(&[u8], Kind) -> (Vec<u8>, Option<Vec<u8>>)) -> Vocab {
        let mut vocab = Vocab::with_capacity(self.texts.len());
        for (text, &kind) in self.texts.iter().zip(&self.kinds) {
            let (piece, key) = read(text, kind);
            vocab.push(&piece, key.as_deref().filter(|key| !key.is_empty()), kind);
        }
        vocab
    }
}

/// Phi-3 drops the whitespace after its special tokens; only the name of the model tells.
fn trims(metadata: &Metadata, vocab: &Vocab) -> Result<HashSet<u32>, Error> {
    let name = metadata.str("general.name")?.unwrap_or_default().to_lowercase();
    if !name.contains("phi-3") && !name.contains("phi3") {
        return Ok(HashSet::new());
    }
    let keeps = |id: &u32| matches!(vocab.piece(*id), b"<unk>" | b"<s>" | b"<|endoftext|>");
    let is_added = |id: &u32| vocab.kind(*id).is_some_and(Kind::is_added);
    Ok((0..vocab.len() as u32).filter(is_added).filter(|id| !keeps(id)).collect())
}

fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, Error> {
    let Some(value) = metadata.array(SCORES)? else { return Ok(vec![0.0; tokens]) };
    let scores: Vec<f32> = match value {
        Array::F32(scores) => scores.clone(),
        Array::I32(scores) => scores.iter().map(|&score| score as f32).collect(),
        other => return Err(invalid(SCORES, format!("it must be f32 or i32, got {}", other.element_name()))),
    };
    check_len(SCORES, scores.len(), tokens)?;
    match scores.iter().position(|score| score.is_nan()) {
        Some(at) => Err(invalid(SCORES, format!("entry {at} is not a number"))),
        None => Ok(scores),
    }
}

fn check_len(key: &str, found: usize, tokens: usize) -> Result<(), Error> {
    if found < tokens {
        return Err(invalid(
            key,
            format!("it must have an entry for each of the {tokens} tokens, got {found}"),
        ));
    }
    Ok(())
}

/// An array of strings that must be there, UTF-8 or not.
fn byte_strings<'a>(metadata: &'a Metadata, key: &str) -> Result<Vec<&'a [u8]>, Error> {
    match metadata.get(key) {
        Some(Value::Array(Array::String(items))) => Ok(items.iter().map(String::as_bytes).collect()),
        Some(Value::Array(Array::Bytes(items))) => Ok(items.iter().map(Vec::as_slice).collect()),
        Some(other) => {
            Err(invalid(key, format!("it must be an array of strings, got {}", other.type_name())))
        }
        None => Err(missing(key)),
    }
}

fn missing(key: &str) -> Error {
    invalid(key, "it is missing".to_owned())
}

fn invalid(key: &str, problem: String) -> Error {
    Error::InvalidKey { key: key.to_owned(), problem }
}

//! The tokenizer against what llama.cpp makes of 200 texts, with three real vocabularies, a trained one of unigrams
//! and, for every way to cut a text into words, a synthetic one. `reference/make_tokens.py` made the vectors.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use engine::{Detokenizer, Tokenizer};
use gguf::{Gguf, Metadata, Value, Writer};
use proptest::prelude::*;
use serde::Deserialize;

use crate::files::{GEMMA3, MINILM, SMOLLM2, bytes, model, vectors};

/// See `make_tokens.py` for the fields.
#[derive(Deserialize)]
struct Golden {
    bos: u32,
    eos: u32,
    add_bos: bool,
    eog: Vec<u32>,
    pieces: String,
    tokens: Vec<Vec<u32>>,
    plain: Vec<Option<Vec<u32>>>,
    added: Vec<Vec<u32>>,
    #[serde(default)]
    prefixed: Vec<Vec<u32>>,
    #[serde(default)]
    kept: Vec<Vec<u32>>,
    #[serde(default)]
    bare: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Written(String),
    Broken { hex: String },
}

#[test]
fn smollm2_encodes_as_the_reference() {
    let golden: Golden = vectors("smollm2.tokens.json");
    let tokenizer = real(SMOLLM2);
    check_roles(&tokenizer, &golden, &golden.eog);
    check_texts(&tokenizer, &golden, |_| true);
}

#[test]
fn gemma3_encodes_as_the_reference() {
    let golden: Golden = vectors("gemma3.tokens.json");
    let tokenizer = real(GEMMA3);
    // The reference takes Gemma's HTML tag </s> for a control token that ends a generation. Here it is a tag.
    let strike: Vec<u32> = tokenizer.encode("</s>", false, false);
    let eog: Vec<u32> = golden.eog.iter().copied().filter(|token| !strike.contains(token)).collect();
    assert_eq!(eog.len() + 1, golden.eog.len());
    check_roles(&tokenizer, &golden, &eog);
    check_texts(&tokenizer, &golden, |text| !String::from_utf8_lossy(text).contains("</s>"));
}

#[test]
fn minilm_encodes_as_the_reference() {
    let mut golden: Golden = vectors("minilm.tokens.json");
    let texts = texts();
    for (text, tokens) in TRAINED_WITH {
        let number = texts.iter().position(|other| other == text.as_bytes()).expect("one of the texts");
        assert_ne!(golden.tokens[number], *tokens, "the reference agrees now: {text}");
        golden.tokens[number] = tokens.to_vec();
    }
    let tokenizer = real(MINILM);
    check_roles(&tokenizer, &golden, &golden.eog);
    check_texts(&tokenizer, &golden, |_| true);
    assert_eq!(tokenizer.decode(&tokenizer.encode("Hello world", true, true)), "hello world");
}

/// Where the reference differs from the model's own tokenizer, what that one gives.
const TRAINED_WITH: &[(&str, &[u32])] = &[
    (
        "한국어 텍스트",
        &[
            1469, 30006, 30021, 29991, 30014, 30020, 29999, 30008, 1467, 30009, 30020, 29997, 30017, 30003,
            30017,
        ],
    ),
    ("हिन्दी पाठ", &[1339, 29877, 29863, 29861, 29878, 100]),
    ("বাংলা", &[1368, 29914, 29882, 29909, 29914]),
    ("a\u{2028}b\u{85}c", &[1037, 4647]),
];

#[test]
fn a_space_is_put_in_front_where_the_vocabulary_wants_it() {
    let golden: Golden = vectors("gemma3.tokens.json");
    let file = model(GEMMA3);
    let overridden = ("tokenizer.ggml.add_space_prefix", Value::Bool(true));
    let tokenizer = Tokenizer::from_gguf(&with(&file.header().metadata, overridden)).expect("a tokenizer");
    for (text, expected) in texts().iter().zip(&golden.prefixed) {
        let tokens = tokenizer.encode_bytes(text, true, false);
        assert_eq!(&tokens, expected, "{:?}", String::from_utf8_lossy(text));
    }
    let tokenizer = Arc::new(tokenizer);
    let tokens = tokenizer.encode("Hello world", true, true);
    assert_eq!(tokenizer.decode(&tokens), "Hello world");
    let text = |mut detokenizer: Detokenizer| -> String {
        tokens.iter().map(|&token| detokenizer.push(token)).collect()
    };
    assert_eq!(text(Detokenizer::from_start(Arc::clone(&tokenizer))), "Hello world");
    assert_eq!(text(Detokenizer::new(tokenizer)), " Hello world");
}

#[test]
fn unigram_encodes_as_the_reference() {
    let golden: Golden = vectors("unigram.tokens.json");
    let file = unigram();
    let tokenizer = Tokenizer::from_gguf(&file).expect("a tokenizer");
    check_roles(&tokenizer, &golden, &golden.eog);
    check_texts(&tokenizer, &golden, |_| true);
    assert_eq!(tokenizer.decode(&tokenizer.encode("Hello  ﬁne world", true, true)), "Hello fine world");
    let whole = &file.metadata;
    let kept = with(whole, ("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(false)));
    let bare = with(&kept.metadata, ("tokenizer.ggml.add_space_prefix", Value::Bool(false)));
    for (file, golden) in [(kept, &golden.kept), (bare, &golden.bare)] {
        let tokenizer = Tokenizer::from_gguf(&file).expect("a tokenizer");
        for (text, expected) in texts().iter().zip(golden) {
            let tokens = tokenizer.encode_bytes(text, true, false);
            assert_eq!(&tokens, expected, "{:?}", String::from_utf8_lossy(text));
        }
    }
}

#[test]
fn every_pretokenizer_cuts_as_the_reference() {
    let rows: BTreeMap<String, BTreeMap<usize, String>> = vectors("pre.json");
    let pairs = pairs();
    let mark = fancy_regex::Regex::new(r"\p{M}").expect("a class");
    let mut wrong = Vec::new();
    for (name, cuts) in &rows {
        // In these patterns an accent belongs to its letter. The reference cannot say so and cuts it off.
        let keeps_accents = matches!(name.as_str(), "gpt-4o" | "tekken" | "kimi-k2" | "youtu");
        let overridden = ("tokenizer.ggml.pre", Value::from(name.as_str()));
        let tokenizer = Tokenizer::from_gguf(&with(&pairs, overridden)).expect(name);
        for (number, text) in texts().iter().enumerate() {
            let expected = cuts.get(&number).unwrap_or(&rows["gpt-2"][&number]);
            let tokens = tokenizer.encode_bytes(text, false, false);
            let found: String = tokens.iter().map(|&token| if token < 256 { '1' } else { '2' }).collect();
            let shown = String::from_utf8_lossy(text);
            let is_comparable = !keeps_accents || !mark.is_match(&*shown).expect("no backtracking");
            if is_comparable && found != *expected {
                wrong.push(format!("{name}, {:?}: {found}, not {expected}", shown));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_prompt_does_not_begin_with_two_bos() {
    let tokenizer = real(GEMMA3);
    assert_eq!(tokenizer.encode("<bos>Hi", true, true), tokenizer.encode("Hi", true, true));
    assert_eq!(tokenizer.encode("<bos>", true, true), [tokenizer.bos().expect("it has one")]);
    assert_ne!(tokenizer.encode("<bos>", false, true), tokenizer.encode("<bos>", true, true));
}

#[test]
fn a_megabyte_without_a_boundary_is_encoded_in_time() {
    let unigram = Tokenizer::from_gguf(&unigram()).expect("a tokenizer");
    let tokenizers = [real(SMOLLM2), real(GEMMA3), Tokenizer::bytes()];
    for unit in ["a", " ", "\n", "0", "你", "<", "<unused1", "ab"] {
        let text = unit.repeat((1 << 20) / unit.len());
        for tokenizer in &tokenizers {
            let tokens = tokenizer.encode(&text, true, false);
            assert_eq!(tokenizer.decode(&tokens), text);
        }
        // It drops white space, and what it does not know is one token.
        assert!(unigram.encode(&text, true, false).len() <= text.len());
    }
}

#[test]
fn the_byte_vocabulary_is_the_bytes() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.encode("aé", true, true), [97, 0xC3, 0xA9]);
    assert_eq!(tokenizer.encode("a</s>", true, true), [97, 257]);
    assert_eq!(tokenizer.encode("</s>", false, true).len(), 4);
    assert!(tokenizer.is_eog(257) && !tokenizer.is_eog(256) && tokenizer.vocab_size() == 258);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn byte_level_texts_come_back(text in any::<String>()) {
        let tokenizer = shared(&SMOLLM2_SHARED);
        let tokens = tokenizer.encode(&text, false, true);
        prop_assert_eq!(tokenizer.decode(&tokens), text);
    }

    #[test]
    fn sentencepiece_texts_come_back_but_for_the_space_mark(text in any::<String>()) {
        let tokenizer = shared(&GEMMA3_SHARED);
        let tokens = tokenizer.encode(&text, false, true);
        prop_assert_eq!(tokenizer.decode(&tokens), text.replace('\u{2581}', " "));
    }

    #[test]
    fn any_bytes_are_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..200), special in any::<bool>()) {
        for tokenizer in [shared(&SMOLLM2_SHARED), shared(&GEMMA3_SHARED)] {
            let tokens = tokenizer.encode_bytes(&bytes, special, true);
            prop_assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size()));
        }
        let tokens = shared(&UNIGRAM_SHARED).encode_bytes(&bytes, special, true);
        prop_assert!(tokens.iter().all(|&token| (token as usize) < shared(&UNIGRAM_SHARED).vocab_size()));
        let tokens = shared(&GEMMA3_SHARED).encode_bytes(&bytes, false, false);
        prop_assert_eq!(shared(&GEMMA3_SHARED).decode(&tokens), String::from_utf8_lossy(&bytes));
    }
}

static SMOLLM2_SHARED: LazyLock<Tokenizer> = LazyLock::new(|| real(SMOLLM2));
static GEMMA3_SHARED: LazyLock<Tokenizer> = LazyLock::new(|| real(GEMMA3));
static UNIGRAM_SHARED: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_gguf(&unigram()).expect("a tokenizer"));

fn shared(tokenizer: &'static LazyLock<Tokenizer>) -> &'static Tokenizer {
    tokenizer
}

fn check_roles(tokenizer: &Tokenizer, golden: &Golden, eog: &[u32]) {
    assert_eq!(tokenizer.bos(), Some(golden.bos));
    assert_eq!(tokenizer.eos(), Some(golden.eos));
    assert_eq!(tokenizer.add_bos(), golden.add_bos);
    let all = 0..tokenizer.vocab_size() as u32;
    assert_eq!(all.clone().filter(|&token| tokenizer.is_eog(token)).collect::<Vec<_>>(), eog);
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for token in all {
        for &byte in tokenizer.piece_with_special(token).iter().chain(&[0xFF]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
        }
    }
    assert_eq!(format!("{hash:016x}"), golden.pieces, "what the tokens render as");
}

/// `is_comparable`: whether the text has no special token that the reference reads differently.
fn check_texts(tokenizer: &Tokenizer, golden: &Golden, is_comparable: impl Fn(&[u8]) -> bool) {
    let texts = texts();
    assert!(texts.len() >= 200 && texts.len() == golden.tokens.len());
    for (number, text) in texts.iter().enumerate() {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(tokenizer.encode_bytes(text, true, false), golden.tokens[number], "{shown:?}");
        if is_comparable(text) {
            let plain = golden.plain[number].as_ref().unwrap_or(&golden.tokens[number]);
            assert_eq!(&tokenizer.encode_bytes(text, false, false), plain, "{shown:?} as plain text");
        }
        if let Some(added) = golden.added.get(number) {
            assert_eq!(&tokenizer.encode_bytes(text, true, true), added, "{shown:?} as a prompt");
        }
    }
}

fn texts() -> Vec<Vec<u8>> {
    let texts: Vec<Text> = vectors("texts.json");
    let bytes = |hex: &str| {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    };
    texts
        .iter()
        .map(|text| match text {
            Text::Written(text) => text.clone().into_bytes(),
            Text::Broken { hex } => bytes(hex),
        })
        .collect()
}

fn real(name: &str) -> Tokenizer {
    Tokenizer::from_gguf(model(name).header()).expect("a tokenizer")
}

/// The vocabulary that `make_unigram.py` has trained.
fn unigram() -> Gguf {
    Gguf::parse(&bytes("unigram.gguf")).expect("a vocabulary")
}

/// A file of nothing but this metadata, with one value replaced or added.
fn with(metadata: &Metadata, (key, value): (&str, Value)) -> Gguf {
    let mut writer = Writer::new();
    for (name, value) in metadata.iter().filter(|(name, _)| *name != key) {
        writer.metadata(name, value.clone()).expect("keys are unique");
    }
    writer.metadata(key, value).expect("keys are unique");
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("write to memory");
    Gguf::parse(&bytes).expect("parse what was written")
}

/// The vocabulary of all bytes and all pairs of bytes that `make_tokens.py` describes.
fn pairs() -> Metadata {
    let letters: Vec<char> = {
        let is_printable = |byte: &u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let mut others = 0x100..;
        let code = |byte: u32| if is_printable(&byte) { Some(byte) } else { others.next() };
        (0..256).filter_map(code).filter_map(char::from_u32).collect()
    };
    let pairs = || letters.iter().flat_map(|&a| letters.iter().map(move |&b| (a, b)));
    let singles = letters.iter().map(char::to_string);
    let tokens: Vec<String> = singles.chain(pairs().map(|(a, b)| format!("{a}{b}"))).collect();
    let merges: Vec<String> = pairs().map(|(a, b)| format!("{a} {b}")).collect();
    let mut writer = Writer::new();
    for (key, value) in [
        ("general.architecture", Value::from("llama")),
        ("tokenizer.ggml.model", Value::from("gpt2")),
        ("tokenizer.ggml.tokens", Value::from(tokens)),
        ("tokenizer.ggml.merges", Value::from(merges)),
    ] {
        writer.metadata(key, value).expect("keys are unique");
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("write to memory");
    Gguf::parse(&bytes).expect("parse what was written").metadata
}

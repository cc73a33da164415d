//! Tokenizers from made-up files: what is refused and how that is said, and the roles that tokens get by their names.

use engine::{Error, Fim, Tokenizer};
use gguf::{Gguf, Value, Writer};
use proptest::prelude::*;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

fn file(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Gguf {
    let mut writer = Writer::new();
    writer.metadata("general.architecture", "llama").expect("first");
    for (key, value) in entries {
        writer.metadata(key, value).expect("keys are unique");
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("write to memory");
    Gguf::parse(&bytes).expect("parse what was written")
}

/// A byte-level vocabulary with these tokens, every one of them single letters or added.
fn bpe(tokens: &[(&str, i32)]) -> Vec<(&'static str, Value)> {
    let texts: Vec<String> = tokens.iter().map(|(text, _)| (*text).to_owned()).collect();
    vec![
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", "gpt-2".into()),
        ("tokenizer.ggml.tokens", texts.into()),
        ("tokenizer.ggml.token_type", tokens.iter().map(|&(_, kind)| kind).collect::<Vec<_>>().into()),
        ("tokenizer.ggml.merges", vec!["a b".to_owned()].into()),
    ]
}

fn spm(tokens: &[(&str, i32)]) -> Vec<(&'static str, Value)> {
    let mut entries = bpe(tokens);
    entries.retain(|(key, _)| !key.ends_with(".model") && !key.ends_with(".merges"));
    entries.push(("tokenizer.ggml.model", "llama".into()));
    entries.push(("tokenizer.ggml.scores", vec![0.0f32; tokens.len()].into()));
    entries
}

fn unigram(tokens: &[(&str, i32)]) -> Vec<(&'static str, Value)> {
    let mut entries = spm(tokens);
    entries.retain(|(key, _)| !key.ends_with(".model"));
    entries.push(("tokenizer.ggml.model", "t5".into()));
    entries
}

fn load(entries: Vec<(&'static str, Value)>) -> Tokenizer {
    Tokenizer::from_gguf(&file(entries)).expect("a tokenizer")
}

/// The error of these entries after `change`.
fn refused(mut entries: Vec<(&'static str, Value)>, change: (&'static str, Option<Value>)) -> String {
    entries.retain(|(key, _)| *key != change.0);
    entries.extend(change.1.map(|value| (change.0, value)));
    Tokenizer::from_gguf(&file(entries)).expect_err("it is refused").to_string()
}

const LETTERS: &[(&str, i32)] = &[("a", NORMAL), ("b", NORMAL), ("ab", NORMAL), ("Ġ", NORMAL)];

#[test]
fn what_is_missing_or_wrong_is_named() {
    let cases: [(&'static str, Option<Value>, &str); 10] = [
        ("tokenizer.ggml.model", None, "it is missing"),
        (
            "tokenizer.ggml.model",
            Some("rwkv".into()),
            "\"rwkv\" is not supported; supported: gpt2, llama, bert, t5",
        ),
        ("tokenizer.ggml.model", Some(7u32.into()), "string"),
        ("tokenizer.ggml.pre", Some("gpt-9".into()), "\"gpt-9\" is not supported"),
        ("tokenizer.ggml.tokens", None, "it is missing"),
        ("tokenizer.ggml.tokens", Some(vec![1u32].into()), "must be an array of strings"),
        ("tokenizer.ggml.tokens", Some(Vec::<String>::new().into()), "it is empty"),
        ("tokenizer.ggml.token_type", Some(vec![1i32].into()), "each of the 4 tokens, got 1"),
        ("tokenizer.ggml.merges", None, "it is missing"),
        ("tokenizer.ggml.add_bos_token", Some(true.into()), "there is no `tokenizer.ggml.bos_token_id`"),
    ];
    for (key, value, problem) in cases {
        let error = refused(bpe(LETTERS), (key, value));
        assert!(error.contains(&format!("`{key}`")) && error.contains(problem), "{error}");
    }
    for (scores, problem) in
        [(vec![0.0f32; 3], "4 tokens, got 3"), (vec![0.0, f32::NAN, 0.0, 0.0], "entry 1")]
    {
        let error = refused(spm(LETTERS), ("tokenizer.ggml.scores", Some(scores.into())));
        assert!(error.contains("`tokenizer.ggml.scores`") && error.contains(problem), "{error}");
    }
}

#[test]
fn wordpiece_stands_between_two_tokens_that_must_be_there() {
    let tokens = [("[CLS]", CONTROL), ("[SEP]", CONTROL), ("[UNK]", CONTROL), ("▁a", NORMAL), ("b", NORMAL)];
    let ids = [("bos", 0u32), ("seperator", 1), ("unknown", 2)];
    let mut entries = bpe(&tokens);
    entries.retain(|(key, _)| !key.ends_with(".model") && !key.ends_with(".merges"));
    entries.push(("tokenizer.ggml.model", "bert".into()));
    let text = Tokenizer::from_gguf(&file(entries.clone())).unwrap_err().to_string();
    assert!(
        text.contains("`tokenizer.ggml.bos_token_id`: it is missing, and there is no token 101"),
        "{text}"
    );
    for (name, id) in ids {
        entries.push((Box::leak(format!("tokenizer.ggml.{name}_token_id").into_boxed_str()), id.into()));
    }
    let tokenizer = load(entries.clone());
    assert_eq!(tokenizer.encode("ab A[SEP] x", true, true), [0, 3, 4, 3, 1, 2, 1]);
    assert_eq!(tokenizer.encode("ab[SEP]", false, false), [3, 4, 2, 2, 2]);
    let text = refused(entries.clone(), ("tokenizer.ggml.seperator_token_id", Some(5u32.into())));
    assert!(
        text.contains("`tokenizer.ggml.seperator_token_id`: it must be one of the 5 tokens, got 5"),
        "{text}"
    );
    let text = refused(entries, ("tokenizer.ggml.normalizer.lowercase", Some(1u32.into())));
    assert!(text.contains("`tokenizer.ggml.normalizer.lowercase`"), "{text}");
}

#[test]
fn what_is_wrong_with_a_unigram_vocabulary_is_named() {
    let charsmap = "tokenizer.ggml.precompiled_charsmap";
    let long = "a".repeat(257);
    let cases: [(&'static str, Value, &str); 6] = [
        ("tokenizer.ggml.scores", vec![0.0, f32::INFINITY, 0.0, 0.0].into(), "entry 1 is not finite"),
        (
            "tokenizer.ggml.tokens",
            vec![long, "b".into(), "c".into(), "d".into()].into(),
            "at most 256 bytes, got 257",
        ),
        (charsmap, vec![1u32].into(), "it must be u8 or i8, got u32"),
        (charsmap, vec![1u8, 2].into(), "it is shorter than its own length"),
        (charsmap, vec![9u8, 0, 0, 0, 1, 1, 1, 1, 0].into(), "must be shorter than its 9 bytes, got 9"),
        ("tokenizer.ggml.remove_extra_whitespaces", 1u32.into(), "bool"),
    ];
    for (key, value, problem) in cases {
        let error = refused(unigram(LETTERS), (key, Some(value)));
        assert!(error.contains(&format!("`{key}`")) && error.contains(problem), "{error}");
    }
}

#[test]
fn a_unigram_vocabulary_ends_a_text_and_begins_it_only_if_told_so() {
    let tokens = [
        ("<pad>", CONTROL),
        ("</s>", CONTROL),
        ("<unk>", UNKNOWN),
        ("▁a", NORMAL),
        ("a", NORMAL),
        ("<s>", CONTROL),
    ];
    let mut entries = unigram(&tokens);
    assert_eq!(load(entries.clone()).encode("a a", true, true), [4, 3, 1]);
    assert_eq!(load(entries.clone()).encode("a</s>a", true, false), [4, 1, 4]);
    assert_eq!(load(entries.clone()).encode("é</s>", false, false), [2], "only text");
    for (key, value) in
        [("bos_token_id", 5u32.into()), ("add_bos_token", true.into()), ("add_space_prefix", true.into())]
    {
        entries.push((Box::leak(format!("tokenizer.ggml.{key}").into_boxed_str()), value));
    }
    let tokenizer = load(entries.clone());
    assert_eq!(tokenizer.encode("a", true, true), [5, 3, 1]);
    assert_eq!(tokenizer.decode(&[5, 3, 3, 1]), "a a");
    // What a table says is believed only as far as it goes.
    entries
        .push(("tokenizer.ggml.precompiled_charsmap", vec![4u8, 0, 0, 0, 0, 255, 255, 255, b'x', 0].into()));
    assert_eq!(load(entries).encode("a", true, true), [5, 3, 1]);
}

#[test]
fn the_error_blames_the_key_and_not_the_request() {
    let mut entries = bpe(LETTERS);
    entries.retain(|(key, _)| !key.ends_with(".pre"));
    entries.push(("tokenizer.ggml.pre", "gpt-9".into()));
    let error = Tokenizer::from_gguf(&file(entries)).expect_err("it is refused");
    assert!(matches!(&error, Error::InvalidKey { key, .. } if key == "tokenizer.ggml.pre"), "{error}");
}

#[test]
fn a_file_without_a_pretokenizer_gets_the_default_one() {
    let mut entries = bpe(LETTERS);
    entries.retain(|(key, _)| !key.ends_with(".pre"));
    assert_eq!(load(entries).encode("ab b", false, false), [2, 3, 1]);
}

#[test]
fn a_special_token_outside_the_vocabulary_is_ignored() {
    let mut entries = bpe(LETTERS);
    entries.push(("tokenizer.ggml.eos_token_id", 4u32.into()));
    entries.push(("tokenizer.ggml.bos_token_id", 3u32.into()));
    let tokenizer = load(entries);
    assert_eq!((tokenizer.eos(), tokenizer.bos()), (None, Some(3)));
}

#[test]
fn tokens_that_end_a_generation_are_known_by_key_and_by_name() {
    let mut entries =
        bpe(&[("a", NORMAL), ("<|im_end|>", NORMAL), ("<eos>", CONTROL), ("x", NORMAL), ("</s>", NORMAL)]);
    entries.push(("tokenizer.ggml.eos_token_id", 2u32.into()));
    entries.push(("tokenizer.ggml.eot_token_id", 3u32.into()));
    let tokenizer = load(entries);
    let eog: Vec<bool> = (0..5).map(|token| tokenizer.is_eog(token)).collect();
    assert_eq!(eog, [false, true, true, true, false]);
    assert_eq!(
        tokenizer.piece(1),
        b"",
        "a token with such a role is a control token, whatever the file says"
    );
    assert_eq!(tokenizer.piece_with_special(1), b"<|im_end|>");
    assert_eq!(tokenizer.encode("a<|im_end|>", true, false), [0, 1]);
}

#[test]
fn a_message_of_several_does_not_end_a_generation() {
    let names = ["<|return|>", "<|call|>", "<|end|>", "<|channel|>"];
    let tokenizer = load(bpe(&names.map(|name| (name, CONTROL))));
    assert_eq!([0, 1, 2, 3].map(|token| tokenizer.is_eog(token)), [true, true, false, false]);
    assert_eq!(tokenizer.piece(3), b"<|channel|>", "a reader of the reply must see it");
    let tokenizer = load(bpe(&[("<|end|>", CONTROL)]));
    assert!(tokenizer.is_eog(0), "but alone it does");
}

#[test]
fn the_tokens_around_a_gap_are_known_by_key_and_by_name() {
    let tokens = [("<|fim_prefix|>", CONTROL), ("<|fim_suffix|>", CONTROL), ("m", NORMAL)];
    assert_eq!(load(bpe(&tokens)).fim(), None, "one is missing");
    let mut entries = bpe(&tokens);
    entries.push(("tokenizer.ggml.middle_token_id", 2u32.into()));
    assert_eq!(load(entries).fim(), Some(Fim { prefix: 0, suffix: 1, middle: 2 }));
}

#[test]
fn phi3_drops_the_whitespace_after_its_special_tokens() {
    let tokens = [("a", NORMAL), ("Ċ", NORMAL), ("<|user|>", CONTROL), ("<|endoftext|>", CONTROL)];
    let mut entries = bpe(&tokens);
    assert_eq!(load(entries.clone()).encode("<|user|>\na", true, false), [2, 1, 0]);
    entries.push(("general.name", "Phi-3 Mini".into()));
    assert_eq!(load(entries.clone()).encode("<|user|>\na", true, false), [2, 0]);
    assert_eq!(load(entries).encode("<|endoftext|>\na", true, false), [3, 1, 0]);
}

#[test]
fn sentencepiece_begins_with_bos_and_a_space_unless_told_otherwise() {
    let tokens = [
        ("<unk>", UNKNOWN),
        ("<s>", CONTROL),
        ("</s>", CONTROL),
        ("▁a", NORMAL),
        ("a", NORMAL),
        ("▁", NORMAL),
    ];
    let mut entries = spm(&tokens);
    let tokenizer = load(entries.clone());
    assert_eq!(tokenizer.encode("a", true, true), [1, 3]);
    assert_eq!(tokenizer.encode("<s>a</s>a", true, true), [1, 3, 2, 3], "also after a token");
    assert_eq!(tokenizer.encode("aé", true, false), [3, 0, 0], "no byte tokens: unknown");
    assert!(tokenizer.is_eog(2));
    entries.push(("tokenizer.ggml.add_bos_token", false.into()));
    entries.push(("tokenizer.ggml.add_eos_token", true.into()));
    entries.push(("tokenizer.ggml.add_space_prefix", false.into()));
    assert_eq!(load(entries).encode("a", true, true), [4, 2]);
}

#[test]
fn bytes_outside_the_vocabulary_are_spelled_or_left_out() {
    let tokens = [("a", NORMAL), ("<0xC3>", BYTE), ("<0xA9>", BYTE), ("\n", USER_DEFINED)];
    let mut entries = spm(&tokens);
    entries.push(("tokenizer.ggml.add_space_prefix", false.into()));
    entries.push(("tokenizer.ggml.add_bos_token", false.into()));
    let tokenizer = load(entries);
    assert_eq!(tokenizer.encode("aé\n", false, true), [0, 1, 2, 3]);
    assert_eq!(tokenizer.decode(&[0, 1, 2, 3]), "aé\n");
    assert_eq!(load(bpe(LETTERS)).encode("a!b", false, false), [0, 1], "byte-level: as in the reference");
}

/// A table of these units and texts, with a length that fits.
fn charsmap(mut bytes: Vec<u8>) -> Value {
    let units = (bytes.len() as u32 / 2) & !3;
    bytes.splice(0..0, units.to_le_bytes());
    Value::from(bytes)
}

/// Any value for a key of the tokenizer.
fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u32>().prop_map(Value::from),
        (-3i32..9).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        "gpt2|llama|bert|t5|gpt-2|default|[ -~]{0,8}".prop_map(Value::from),
        proptest::collection::vec("[abĠ▁ <>|/s]{0,5}|</s>|<\\|end\\|>|<0x[0-9A-F]{2}>|\\PC{0,3}", 0..9)
            .prop_map(Value::from),
        proptest::collection::vec(any::<f32>(), 0..9).prop_map(Value::from),
        proptest::collection::vec(-1i32..8, 0..9).prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(charsmap),
    ]
}

const KEYS: [&str; 12] = [
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.remove_extra_whitespaces",
    "tokenizer.ggml.precompiled_charsmap",
];

proptest! {
    #[test]
    fn a_wrong_value_is_an_error_or_harmless(
        kind in 0..3usize,
        changes in proptest::collection::vec((0..KEYS.len(), values()), 1..4),
        text in "[ab<>|/s ▁]{0,20}|\\PC{0,20}",
    ) {
        let mut entries = match kind {
            0 => bpe(LETTERS),
            1 => spm(LETTERS),
            _ => unigram(LETTERS),
        };
        for (key, value) in changes {
            entries.retain(|(found, _)| *found != KEYS[key]);
            entries.push((KEYS[key], value));
        }
        if let Ok(tokenizer) = Tokenizer::from_gguf(&file(entries)) {
            for parse_special in [false, true] {
                let tokens = tokenizer.encode(&text, parse_special, true);
                prop_assert!(tokens.iter().all(|&token| (token as usize) < tokenizer.vocab_size()));
                tokenizer.decode(&tokens);
            }
        }
    }
}

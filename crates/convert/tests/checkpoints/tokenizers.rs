//! What is made of tokenizers, and that the engine cuts texts with them.

use engine::Engine;
use gguf::Value as Entry;
use serde_json::{Map, Value, json};

use crate::fixture::{Checkpoint, VOCAB, byte_tokenizer};
use crate::reference::decoders;

/// As Gemma's and Llama 2's are written.
fn sentencepiece(prepends: bool) -> Value {
    let mut vocab = Map::new();
    for text in ["<unk>", "<s>", "</s>"] {
        vocab.insert(text.to_owned(), json!(vocab.len()));
    }
    for byte in 0..=127 {
        vocab.insert(format!("<0x{byte:02X}>"), json!(vocab.len()));
    }
    for text in ["▁", "a", "b", "c", "▁a", "ab", "▁ab", "bc"] {
        vocab.insert(text.to_owned(), json!(vocab.len()));
    }
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let steps = if prepends { vec![prepend, replace] } else { vec![replace] };
    json!({
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": true},
            {"id": 1, "content": "<s>", "special": true},
            {"id": 2, "content": "</s>", "special": true},
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]},
        "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "vocab": vocab,
            "merges": ["b c", "▁ a", "a b", "▁a b"]}
    })
}

/// A llama with other files.
fn with(edit: impl FnOnce(&mut Checkpoint)) -> Checkpoint {
    let mut checkpoint = decoders()[0].checkpoint();
    edit(&mut checkpoint);
    checkpoint
}

fn key(checkpoint: &Checkpoint, key: &str) -> Option<Entry> {
    checkpoint.convert(None).unwrap().open().header().metadata.get(key).cloned()
}

#[test]
fn byte_pairs_keep_ids_merges_and_roles() {
    let checkpoint = decoders()[0].checkpoint();
    let made = checkpoint.convert(None).unwrap();
    let metadata = made.open().header().metadata.clone();
    let text = |key: &str| metadata.get(key).unwrap().as_str().unwrap().to_owned();
    assert_eq!(
        (text("tokenizer.ggml.model"), text("tokenizer.ggml.pre")),
        ("gpt2".into(), "llama-bpe".into())
    );
    assert_eq!(text("tokenizer.chat_template"), "{{ messages }}");
    assert_eq!(metadata.strings("tokenizer.ggml.merges").unwrap().unwrap(), ["h e", "Ġ t", "Ġt he", "i n"]);
    let kinds = metadata.integers("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!((kinds.len(), &kinds[258..]), (VOCAB, [1, 1, 3, 3, 4, 5].as_slice()));
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap()[263], "[PAD263]");
    assert_eq!(metadata.get("tokenizer.ggml.eos_token_id"), Some(&261u32.into()));
    let tokenizer = made.engine().tokenizer();
    let bytes = |byte: u8| u32::from(byte);
    assert_eq!(tokenizer.encode("the in", false, false), [bytes(b't'), 256, bytes(b' '), 259]);
}

#[test]
fn sentencepiece_merges_in_the_same_order() {
    for (prepends, expected) in [(true, ["▁a", "bc"]), (false, ["a", "bc"])] {
        let checkpoint = with(|checkpoint| {
            checkpoint.put("tokenizer.json", sentencepiece(prepends));
            checkpoint.put(
                "tokenizer_config.json",
                json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": false}),
            );
        });
        let made = checkpoint.convert(None).unwrap();
        let metadata = made.open().header().metadata.clone();
        assert_eq!(metadata.get("tokenizer.ggml.add_bos_token"), Some(&false.into()));
        assert_eq!(metadata.get("tokenizer.ggml.eos_token_id"), Some(&2u32.into()));
        let kinds = metadata.integers("tokenizer.ggml.token_type").unwrap().unwrap();
        assert_eq!(&kinds[..5], [2, 3, 3, 6, 6]);
        // "abc": b and c merge first. With a space before, "▁a" comes next.
        let ids = made.engine().tokenizer().encode("abc", false, false);
        let vocab = ["▁", "a", "b", "c", "▁a", "ab", "▁ab", "bc"];
        let said: Vec<&str> = ids.iter().map(|&id| vocab[id as usize - 131]).collect();
        assert_eq!(said, expected);
    }
}

#[test]
fn the_frame_of_a_text_tells_whether_it_begins_with_a_mark() {
    let named = json!({"bos_token": "<|begin|>"});
    let adds = |tokenizer: Value| {
        let checkpoint = with(|checkpoint| {
            checkpoint.put("tokenizer.json", tokenizer);
            checkpoint.put("tokenizer_config.json", named.clone());
        });
        key(&checkpoint, "tokenizer.ggml.add_bos_token")
    };
    assert_eq!(adds(byte_tokenizer()), Some(true.into()));
    let mut plain = byte_tokenizer();
    plain["post_processor"] = json!({"type": "ByteLevel"});
    assert_eq!(adds(plain), Some(false.into()));
    let mut several = byte_tokenizer();
    several["post_processor"] =
        json!({"type": "Sequence", "processors": [several["post_processor"].clone()]});
    assert_eq!(adds(several), Some(true.into()));
}

#[test]
fn a_template_may_lie_in_a_file_or_have_a_name() {
    let template = |edit: &dyn Fn(&mut Checkpoint)| key(&with(edit), "tokenizer.chat_template");
    let named =
        json!({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]});
    assert_eq!(
        template(&|checkpoint| checkpoint.put("tokenizer_config.json", named.clone())),
        Some("d".into())
    );
    let file = |checkpoint: &mut Checkpoint| {
        checkpoint.files.insert("chat_template.jinja".to_owned(), b"from a file".to_vec());
    };
    assert_eq!(template(&file), Some("from a file".into()));
    assert_eq!(template(&|checkpoint| checkpoint.put("tokenizer_config.json", json!({}))), None);
}

#[test]
fn every_known_way_to_cut_a_text_has_its_name() {
    let cut = |steps: Value| {
        let checkpoint = with(|checkpoint| {
            let mut tokenizer = byte_tokenizer();
            tokenizer["pre_tokenizer"] = steps.clone();
            checkpoint.put("tokenizer.json", tokenizer);
        });
        key(&checkpoint, "tokenizer.ggml.pre").unwrap().as_str().unwrap().to_owned()
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false});
    assert_eq!(cut(bytes.clone()), "gpt-2");
    let digits = json!({"type": "Digits", "individual_digits": true});
    assert_eq!(cut(json!({"type": "Sequence", "pretokenizers": [digits, bytes.clone()]})), "smollm");
    // Words by the case of their letters, as OpenAI's newer vocabularies have them, and Mistral's after them.
    let letters = |upper: &str, lower: &str| {
        let class =
            |first: &str| format!(r"[\p{{{first}}}\p{{Lm}}\p{{Lo}}\p{{M}}]").replace("Lu", r"Lu}\p{Lt");
        format!(r"[^\r\n\p{{L}}\p{{N}}]?{}{upper}{}{lower}", class("Lu"), class("Ll"))
    };
    let shared = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let split = |pattern: String| {
        let plain = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
        let steps = [json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}), plain];
        cut(json!({"type": "Sequence", "pretokenizers": steps}))
    };
    let ends = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?";
    let words = |ends: &str| format!("{}{ends}|{}{ends}", letters("*", "+"), letters("+", "*"));
    assert_eq!(split(format!(r"{}|\p{{N}}{{1,3}}|{shared}", words(ends))), "gpt-4o");
    assert_eq!(split(format!(r"{}|\p{{N}}|{shared}", words(""))), "tekken");
}

#[test]
fn the_pieces_of_a_model_file_keep_their_scores() {
    // ModelProto: pieces of text, score and type; trained as byte pairs; a space before a text.
    let mut bytes = Vec::new();
    let texts = [("<unk>", 2u8), ("<s>", 3), ("</s>", 3), ("▁", 1), ("a", 1), ("▁a", 1), ("<0x41>", 6)];
    for (at, (text, kind)) in texts.iter().enumerate() {
        let mut piece = vec![0x0a, text.len() as u8];
        piece.extend(text.as_bytes());
        piece.push(0x15);
        piece.extend((-(at as f32)).to_le_bytes());
        piece.extend([0x18, *kind]);
        bytes.extend([0x0a, piece.len() as u8]);
        bytes.extend(piece);
    }
    bytes.extend([0x12, 2, 0x18, 2]);
    bytes.extend([0x1a, 2, 0x18, 0]);
    let checkpoint = with(|checkpoint| {
        checkpoint.files.remove("tokenizer.json");
        checkpoint.files.insert("tokenizer.model".to_owned(), bytes.clone());
        let decoder = json!({"7": {"content": "<tool>", "special": false}});
        checkpoint.put("tokenizer_config.json", json!({"bos_token": "<s>", "added_tokens_decoder": decoder}));
    });
    let made = checkpoint.convert(None).unwrap();
    let metadata = made.open().header().metadata.clone();
    assert_eq!(metadata.f32s("tokenizer.ggml.scores").unwrap().unwrap()[..3], [0.0, -1.0, -2.0]);
    let kinds = metadata.integers("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!(kinds[..9], [2, 3, 3, 1, 1, 1, 6, 4, 5]);
    assert_eq!(metadata.get("tokenizer.ggml.add_space_prefix"), Some(&false.into()));
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap()[7], "<tool>");
    assert!(made.engine().tokenizer().encode("a", false, false).contains(&4));
    // Trained otherwise, or no such file at all.
    let refused = |bytes: Vec<u8>| {
        with(|checkpoint| {
            checkpoint.files.remove("tokenizer.json");
            checkpoint.files.insert("tokenizer.model".to_owned(), bytes);
        })
        .refused()
    };
    let mut unigram = bytes.clone();
    let end = unigram.len();
    unigram[end - 5] = 1;
    assert!(refused(unigram).contains("tokenizer.model: it is no model of byte pairs"));
    assert!(refused(b"\x0a\xff".to_vec()).contains("it is no SentencePiece model"));
    assert!(refused(Vec::new()).contains("it has no pieces"));
}

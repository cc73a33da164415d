//! The vocabulary that all the small models share.

use gguf::{Value, Writer};

use super::VOCAB;

/// A SentencePiece vocabulary: three control tokens, the bytes, and a few pieces.
pub fn write(writer: &mut Writer) {
    let mut tokens: Vec<(String, i32)> =
        [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| (text.to_owned(), kind)).into();
    tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    tokens.push(("\u{2581}".to_owned(), 1));
    tokens.extend(('a'..='z').map(|letter| (letter.to_string(), 1)));
    tokens.extend([("\u{2581}a".to_owned(), 1), ("ab".to_owned(), 1)]);
    assert_eq!(tokens.len(), VOCAB);
    let scores: Vec<f32> = (0..VOCAB).map(|at| -(at as f32)).collect();
    let kinds: Vec<i32> = tokens.iter().map(|(_, kind)| *kind).collect();
    let texts: Vec<String> = tokens.into_iter().map(|(text, _)| text).collect();
    let entries: [(&str, Value); 6] = [
        ("tokenizer.ggml.model", "llama".into()),
        ("tokenizer.ggml.tokens", texts.into()),
        ("tokenizer.ggml.scores", scores.into()),
        ("tokenizer.ggml.token_type", kinds.into()),
        ("tokenizer.ggml.bos_token_id", 1u32.into()),
        ("tokenizer.ggml.eos_token_id", 2u32.into()),
    ];
    for (key, value) in entries {
        writer.metadata(key, value).expect("keys are unique");
    }
}

//! tokenizer.json: byte pairs over an alphabet of bytes, byte pairs as SentencePiece makes them, and WordPiece.

use std::collections::HashMap;

use serde_json::Value;

use super::{Kind, Token, Vocabulary};
use crate::Error;
use crate::checkpoint::Entries;
use crate::json::{Json, kind};

/// What stands for a space in SentencePiece's vocabularies, and before a word in those of BERT.
const SPACE: &str = "\u{2581}";
/// Below any rank: a piece that no merge makes is never preferred.
const NEVER_MERGED: f32 = -1e9;

/// How a text is cut before it is merged, and what a GGUF calls that.
const CUTS: [(&[&str], &str); 6] = [
    (&["bytes"], "gpt-2"),
    (&["digits", "bytes"], "smollm"),
    (
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        "llama-bpe",
    ),
    (
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        "qwen2",
    ),
    (
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        "gpt-4o",
    ),
    (
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        "tekken",
    ),
];

/// Whether it was made from a SentencePiece model.
pub(super) fn is_sentencepiece(json: &Json) -> Result<bool, Error> {
    let model = model(json)?;
    Ok(class(&model)? == "BPE" && model.flag("byte_fallback")?.unwrap_or(false))
}

/// `rows` bounds the ids.
pub(super) fn read(json: &Json, rows: u64) -> Result<Vocabulary, Error> {
    let model = model(json)?;
    let tokens = tokens(&model, rows)?;
    match class(&model)? {
        "BPE" if is_sentencepiece(json)? => sentencepiece(json, &model, tokens),
        "BPE" => byte_pairs(json, &model, tokens),
        "WordPiece" => word_pieces(json, &model, tokens),
        other => Err(model.wrong("type", &format!("must be BPE or WordPiece, got {other:?}"))),
    }
}

fn model(json: &Json) -> Result<Json, Error> {
    json.object("model")?.ok_or_else(|| json.missing("model"))
}

/// Old files do not say it.
fn class(model: &Json) -> Result<&str, Error> {
    let guess = if model.get("merges").is_some() { "BPE" } else { "WordPiece" };
    Ok(model.text("type")?.unwrap_or(guess))
}

/// By id. Where ids leave holes, there are tokens that nobody says.
fn tokens(model: &Json, rows: u64) -> Result<Vec<Token>, Error> {
    let vocab = model.object("vocab")?.ok_or_else(|| model.missing("vocab"))?;
    let mut tokens: Vec<Option<Token>> = Vec::with_capacity(vocab.map.len());
    for (text, id) in &vocab.map {
        let at = id.as_u64().filter(|&id| id < rows.max(vocab.map.len() as u64));
        let at = at.and_then(|id| usize::try_from(id).ok()).ok_or_else(|| {
            vocab.wrong(
                text,
                &format!("must be an id below {rows}, the rows of the embedding, got {}", kind(id)),
            )
        })?;
        if at >= tokens.len() {
            tokens.resize(at + 1, None);
        }
        let token = Token { text: text.clone(), kind: Kind::Normal, score: NEVER_MERGED };
        if let Some(first) = tokens[at].replace(token) {
            return Err(vocab.wrong(text, &format!("has the id {at}, which {:?} has too", first.text)));
        }
    }
    let hole = |at: usize| Token { text: format!("[PAD{at}]"), kind: Kind::Unused, score: NEVER_MERGED };
    Ok(tokens.into_iter().enumerate().map(|(at, token)| token.unwrap_or_else(|| hole(at))).collect())
}

fn byte_pairs(json: &Json, model: &Json, tokens: Vec<Token>) -> Result<Vocabulary, Error> {
    for step in steps(json, "normalizer", "normalizers")? {
        // Composing letters is what most texts are already.
        if class_of(&step) != "NFC" {
            return Err(json.wrong("normalizer", &format!("must be NFC or none, got {:?}", class_of(&step))));
        }
    }
    let merges: Vec<String> =
        merges(model)?.into_iter().map(|(left, right)| format!("{left} {right}")).collect();
    let keys: Entries =
        vec![("ggml.pre".to_owned(), cuts(json)?.into()), ("ggml.merges".to_owned(), merges.into())];
    Ok(Vocabulary { model: "gpt2", tokens, keys })
}

/// A merge of low rank goes first; a piece of high score is merged first. So a piece's score is the rank of the first
/// merge that makes it, below zero.
fn sentencepiece(json: &Json, model: &Json, mut tokens: Vec<Token>) -> Result<Vocabulary, Error> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in merges(model)?.into_iter().enumerate() {
        ranks.entry(left + &right).or_insert(rank);
    }
    for token in &mut tokens {
        if let Some(&rank) = ranks.get(&token.text) {
            token.score = -(rank as f32);
        }
        let is_byte = token.text.len() == 6 && token.text.starts_with("<0x") && token.text.ends_with('>');
        if is_byte {
            token.kind = Kind::Byte;
        }
    }
    if let Some(unknown) = model.text("unk_token")?
        && let Some(token) = tokens.iter_mut().find(|token| token.text == unknown)
    {
        token.kind = Kind::Unknown;
    }
    let keys = vec![
        ("ggml.pre".to_owned(), "default".into()),
        ("ggml.add_space_prefix".to_owned(), adds_space(json)?.into()),
    ];
    Ok(Vocabulary { model: "llama", tokens, keys })
}

/// Whether a text gets a space before its first word.
fn adds_space(json: &Json) -> Result<bool, Error> {
    let mut adds = false;
    for step in steps(json, "normalizer", "normalizers")? {
        match class_of(&step) {
            "Prepend" => adds = true,
            "Replace" => {}
            other => {
                return Err(json.wrong("normalizer", &format!("must be Prepend and Replace, got {other:?}")));
            }
        }
    }
    for step in steps(json, "pre_tokenizer", "pretokenizers")? {
        match class_of(&step) {
            "Metaspace" => {
                let scheme = step.get("prepend_scheme").and_then(Value::as_str);
                let flag = step.get("add_prefix_space").and_then(Value::as_bool);
                adds |= scheme.map_or(flag.unwrap_or(true), |scheme| scheme != "never");
            }
            // Spaces are marks by then, so that nothing is cut.
            "Split" => {}
            other => {
                return Err(json.wrong("pre_tokenizer", &format!("must be Metaspace or none, got {other:?}")));
            }
        }
    }
    Ok(adds)
}

/// What continues a word is marked there; here, what begins one is.
fn word_pieces(json: &Json, model: &Json, mut tokens: Vec<Token>) -> Result<Vocabulary, Error> {
    let mark = model.text("continuing_subword_prefix")?.unwrap_or("##").to_owned();
    for token in tokens.iter_mut().filter(|token| token.kind == Kind::Normal) {
        token.text = match token.text.strip_prefix(&mark) {
            Some(rest) => rest.to_owned(),
            None => format!("{SPACE}{}", token.text),
        };
    }
    let mut keys: Entries = Vec::new();
    for step in steps(json, "normalizer", "normalizers")? {
        if class_of(&step) != "BertNormalizer" {
            return Err(
                json.wrong("normalizer", &format!("must be BertNormalizer, got {:?}", class_of(&step)))
            );
        }
        for key in ["lowercase", "strip_accents"] {
            if let Some(flag) = step.get(key).and_then(Value::as_bool) {
                keys.push((format!("ggml.normalizer.{key}"), flag.into()));
            }
        }
    }
    Ok(Vocabulary { model: "bert", tokens, keys })
}

/// Pairs, in the order in which they are merged: `"a b"`, or `["a", "b"]` in newer files.
fn merges(model: &Json) -> Result<Vec<(String, String)>, Error> {
    let merges = model.array("merges")?.ok_or_else(|| model.missing("merges"))?;
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        Value::Array(items) => match items.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    };
    let wrong =
        |merge: &Value| model.wrong("merges", &format!("must be pairs of tokens, got {}", kind(merge)));
    merges.iter().map(|merge| pair(merge).ok_or_else(|| wrong(merge))).collect()
}

/// The name of how the text is cut. One that is not known would make wrong tokens of every text, so it is refused.
fn cuts(json: &Json) -> Result<&'static str, Error> {
    let mut cuts = Vec::new();
    for step in steps(json, "pre_tokenizer", "pretokenizers")? {
        let flag = |key: &str, default: bool| step.get(key).and_then(Value::as_bool).unwrap_or(default);
        match class_of(&step) {
            "Split" => {
                let regex =
                    step.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
                cuts.push(regex.unwrap_or_default().to_owned());
            }
            "Digits" if flag("individual_digits", false) => cuts.push("digits".to_owned()),
            "ByteLevel" if flag("add_prefix_space", true) => {
                return Err(json.wrong("pre_tokenizer", "must not add a space before a text"));
            }
            "ByteLevel" if flag("use_regex", true) => cuts.push("bytes".to_owned()),
            "ByteLevel" => {}
            other => {
                return Err(
                    json.wrong("pre_tokenizer", &format!("has the step {other:?}, which is not known"))
                );
            }
        }
    }
    let known = CUTS.iter().find(|(steps, _)| cuts.iter().map(String::as_str).eq(steps.iter().copied()));
    known.map(|(_, name)| *name).ok_or_else(|| {
        let names: Vec<&str> = CUTS.iter().map(|(_, name)| *name).collect();
        let problem = format!("cuts texts as no known vocabulary does; known: {}", names.join(", "));
        json.wrong("pre_tokenizer", &problem)
    })
}

/// The steps of a pipeline: one, or those of a sequence.
fn steps(json: &Json, key: &str, inner: &str) -> Result<Vec<serde_json::Map<String, Value>>, Error> {
    let Some(step) = json.object(key)? else { return Ok(Vec::new()) };
    if class_of(&step.map) != "Sequence" {
        return Ok(vec![step.map]);
    }
    let steps = step.array(inner)?.ok_or_else(|| step.missing(inner))?;
    let object =
        |value: &Value| value.as_object().cloned().ok_or_else(|| step.wrong(inner, "must have objects only"));
    steps.iter().map(object).collect()
}

fn class_of(step: &serde_json::Map<String, Value>) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

//! Which tokens have a role, whether texts begin and end with them, and the template of conversations.

use serde_json::Value;

use super::Vocabulary;
use crate::Error;
use crate::checkpoint::{Checkpoint, Entries, MAX_CONFIG};
use crate::json::{Json, kind};
use crate::source::read_text;

/// Roles here, and what a GGUF calls them. The misspelling is the format's.
const ROLES: [(&str, &str); 7] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    ("sep", "seperator"),
    ("pad", "padding"),
    ("cls", "cls"),
    ("mask", "mask"),
];
/// The longest known chat templates have 30 KB.
const MAX_TEMPLATE: u64 = 1 << 20;

/// `json` is tokenizer.json, if there is one.
pub(super) fn read(
    checkpoint: &Checkpoint<'_>,
    json: Option<&Json>,
    vocabulary: &Vocabulary,
) -> Result<Entries, Error> {
    let config = checkpoint.json("tokenizer_config.json", MAX_CONFIG)?;
    let map = checkpoint.json("special_tokens_map.json", MAX_CONFIG)?;
    let mut ids: Vec<(&str, u32)> = Vec::new();
    for (role, _) in ROLES {
        let named = [&config, &map].into_iter().flatten().find_map(|json| token(json, role));
        let id = match named.and_then(|text| vocabulary.id(&text)) {
            Some(id) => Some(id),
            None => numbered(checkpoint, role, vocabulary)?,
        };
        ids.extend(id.map(|id| (role, id)));
    }
    if vocabulary.model == "bert" {
        // BERT calls what begins and ends a text by other names.
        for (role, stands_for) in [("bos", "cls"), ("eos", "sep")] {
            let id = ids.iter().find(|(known, _)| *known == stands_for).map(|(_, id)| *id);
            ids.retain(|(known, _)| *known != role);
            ids.extend(id.map(|id| (role, id)));
        }
    }
    let mut entries = Entries::new();
    for (role, gguf) in ROLES {
        if let Some((_, id)) = ids.iter().find(|(known, _)| *known == role) {
            entries.push((format!("ggml.{gguf}_token_id"), (*id).into()));
        }
    }
    for (role, at) in [("bos", End::First), ("eos", End::Last)] {
        let key = format!("add_{role}_token");
        let said = match &config {
            Some(config) => config.flag(&key)?,
            None => None,
        };
        let text = [&config, &map].into_iter().flatten().find_map(|json| token(json, role));
        let shown = text.and_then(|text| Some(is_in_frame(json?, &text, at)));
        if let Some(adds) = said.or(shown).filter(|_| vocabulary.model != "bert") {
            entries.push((format!("ggml.{key}"), adds.into()));
        }
    }
    if let Some(template) = chat_template(checkpoint, config.as_ref())? {
        entries.push(("chat_template".to_owned(), template.into()));
    }
    Ok(entries)
}

/// `bos_token` and the like: a text, or an object with one.
fn token(json: &Json, role: &str) -> Option<String> {
    let value = json.get(&format!("{role}_token"))?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// `eos_token_id` and the like of config.json: an id, or a list of which the first counts.
fn numbered(checkpoint: &Checkpoint<'_>, role: &str, vocabulary: &Vocabulary) -> Result<Option<u32>, Error> {
    let key = format!("{role}_token_id");
    // Below zero means that there is none.
    let value = checkpoint.config.get(&key).filter(|value| value.as_i64().is_none_or(|id| id >= 0));
    let Some(value) = value else { return Ok(None) };
    let id = value.as_u64().or_else(|| value.as_array()?.first()?.as_u64());
    match id.filter(|&id| id < vocabulary.tokens.len() as u64) {
        Some(id) => Ok(u32::try_from(id).ok()),
        None => {
            let problem = format!("must be an id below {}, got {}", vocabulary.tokens.len(), kind(value));
            Err(checkpoint.config.wrong(&key, &problem))
        }
    }
}

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// Whether the frame that tokenizer.json puts around a text has that token at that end.
fn is_in_frame(json: &Json, token: &str, end: End) -> bool {
    let Some(processor) = json.get("post_processor") else { return false };
    let steps = processor.get("processors").and_then(Value::as_array);
    let steps = steps.map_or_else(|| std::slice::from_ref(processor), Vec::as_slice);
    let frames = steps.iter().filter_map(|step| step.get("single")?.as_array());
    let is_at_the_end = |frame: &Vec<Value>| {
        let edge = match end {
            End::First => frame.first(),
            End::Last => frame.last(),
        };
        edge.and_then(|edge| edge.get("SpecialToken")?.get("id")?.as_str()) == Some(token)
    };
    frames.into_iter().any(is_at_the_end)
}

/// A file of its own, or in tokenizer_config.json: one, or several with names.
fn chat_template(checkpoint: &Checkpoint<'_>, config: Option<&Json>) -> Result<Option<String>, Error> {
    const FILE: &str = "chat_template.jinja";
    if let Some(input) = checkpoint.file(FILE) {
        let text = String::from_utf8(read_text(FILE, &input.path, MAX_TEMPLATE)?);
        return text.map(Some).map_err(|_| Error::file(FILE, "it is not UTF-8"));
    }
    let Some(config) = config else { return Ok(None) };
    let text = match config.get("chat_template") {
        None => return Ok(None),
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Array(named)) => {
            let is_default = |item: &&Value| item.get("name").and_then(Value::as_str) == Some("default");
            let chosen = named.iter().find(is_default).or(named.first());
            chosen.and_then(|item| item.get("template")?.as_str())
        }
        Some(_) => None,
    };
    let problem = "must be a text, or a list of objects with a `name` and a `template`";
    text.map(|text| Some(text.to_owned())).ok_or_else(|| config.wrong("chat_template", problem))
}

//! Tokens that were added to a vocabulary: whole, never merged, and some of them never part of a text.

use serde_json::Value;

use super::{Kind, Token, Vocabulary};
use crate::Error;
use crate::checkpoint::{Checkpoint, MAX_CONFIG};
use crate::json::Json;

/// One of them.
struct Added {
    id: u64,
    text: String,
    /// A mark for the model, no text.
    is_special: bool,
}

/// Puts them in their places. `rows` bounds the ids: what has no row in the embedding cannot be said.
pub(super) fn apply(
    checkpoint: &Checkpoint<'_>,
    json: Option<&Json>,
    vocabulary: &mut Vocabulary,
    rows: u64,
) -> Result<(), Error> {
    let mut all = match json {
        Some(json) => listed(json)?,
        None => Vec::new(),
    };
    if let (None, Some(config)) = (json, checkpoint.json("tokenizer_config.json", MAX_CONFIG)?) {
        all.extend(decoder(&config)?);
    }
    all.retain(|added| added.id < rows);
    all.sort_by_key(|added| added.id);
    for added in all {
        // Below the rows of an embedding that was uploaded, so no larger than that.
        let at = added.id as usize;
        while vocabulary.tokens.len() <= at {
            let text = format!("[PAD{}]", vocabulary.tokens.len());
            vocabulary.tokens.push(Token { text, kind: Kind::Unused, score: -1000.0 });
        }
        let token = &mut vocabulary.tokens[at];
        // The unknown token and the bytes keep what they are.
        if !matches!(token.kind, Kind::Unknown | Kind::Byte) {
            token.kind = if added.is_special { Kind::Control } else { Kind::UserDefined };
        }
        token.text = added.text;
    }
    Ok(())
}

/// `added_tokens` of tokenizer.json.
fn listed(json: &Json) -> Result<Vec<Added>, Error> {
    let wrong = || json.wrong("added_tokens", "must have objects with an `id` and a `content`");
    let one = |value: &Value| {
        let id = value.get("id").and_then(Value::as_u64)?;
        Some(Added { id, text: content(value)?, is_special: is_special(value) })
    };
    let all = json.array("added_tokens")?.map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|value| one(value).ok_or_else(wrong)).collect()
}

/// `added_tokens_decoder` of tokenizer_config.json: the same, by id.
fn decoder(config: &Json) -> Result<Vec<Added>, Error> {
    let Some(map) = config.object("added_tokens_decoder")? else { return Ok(Vec::new()) };
    let one = |(id, value): (&String, &Value)| {
        let added = id
            .parse()
            .ok()
            .and_then(|id| Some(Added { id, text: content(value)?, is_special: is_special(value) }));
        added.ok_or_else(|| map.wrong(id, "must be an id with an object that has a `content`"))
    };
    map.map.iter().map(one).collect()
}

fn content(value: &Value) -> Option<String> {
    value.get("content").and_then(Value::as_str).map(str::to_owned)
}

fn is_special(value: &Value) -> bool {
    value.get("special").and_then(Value::as_bool).unwrap_or(false)
}

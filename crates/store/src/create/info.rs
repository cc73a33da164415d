//! `info` of a create request: what it says about the model wins over what the files say.

use serde_json::{Map, Value};

use crate::{Config, Error, Result};

/// What a model may be said to be able to do.
const CAPABILITIES: [&str; 9] =
    ["completion", "tools", "insert", "vision", "embedding", "thinking", "image", "audio", "rerank"];

/// Lays it over the config. What nobody knows is passed over, as in any request; an empty text means "not given".
pub(super) fn apply(config: &mut Config, info: &Map<String, Value>) -> Result<()> {
    for (key, value) in info.iter().filter(|(_, value)| !value.is_null()) {
        let wrong = |expected: &str| {
            let got = serde_json::to_string(value).unwrap_or_default();
            let got: String = got.chars().take(MAX_SHOWN).collect();
            Error::Info { key: key.clone(), expected: expected.to_owned(), got }
        };
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a string"));
        let count = || {
            let count = value.as_u64().filter(|count| (1..=MAX_COUNT).contains(count));
            count.map(Some).ok_or_else(|| wrong("an integer between 1 and 4294967295"))
        };
        match key.as_str() {
            "capabilities" => {
                let of_known = || format!("a list of some of {}", CAPABILITIES.join(", "));
                config.capabilities = capabilities(value).ok_or_else(|| wrong(&of_known()))?;
            }
            "model_family" => set_family(config, text()?),
            "base_name" => set(text()?, |name| drop(config.extra.insert(key.clone(), name.into()))),
            "quantization_level" => set(text()?, |level| config.file_type = level),
            "parameter_size" => set(text()?, |size| config.model_type = size),
            "context_length" => config.context_length = count()?,
            "embedding_length" => config.embedding_length = count()?,
            _ => {}
        }
    }
    Ok(())
}

/// No length in a model is larger.
const MAX_COUNT: u64 = u32::MAX as u64;
/// Of a wrong value in an error text.
const MAX_SHOWN: usize = 40;

fn set(text: String, put: impl FnOnce(String)) {
    if !text.is_empty() {
        put(text);
    }
}

/// The first of the families.
fn set_family(config: &mut Config, family: String) {
    if family.is_empty() {
        return;
    }
    let families = config.model_families.get_or_insert_default();
    families.retain(|known| *known != family);
    families.insert(0, family.clone());
    config.model_family = family;
}

fn capabilities(value: &Value) -> Option<Vec<String>> {
    let known = |value: &Value| Some(value.as_str().filter(|text| CAPABILITIES.contains(text))?.to_owned());
    value.as_array()?.iter().map(known).collect()
}

//! How deep a schema goes when references are followed, as a compiler follows them: each one once, where it comes first.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Of a schema that was written out. Without recursion: it is what recursion is bounded by.
pub fn levels(schema: &Map<String, Value>) -> usize {
    let definition = |reference: &str| schema.get("$defs")?.get(reference.strip_prefix("#/$defs/")?);
    let mut seen = HashSet::new();
    let mut deepest = 0;
    let own = schema.iter().filter(|(keyword, _)| *keyword != "$defs");
    let mut pending: Vec<(&Value, usize)> = own.map(|(_, value)| (value, 1)).rev().collect();
    while let Some((value, level)) = pending.pop() {
        deepest = deepest.max(level);
        match value {
            Value::Object(entries) => pending.extend(entries.values().rev().map(|value| (value, level + 1))),
            Value::Array(items) => pending.extend(items.iter().rev().map(|item| (item, level + 1))),
            Value::String(text) => {
                if let Some(definition) = definition(text).filter(|_| seen.insert(text)) {
                    pending.push((definition, level + 1));
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_followed_once() {
        for (schema, expected) in [
            (json!({"type": "null"}), 1),
            (json!({"properties": {"a": {"type": "null"}}}), 3),
            (json!({"$ref": "#/$defs/0", "$defs": {"0": {"items": {"$ref": "#/$defs/0"}}}}), 4),
            (
                json!({"$ref": "#/$defs/0", "$defs": {"0": {"items": {"$ref": "#/$defs/1"}}, "1": {"a": 1}}}),
                6,
            ),
        ] {
            assert_eq!(levels(schema.as_object().unwrap()), expected, "{schema}");
        }
    }
}

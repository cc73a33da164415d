//! Objects whose fields depend on one of them (`type`): read one by one, with the errors of Go's decoder.

use serde_json::{Map, Value};

use super::NO_MAP;

use crate::error::{Error, Result};

/// An object, and what Go's errors call the place where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'v> {
    map: &'v Map<String, Value>,
    place: &'static str,
}

impl<'v> Fields<'v> {
    /// `place` is as Go says it, `ChatRequest.messages`; `None` when `value` is no object.
    pub fn of(value: &'v Value, place: &'static str) -> Option<Fields<'v>> {
        value.as_object().map(|map| Fields { map, place })
    }

    /// Whatever is there under that name in any case, the last that is not `null`; `null` when nothing is.
    pub fn value(&self, key: &str) -> &'v Value {
        let given = |(name, value): &(&String, &Value)| name.eq_ignore_ascii_case(key) && !value.is_null();
        self.map.iter().rev().find(given).map_or(&Value::Null, |(_, value)| value)
    }

    /// Empty when it is not there.
    pub fn text(&self, key: &str) -> Result<&'v str> {
        match self.value(key) {
            Value::Null => Ok(""),
            Value::String(text) => Ok(text),
            other => Err(self.mismatch(other, key, "string")),
        }
    }

    /// Empty when it is not there. One of those maps whose order Ollama keeps.
    pub fn object(&self, key: &str) -> Result<Map<String, Value>> {
        match self.value(key) {
            Value::Null => Ok(Map::new()),
            Value::Object(map) => Ok(map.clone()),
            _ => Err(Error::invalid(NO_MAP)),
        }
    }

    fn mismatch(&self, found: &Value, key: &str, wanted: &str) -> Error {
        let (found, place) = (kind(found), self.place);
        Error::invalid(format!(
            "json: cannot unmarshal {found} into Go struct field {place}.{key} of type {wanted}"
        ))
    }
}

/// What Go's decoder calls a value that it has not looked into.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_there_is_empty_and_what_is_wrong_is_named() {
        let value =
            json!({"a": "x", "b": 1, "c": null, "d": {"e": 1}, "TEXT": "y", "Text": "z", "text": null});
        let fields = Fields::of(&value, "Request.items").unwrap();
        assert_eq!((fields.text("a"), fields.text("c"), fields.text("z")), (Ok("x"), Ok(""), Ok("")));
        assert_eq!((fields.text("A"), fields.text("text")), (Ok("x"), Ok("z")));
        assert_eq!(
            fields.text("b").unwrap_err().message,
            "json: cannot unmarshal number into Go struct field Request.items.b of type string"
        );
        assert_eq!(fields.object("d").unwrap()["e"], 1);
        assert_eq!(fields.object("a").unwrap_err().message, NO_MAP);
        assert!(fields.object("z").unwrap().is_empty() && Fields::of(&json!([]), "x").is_none());
    }
}

//! JSON by strangers, read with types and bounds: every error names the file and the key.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;
use crate::source::read_text;

/// An object of a file, or of an object in it.
#[derive(Clone, Debug)]
pub(crate) struct Json {
    file: String,
    /// What is before a key in error texts.
    path: String,
    pub map: Map<String, Value>,
}

/// No size, count or id in a model is larger.
const MAX_COUNT: u64 = u32::MAX as u64;

// === impl Json ===

impl Json {
    /// `bound` is how many bytes the file may have.
    pub fn read(name: &str, path: &Path, bound: u64) -> Result<Json, Error> {
        Json::parse(name, &read_text(name, path, bound)?)
    }

    pub fn parse(name: &str, text: &[u8]) -> Result<Json, Error> {
        // The parser itself refuses what is nested deeper than 128.
        match serde_json::from_slice(text) {
            Ok(Value::Object(map)) => Ok(Json { file: name.to_owned(), path: String::new(), map }),
            Ok(other) => Err(Error::file(name, format!("it must be a JSON object, got {}", kind(&other)))),
            Err(error) => Err(Error::file(name, format!("it is no JSON: {error}"))),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// An object in it, if it is there.
    pub fn object(&self, key: &str) -> Result<Option<Json>, Error> {
        let map = self.typed(key, "an object", |value| value.as_object().cloned())?;
        Ok(map.map(|map| Json { file: self.file.clone(), path: format!("{}{key}.", self.path), map }))
    }

    /// A number of things: at least one.
    pub fn count(&self, key: &str) -> Result<Option<u64>, Error> {
        let expected = "an integer between 1 and 4294967295";
        self.typed(key, expected, |value| value.as_u64().filter(|count| (1..=MAX_COUNT).contains(count)))
    }

    pub fn expect_count(&self, key: &str) -> Result<u64, Error> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    pub fn float(&self, key: &str) -> Result<Option<f32>, Error> {
        let finite =
            |value: &Value| value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        self.typed(key, "a finite number", finite)
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.typed(key, "a string", Value::as_str)
    }

    pub fn array(&self, key: &str) -> Result<Option<&Vec<Value>>, Error> {
        self.typed(key, "an array", Value::as_array)
    }

    pub fn missing(&self, key: &str) -> Error {
        self.wrong(key, "is missing")
    }

    /// The error that a key has a problem.
    pub fn wrong(&self, key: &str, problem: &str) -> Error {
        Error::file(&self.file, format!("`{}{key}` {problem}", self.path))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.wrong(key, &format!("must be {expected}, got {}", kind(value)))),
        }
    }
}

/// A value in an error text: numbers and short strings as they are, else only their types.
pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.len() <= 40 => format!("{text:?}"),
        Value::String(_) => "a long string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

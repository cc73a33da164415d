//! The key-value part of a file, in file order, with typed look-ups.

use std::collections::HashMap;

use crate::{Array, Error, Value};

/// Metadata in the order of the file. Keys are unique.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

// === impl Metadata ===

impl Metadata {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Any integer type that is not negative; `None` when the key is absent, an error when it is something else.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "an integer that is not negative", Value::as_u64)
    }

    pub fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.typed(key, "a float", Value::as_f32)
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "a bool", Value::as_bool)
    }

    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.typed(key, "a UTF-8 string", Value::as_str)
    }

    pub fn array(&self, key: &str) -> Result<Option<&Array>, Error> {
        self.typed(key, "an array", Value::as_array)
    }

    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, Error> {
        self.typed(key, "an array of UTF-8 strings", |value| match value {
            Value::Array(Array::String(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>, Error> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of any integer type, widened.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, Error> {
        self.typed(key, "an array of integers", |value| value.as_array().and_then(widen))
    }

    /// `general.architecture`: `llama`, `gemma3`.
    pub fn architecture(&self) -> Result<&str, Error> {
        const KEY: &str = "general.architecture";
        self.str(KEY)?.ok_or_else(|| Error::MissingKey { key: KEY.to_owned() })
    }

    /// `key` with the architecture before it: `context_length` is `llama.context_length`.
    pub fn arch_key(&self, key: &str) -> Result<String, Error> {
        Ok(format!("{}.{key}", self.architecture()?))
    }

    pub fn arch_u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.u64(&self.arch_key(key)?)
    }

    pub fn arch_f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.f32(&self.arch_key(key)?)
    }

    pub fn arch_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.bool(&self.arch_key(key)?)
    }

    pub fn arch_str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.str(&self.arch_key(key)?)
    }

    pub(crate) fn insert(&mut self, key: String, value: Value) -> Result<(), Error> {
        if self.index.contains_key(&key) {
            return Err(Error::DuplicateKey { key });
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        Ok(())
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || Error::KeyType { key: key.to_owned(), expected, found: describe(value) };
        read(value).map(Some).ok_or_else(wrong)
    }
}

/// The type, and for a number also the value, because the sign may be what is wrong.
fn describe(value: &Value) -> String {
    match value.as_i64() {
        Some(number) => format!("{} {number}", value.type_name()),
        None => value.type_name(),
    }
}

fn widen(array: &Array) -> Option<Vec<i64>> {
    Some(match array {
        Array::U8(items) => items.iter().map(|&item| item.into()).collect(),
        Array::I8(items) => items.iter().map(|&item| item.into()).collect(),
        Array::U16(items) => items.iter().map(|&item| item.into()).collect(),
        Array::I16(items) => items.iter().map(|&item| item.into()).collect(),
        Array::U32(items) => items.iter().map(|&item| item.into()).collect(),
        Array::I32(items) => items.iter().map(|&item| item.into()).collect(),
        Array::I64(items) => items.clone(),
        Array::U64(items) => items.iter().map(|&item| i64::try_from(item).ok()).collect::<Option<_>>()?,
        _ => return None,
    })
}

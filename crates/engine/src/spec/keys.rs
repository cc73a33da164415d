//! Metadata keys of one architecture, read with bounds: every error names the full key.

use gguf::{Gguf, Value};

use crate::Error;

#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    pub fn new(gguf: &'a Gguf, architecture: &'a str) -> Keys<'a> {
        Keys { gguf, architecture }
    }

    /// A count that must be there and within 1..=`bound`.
    pub fn count(self, key: &str, bound: usize) -> Result<usize, Error> {
        self.optional_count(key, bound)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// Any number that is not negative, if it is there.
    pub fn number(self, key: &str) -> Result<Option<u64>, Error> {
        Ok(self.gguf.metadata.u64(&self.full(key))?)
    }

    /// Whatever is there.
    pub fn value(self, key: &str) -> Option<&'a Value> {
        self.gguf.metadata.get(&self.full(key))
    }

    pub fn flag(self, key: &str) -> Result<Option<bool>, Error> {
        Ok(self.gguf.metadata.bool(&self.full(key))?)
    }

    /// A count within 1..=`bound`, if it is there.
    pub fn optional_count(self, key: &str, bound: usize) -> Result<Option<usize>, Error> {
        let Some(value) = self.number(key)? else { return Ok(None) };
        match usize::try_from(value) {
            Ok(count) if (1..=bound).contains(&count) => Ok(Some(count)),
            _ => Err(self.wrong(key, &format!("must be between 1 and {bound}, got {value}"))),
        }
    }

    /// A finite number above zero, if it is there.
    pub fn positive(self, key: &str) -> Result<Option<f32>, Error> {
        let Some(value) = self.gguf.metadata.f32(&self.full(key))? else { return Ok(None) };
        if value.is_finite() && value > 0.0 {
            return Ok(Some(value));
        }
        Err(self.wrong(key, &format!("must be a finite number above 0, got {value}")))
    }

    pub fn text(self, key: &str) -> Result<Option<&'a str>, Error> {
        Ok(self.gguf.metadata.str(&self.full(key))?)
    }

    /// The error that `key` has a problem.
    pub fn wrong(self, key: &str, problem: &str) -> Error {
        Error::InvalidKey { key: self.full(key), problem: problem.to_owned() }
    }

    fn full(self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }
}

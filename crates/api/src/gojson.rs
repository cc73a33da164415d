//! JSON as Go's `encoding/json` reads and writes it, since that is what Ollama's clients have learnt to expect:
//! field names in any case, `null` for "not given", the texts of its errors, the escapes of its strings.
//!
//! Reading takes two steps: [`parse`] turns bytes into a tree and words syntax errors, [`decode`] turns the tree into
//! any type that derives `Deserialize` and words type errors. Responses are written by [`to_vec`].

mod decode;
mod encode;
mod fields;
mod ordered;
mod parse;
mod quote;
#[cfg(test)]
mod tests;
mod time;

use serde::Deserialize;

pub(crate) use decode::AGAIN;
pub use encode::{to_string, to_vec};
pub use fields::{Fields, kind};
pub(crate) use ordered::{NO_MAP, ordered};
pub use quote::quote;
pub use time::{timestamp_local, timestamp_utc, unix_seconds};

use crate::error::{Code, Error, Result};

/// What Ollama's native routes say to an empty body.
pub const MISSING_BODY: &str = "missing request body";

/// Decodes the first JSON value of `bytes`; what follows it is not looked at.
pub fn from_slice<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    let node = parse::first_value(bytes)?;
    decode::decode(&node).map_err(|error| Error::invalid(error.to_string()))
}

impl From<parse::Error> for Error {
    fn from(error: parse::Error) -> Error {
        let code = match error {
            parse::Error::TooManyValues => Code::TooLarge,
            _ => Code::Invalid,
        };
        Error::new(code, error.to_string())
    }
}

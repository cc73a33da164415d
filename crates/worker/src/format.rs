//! `format`: an answer that must be JSON, or JSON of a schema. Parsed at the border into what the engine holds the answer
//! to.

use api::Error;
use engine::{Grammar, Grammars, Thought};

use crate::reply::Tags;

/// To what an answer is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// Any text.
    Free,
    /// Any JSON object.
    Json,
    /// JSON of this schema.
    Schema(String),
}

impl Format {
    /// Reads the JSON text of `format`. Whether a schema can be kept to is seen when it is compiled.
    pub fn parse(text: &str) -> Result<Format, Error> {
        match text.trim() {
            "" | "null" | "\"\"" => Ok(Format::Free),
            "\"json\"" => Ok(Format::Json),
            text if text.starts_with('{') => Ok(Format::Schema(text.to_owned())),
            text => {
                let wanted = "expected \"json\" or a valid JSON Schema object";
                Err(Error::invalid(format!("invalid format: {text}; {wanted}")))
            }
        }
    }

    /// What the engine is given; thoughts before the answer are free. Takes milliseconds, for the first answer of a
    /// model more.
    pub fn grammar(&self, grammars: &Grammars, thinking: Option<&Tags>) -> Result<Option<Grammar>, Error> {
        let grammar = match self {
            Format::Free => return Ok(None),
            Format::Json => grammars.json()?,
            Format::Schema(schema) => grammars.schema(schema)?,
        };
        let Some(Tags { open, close, inside }) = thinking.cloned() else { return Ok(Some(grammar)) };
        Ok(Some(grammar.after(Thought { open, close, is_open: inside }, grammars)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_json_a_schema_or_nothing() {
        for text in ["", " ", "null", "\"\""] {
            assert_eq!(Format::parse(text), Ok(Format::Free), "{text:?}");
        }
        assert_eq!(Format::parse("\"json\""), Ok(Format::Json));
        assert_eq!(Format::parse(" {}"), Ok(Format::Schema("{}".to_owned())));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in ["\"xml\"", "[1]", "7", "json"] {
            let error = Format::parse(text).unwrap_err();
            assert!(error.message.starts_with(&format!("invalid format: {text}; expected")), "{error}");
            assert_eq!(error.code, api::Code::Invalid);
        }
    }
}

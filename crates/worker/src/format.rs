//! `format`: an answer that must be JSON, or JSON of a schema. Parsed at the border into what the sampler is to be
//! held to; for now that is nothing, because the sampler takes no grammar yet, and a format is refused rather than
//! ignored.

use api::Error;

/// To what an answer is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Any text.
    Free,
}

impl Format {
    /// Reads the JSON text of `format`.
    pub fn parse(text: &str) -> Result<Format, Error> {
        match text.trim() {
            "" | "null" | "\"\"" => Ok(Format::Free),
            _ => Err(Error::invalid("`format` is not supported yet: answers cannot be held to JSON")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_format_is_any_text() {
        for text in ["", " ", "null", "\"\""] {
            assert_eq!(Format::parse(text), Ok(Format::Free), "{text:?}");
        }
    }

    #[test]
    fn a_format_is_refused_by_name_and_not_ignored() {
        for text in ["\"json\"", "{\"type\":\"object\"}", "7"] {
            let error = Format::parse(text).unwrap_err();
            assert!(error.message.contains("`format`"), "{error}");
            assert_eq!(error.code, api::Code::Invalid);
        }
    }
}

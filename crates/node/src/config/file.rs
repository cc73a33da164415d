//! `caravan.toml`: flat, its keys are the names of the flags.

use std::path::{Path, PathBuf};

use super::{Error, Result, Sources, conceal};

impl Sources {
    /// Adds the file at `path`. `known` are the names of all settings: a misspelt key is an error, not silence.
    pub fn with_file(self, path: &Path, known: &[&str]) -> Result<Sources> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        self.with_file_text(path.to_owned(), &text, known)
    }

    pub(super) fn with_file_text(mut self, path: PathBuf, text: &str, known: &[&str]) -> Result<Sources> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| Error::Syntax {
            path: path.clone(),
            // It quotes the line.
            message: error.to_string().lines().map(conceal).collect::<Vec<_>>().join("\n"),
        })?;
        for (key, value) in table {
            if !known.contains(&key.as_str()) {
                return Err(Error::Unknown { key, path });
            }
            match flatten(&value) {
                Some(value) => self.file.insert(key, value),
                None => return Err(Error::Shape { key, path }),
            };
        }
        self.file_path = path;
        Ok(self)
    }
}

/// The text that the same value would have on the command line: a list is separated by commas.
fn flatten(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Setting, text};

    const ETCD: Setting<String> = Setting::new("etcd", &["CARAVAN_ETCD"], "a list of addresses", text);

    fn with(text: &str) -> Result<Sources> {
        Sources::default().with_file_text("c.toml".into(), text, &["etcd"])
    }

    #[test]
    fn a_list_is_what_the_flag_would_be() {
        let sources = with("# where it is\netcd = ['http://a:1', 'http://b:2']").unwrap();
        assert_eq!(sources.read(&ETCD, None).unwrap().as_deref(), Some("http://a:1,http://b:2"));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_told_by_key_and_path() {
        assert_eq!(with("ectd = 'x'").unwrap_err().to_string(), "`ectd` in `c.toml` is no setting");
        let shape = "`etcd` in `c.toml` must be a string, a number, a bool or a list of strings";
        for text in ["etcd = [1]", "[etcd]\na = 1", "etcd = 1979-05-27"] {
            assert_eq!(with(text).unwrap_err().to_string(), shape);
        }
        assert!(with("etcd = ").unwrap_err().to_string().starts_with("`c.toml` is no TOML: "));
    }

    #[test]
    fn a_file_that_is_not_there_is_told_by_path() {
        let missing = Path::new("/nowhere/caravan.toml");
        assert_eq!(
            Sources::default().with_file(missing, &[]).unwrap_err().to_string(),
            "read `/nowhere/caravan.toml`"
        );
    }
}

//! `--name value` pairs.

use std::{collections::BTreeMap, str::FromStr};

use crate::Result;

pub struct Flags(BTreeMap<String, String>);

impl Flags {
    pub fn read(arguments: &[String], known: &[&str]) -> Result<Flags> {
        let mut flags = BTreeMap::new();
        for pair in arguments.chunks(2) {
            let name = pair[0].strip_prefix("--").filter(|name| known.contains(name));
            let name = name.ok_or_else(|| format!("`{}` is unknown here, known are: {known:?}", pair[0]))?;
            let value = pair.get(1).ok_or_else(|| format!("`--{name}` needs a value"))?;
            flags.insert(name.to_owned(), value.clone());
        }
        Ok(Flags(flags))
    }

    pub fn text(&self, name: &str) -> Result<&str> {
        Ok(self.0.get(name).ok_or_else(|| format!("`--{name}` must be given"))?)
    }

    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.0.get(name) {
            None => Ok(default),
            Some(value) => {
                value.parse().map_err(|_| format!("`--{name}` must be a number, got {value:?}").into())
            }
        }
    }
}

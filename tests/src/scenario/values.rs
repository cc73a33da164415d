//! Values of answers: what they must be like, and those that are kept for later.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What earlier answers of a file had, by the names that the file gave it.
#[derive(Debug, Default)]
pub struct Saved(BTreeMap<String, Value>);

impl Saved {
    /// `value` must have the wanted values at their JSON pointers. Some texts stand for more than themselves:
    /// `~any` for anything but null, `~absent` for nothing, `~saved NAME` for a value that was kept, `~near NUMBER` for one
    /// that is off by a thousandth at most, and `~like PATTERN` for a text in which `#` is a digit and `*` is anything.
    pub fn check(&self, wanted: &BTreeMap<String, Value>, value: &Value) -> Result<()> {
        for (pointer, wanted) in wanted {
            let found = value.pointer(pointer);
            ensure!(self.is_right(wanted, found)?, "{pointer} is {found:?}, not {wanted}: {value}");
        }
        Ok(())
    }

    fn is_right(&self, wanted: &Value, found: Option<&Value>) -> Result<bool> {
        if let (Some(wanted), Some(Value::Object(found))) = (wanted.as_object(), found) {
            let mut pairs = wanted.iter().map(|(key, wanted)| self.is_right(wanted, found.get(key)));
            let has_no_more = found.keys().all(|key| wanted.contains_key(key));
            return Ok(has_no_more && pairs.try_fold(true, |all, right| anyhow::Ok(right? && all))?);
        }
        let Some(text) = wanted.as_str() else { return Ok(found == Some(wanted)) };
        if let Some(pattern) = text.strip_prefix("~like ") {
            return Ok(found.and_then(Value::as_str).is_some_and(|found| is_like(pattern, found)));
        }
        if let Some(number) = text.strip_prefix("~near ") {
            let number: f64 = number.parse().with_context(|| format!("{number:?} is no number"))?;
            return Ok(found.and_then(Value::as_f64).is_some_and(|found| (found - number).abs() <= 0.001));
        }
        Ok(match (text, text.strip_prefix("~saved ")) {
            ("~any", _) => found.is_some_and(|found| !found.is_null()),
            ("~absent", _) => found.is_none(),
            (_, Some(name)) => found == Some(self.get(name)?),
            _ => found == Some(wanted),
        })
    }

    /// Keeps what is at the pointers.
    pub fn keep(&mut self, wanted: &BTreeMap<String, String>, value: &Value) -> Result<()> {
        for (name, pointer) in wanted {
            let found = value.pointer(pointer).with_context(|| format!("{pointer} is not there: {value}"))?;
            self.0.insert(name.clone(), found.clone());
        }
        Ok(())
    }

    /// The same JSON with every `~saved NAME` replaced by what was kept.
    pub fn fill(&self, json: &Value) -> Result<Value> {
        Ok(match json {
            Value::String(text) => match text.strip_prefix("~saved ") {
                Some(name) => self.get(name)?.clone(),
                None => json.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect::<Result<_>>()?,
            Value::Object(map) => {
                let filled = map.iter().map(|(key, value)| Ok((key.clone(), self.fill(value)?)));
                Value::Object(filled.collect::<Result<_>>()?)
            }
            _ => json.clone(),
        })
    }

    fn get(&self, name: &str) -> Result<&Value> {
        self.0.get(name).with_context(|| format!("nothing was saved as {name:?}"))
    }
}

pub fn is_like(pattern: &str, text: &str) -> bool {
    let Some(kind) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[kind.len_utf8()..];
    if kind == '*' {
        let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        return starts.any(|at| is_like(rest, &text[at..]));
    }
    let Some(first) = text.chars().next() else { return false };
    let fits = if kind == '#' { first.is_ascii_digit() } else { first == kind };
    fits && is_like(rest, &text[first.len_utf8()..])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_right(wanted: &str, value: &Value) -> bool {
        Saved::default().check(&[("/a/0/b".to_owned(), json!(wanted))].into(), value).is_ok()
    }

    #[test]
    fn pointers_reach_into_arrays() {
        assert!(is_right("~any", &json!({"a": [{"b": 0}]})));
        assert!(is_right("x", &json!({"a": [{"b": "x"}]})));
        assert!(is_right("~absent", &json!({"a": []})) && !is_right("~absent", &json!({"a": [{"b": 0}]})));
        assert!(!is_right("~any", &json!({"a": [{"b": null}]})));
    }

    #[test]
    fn patterns_have_digits_and_anything() {
        let time = "~like ####-##-##T##:##:##*";
        assert!(is_right(time, &json!({"a": [{"b": "2026-01-02T03:04:05.678Z"}]})));
        for wrong in ["2026-01-02 03:04:05Z", "20260-01-02T03:04:05Z", "", "2026-01-02T03:04:5Z"] {
            assert!(!is_right(time, &json!({"a": [{"b": wrong}]})), "{wrong}");
        }
        assert!(is_right("~like *é*", &json!({"a": [{"b": "café!"}]})));
        assert!(!is_right("~like a*", &json!({"a": [{"b": 1}]})));
    }

    #[test]
    fn numbers_may_be_off_a_little_and_objects_hold_patterns() {
        assert!(is_right("~near 0.5", &json!({"a": [{"b": 0.5009}]})));
        assert!(!is_right("~near 0.5", &json!({"a": [{"b": 0.502}]})));
        assert!(!is_right("~near 0.5", &json!({"a": [{"b": "0.5"}]})));
        let check = |wanted: Value, found: Value| {
            Saved::default().check(&[("".to_owned(), wanted)].into(), &found).is_ok()
        };
        let wanted = || json!({"x": "~any", "y": {"z": "~near 1"}});
        assert!(check(wanted(), json!({"x": 3, "y": {"z": 1.0}})));
        assert!(!check(wanted(), json!({"x": 3, "y": {"z": 1.0}, "w": 1})));
        assert!(!check(wanted(), json!({"x": 3, "y": {"z": 2.0}})));
        assert!(!check(wanted(), json!({"y": {"z": 1.0}})));
        assert!(check(json!({}), json!({})) && !check(json!({}), json!({"a": 1})));
    }

    #[test]
    fn what_was_saved_is_found_again_and_sent() {
        let mut saved = Saved::default();
        saved.keep(&[("n".to_owned(), "/x".to_owned())].into(), &json!({"x": [1, 2]})).unwrap();
        assert_eq!(saved.fill(&json!({"a": ["~saved n"]})).unwrap(), json!({"a": [[1, 2]]}));
        assert!(saved.check(&[("/y".to_owned(), json!("~saved n"))].into(), &json!({"y": [1, 2]})).is_ok());
        assert!(saved.check(&[("/y".to_owned(), json!("~saved n"))].into(), &json!({"y": [1]})).is_err());
        assert!(saved.fill(&json!("~saved m")).is_err());
        assert!(saved.keep(&[("n".to_owned(), "/x".to_owned())].into(), &json!({})).is_err());
    }
}

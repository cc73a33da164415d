//! `/set`: what every answer from now on is asked for.

use api::{gojson::quote, ollama::Think, options::parse_parameter};
use serde_json::{Map, Value, json};

use super::{Wishes, editor::QUOTES, help};

/// What `/set` came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A text for the person.
    Said(String),
    /// Something was asked for that is not there; the text tells what is.
    Usage(&'static str),
    System(String),
    KeepHistory(bool),
    /// Thinking was switched on: the person is warned if the model cannot.
    Thinks(String),
}

/// Changes the wishes by the words behind `/set`; `text` is the whole entry.
pub fn set(wishes: &mut Wishes, words: &[&str], text: &str) -> Outcome {
    let said = |text: &str| Outcome::Said(text.to_owned());
    match words {
        ["history"] => Outcome::KeepHistory(true),
        ["nohistory"] => Outcome::KeepHistory(false),
        ["wordwrap"] => {
            wishes.word_wrap = true;
            said("Set 'wordwrap' mode.")
        }
        ["nowordwrap"] => {
            wishes.word_wrap = false;
            said("Set 'nowordwrap' mode.")
        }
        ["verbose"] => {
            wishes.verbose = true;
            said("Set 'verbose' mode.")
        }
        ["quiet"] => {
            wishes.verbose = false;
            said("Set 'quiet' mode.")
        }
        ["format", "json"] => {
            wishes.format = Some(json!("json"));
            said("Set format to 'json' mode.")
        }
        ["format", ..] => said("Invalid or missing format. For 'json' mode use '/set format json'"),
        ["noformat"] => {
            wishes.format = None;
            said("Disabled format.")
        }
        ["think", level @ ..] => think(wishes, level),
        ["nothink"] => {
            (wishes.think, wishes.think_is_chosen) = (Some(Think::Bool(false)), true);
            said("Set 'nothink' mode.")
        }
        ["parameter", name, values @ ..] if !values.is_empty() => {
            Outcome::Said(parameter(wishes, name, values))
        }
        ["parameter", ..] => Outcome::Usage(help::PARAMETERS),
        ["system", _, ..] => Outcome::System(system(text).to_owned()),
        [] | ["system"] => Outcome::Usage(help::SET),
        [other, ..] => Outcome::Said(format!("Unknown command '/set {other}'. Type /? for help")),
    }
}

fn think(wishes: &mut Wishes, level: &[&str]) -> Outcome {
    match super::think(level.first().copied().unwrap_or("true")) {
        Ok(think) => {
            (wishes.think, wishes.think_is_chosen) = (Some(think), true);
            let level = level.first().map(|level| format!(" to '{level}'")).unwrap_or_default();
            Outcome::Thinks(format!("Set 'think' mode{level}."))
        }
        Err(error) => Outcome::Said(error.to_string()),
    }
}

fn parameter(wishes: &mut Wishes, name: &str, values: &[&str]) -> String {
    let texts: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    match parse_parameter(name, &texts) {
        Ok(value) => {
            wishes.options.insert(name.to_owned(), value);
            format!("Set parameter '{name}' to '{}'", values.join(", "))
        }
        Err(error) => format!("Couldn't set parameter: {}", quote(&error.message)),
    }
}

/// What stands behind `/set system`, without quotes around it.
fn system(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("/set").unwrap_or(text).trim_start();
    let text = text.strip_prefix("system").unwrap_or(text).trim();
    match text.strip_prefix(QUOTES) {
        Some(inner) => inner.strip_suffix(QUOTES).unwrap_or(inner),
        None => text.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(text),
    }
}

/// The lines of the parameters that were set, as the model's own are written: one for each of several values.
pub fn parameter_lines(options: &Map<String, Value>) -> impl Iterator<Item = String> {
    options.iter().flat_map(|(name, value)| {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        values.iter().map(move |value| format!("  {name:<30} {value}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was said, and the wishes after it.
    fn after(text: &str) -> (Outcome, Wishes) {
        let mut wishes = Wishes::default();
        let words: Vec<&str> = text.split_whitespace().skip(1).collect();
        let outcome = set(&mut wishes, &words, text);
        (outcome, wishes)
    }

    fn said(text: &str) -> String {
        match after(text).0 {
            Outcome::Said(text) | Outcome::Thinks(text) => text,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_mode_answers_with_the_text_of_ollama() {
        for (text, answer) in [
            ("/set wordwrap", "Set 'wordwrap' mode."),
            ("/set nowordwrap", "Set 'nowordwrap' mode."),
            ("/set verbose", "Set 'verbose' mode."),
            ("/set quiet", "Set 'quiet' mode."),
            ("/set format json", "Set format to 'json' mode."),
            ("/set format xml", "Invalid or missing format. For 'json' mode use '/set format json'"),
            ("/set format", "Invalid or missing format. For 'json' mode use '/set format json'"),
            ("/set noformat", "Disabled format."),
            ("/set think", "Set 'think' mode."),
            ("/set think low", "Set 'think' mode to 'low'."),
            ("/set nothink", "Set 'nothink' mode."),
            ("/set parameter temperature 0.5", "Set parameter 'temperature' to '0.5'"),
            ("/set parameter stop a b", "Set parameter 'stop' to 'a, b'"),
            ("/set parameter top_k many", "Couldn't set parameter: \"invalid int value [many]\""),
            ("/set parameter nonsense 1", "Couldn't set parameter: \"unknown parameter 'nonsense'\""),
            ("/set nonsense", "Unknown command '/set nonsense'. Type /? for help"),
        ] {
            assert_eq!(said(text), answer, "{text}");
        }
        assert!(said("/set think hard").starts_with("invalid value for --think: \"hard\""));
        assert_eq!(after("/set nohistory").0, Outcome::KeepHistory(false));
        assert_eq!(after("/set history").0, Outcome::KeepHistory(true));
        for text in ["/set", "/set system"] {
            assert_eq!(after(text).0, Outcome::Usage(help::SET), "{text}");
        }
        for text in ["/set parameter", "/set parameter seed"] {
            assert_eq!(after(text).0, Outcome::Usage(help::PARAMETERS), "{text}");
        }
    }

    #[test]
    fn what_was_set_is_wished_for() {
        assert_eq!(after("/set parameter stop a b").1.options["stop"], json!(["a", "b"]));
        assert_eq!(after("/set parameter num_ctx 4096").1.options["num_ctx"], json!(4096));
        assert_eq!(after("/set think high").1.think, Some(Think::Level("high".to_owned())));
        assert_eq!(after("/set nothink").1.think, Some(Think::Bool(false)));
        assert_eq!(after("/set format json").1.format, Some(json!("json")));
        assert!(after("/set verbose").1.verbose && after("/set wordwrap").1.word_wrap);
    }

    #[test]
    fn parameters_are_shown_as_those_of_a_model() {
        let Value::Object(options) = json!({"stop": ["a", "b"], "temperature": 0.5}) else {
            panic!("an object was written");
        };
        let lines: Vec<String> = parameter_lines(&options).collect();
        let row = |name: &str, value: &str| format!("  {name:<30} {value}");
        assert_eq!(lines, [row("stop", "\"a\""), row("stop", "\"b\""), row("temperature", "0.5")]);
    }

    #[test]
    fn a_system_message_may_be_in_quotes() {
        for (text, message) in [
            ("/set system Be brief.", "Be brief."),
            ("/set system \"Be brief.\"", "Be brief."),
            ("/set  system  \"\"\"Be\nbrief.\"\"\"", "Be\nbrief."),
        ] {
            assert_eq!(after(text).0, Outcome::System(message.to_owned()), "{text:?}");
        }
    }
}

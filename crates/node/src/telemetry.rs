//! What a process says about itself on standard error.
//!
//! `OLLAMA_DEBUG` sets the level as in Ollama; `CARAVAN_LOG` beats it and may choose per module (`info,gateway=debug`);
//! `CARAVAN_LOG_FORMAT=json` writes one JSON object per line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Result, Setting, Sources, one_of};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directives of tracing-subscriber's `EnvFilter`.
    pub filter: String,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

const LOG: Setting<String> =
    Setting::new("log", &["CARAVAN_LOG"], "a level or directives such as `info,gateway=debug`", directives);

const LOG_FORMAT: Setting<Format> =
    Setting::new("log-format", &["CARAVAN_LOG_FORMAT"], "`text` or `json`", |text| {
        match one_of(&["text", "json"], text)? {
            "json" => Some(Format::Json),
            _ => Some(Format::Text),
        }
    });

const DEBUG: Setting<&str> =
    Setting::new("", &["OLLAMA_DEBUG"], "a bool or a number", |text| Some(level(text)));

/// Crates below us that log each frame and each poll: their news is for their authors.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,tower=info,tonic=info,rustls=info,mio=info";

impl Options {
    pub fn read(sources: &Sources) -> Result<Options> {
        let filter = match sources.read(&LOG, None)? {
            Some(filter) => filter,
            None => sources.read(&DEBUG, None)?.unwrap_or("info").to_owned(),
        };
        Ok(Options { filter, format: sources.read(&LOG_FORMAT, None)?.unwrap_or(Format::Text) })
    }
}

/// Starts logging for the whole process. The second call of a process changes nothing.
pub fn init(options: &Options) {
    // Of two directives for one target the later counts, so the caller's beat ours.
    let filter = EnvFilter::builder().parse_lossy(format!("{QUIET},{}", options.filter));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Would be told on standard error, which is just what cannot be written to, and end the thread.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // An error only says that logging has been started before.
    let _ = match options.format {
        Format::Text => subscriber.try_init(),
        Format::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

fn directives(text: &str) -> Option<String> {
    EnvFilter::try_new(text).ok().map(|_| text.to_owned())
}

/// Ollama's levels: true is debug, a number counts steps of four on Go's scale, so 2 is below debug and -1 warns.
fn level(text: &str) -> &'static str {
    if api::options::parse_bool(text) == Some(true) {
        return "debug";
    }
    match text.parse::<i64>() {
        Ok(2..) => "trace",
        Ok(1) => "debug",
        Ok(-1) => "warn",
        Ok(..=-2) => "error",
        _ => "info",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Options> {
        let owned = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Options::read(&Sources::new(owned))
    }

    #[test]
    fn the_level_is_the_one_that_ollama_would_take() {
        for (value, level) in [
            ("1", "debug"),
            ("true", "debug"),
            ("2", "trace"),
            ("0", "info"),
            ("-1", "warn"),
            ("yes", "info"),
        ] {
            assert_eq!(read(&[("OLLAMA_DEBUG", value)]).unwrap().filter, level, "{value}");
        }
        assert_eq!(read(&[]).unwrap(), Options { filter: "info".into(), format: Format::Text });
    }

    #[test]
    fn our_variable_chooses_modules_and_format() {
        let options = read(&[
            ("OLLAMA_DEBUG", "1"),
            ("CARAVAN_LOG", "warn,gateway=trace"),
            ("CARAVAN_LOG_FORMAT", "JSON"),
        ]);
        assert_eq!(options.unwrap(), Options { filter: "warn,gateway=trace".into(), format: Format::Json });
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let error = read(&[("CARAVAN_LOG", "gateway=loud")]).unwrap_err().to_string();
        assert!(error.starts_with("`CARAVAN_LOG` must be a level"), "{error}");
        let error = read(&[("CARAVAN_LOG_FORMAT", "xml")]).unwrap_err().to_string();
        assert_eq!(error, "`CARAVAN_LOG_FORMAT` must be `text` or `json`, got \"xml\" (environment)");
    }

    #[test]
    fn logging_starts_once_and_a_second_start_is_harmless() {
        let options = Options { filter: "error".into(), format: Format::Json };
        init(&options);
        init(&options);
    }
}

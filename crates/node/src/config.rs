//! Where a setting comes from: its default, the file `caravan.toml`, the environment, a flag; the later wins.
//!
//! A bad flag, file entry or `CARAVAN_*` variable is an error that names the key, the source, the bound and the value;
//! `main` ends with [`EXIT_CODE`] before any port is bound. An `OLLAMA_*` variable is read as Ollama reads it: what
//! makes no sense is warned about and passed over, so that an environment that works there works here.

mod file;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub use parse::{conceal, ollama_bool, ollama_duration, one_of, strict_bool, text, uint};

/// `EX_USAGE` of sysexits.h: the command line, the environment or the file is wrong, and a restart will not help.
pub const EXIT_CODE: u8 = 64;

/// One setting under all of its names.
#[derive(Debug)]
pub struct Setting<T> {
    /// The flag without its dashes, and the key in the file; empty if the environment alone can set it.
    pub name: &'static str,
    /// The strongest first. Those of Ollama are read leniently.
    pub variables: &'static [&'static str],
    /// What a value must be, as it reads after "must be".
    pub bound: &'static str,
    pub parse: fn(&str) -> Option<T>,
    /// How an `OLLAMA_*` variable is read, where Ollama reads it in another way.
    pub parse_ollama: fn(&str) -> Option<T>,
}

/// The sources of a process, read once when it starts.
#[derive(Clone, Default)]
pub struct Sources {
    file: BTreeMap<String, String>,
    file_path: PathBuf,
    environment: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{key}` must be {bound}, got {value:?} ({source_name})")]
    Value { key: String, bound: &'static str, value: String, source_name: Source },
    #[error("`{key}` must be given, {bound}: {reason}")]
    Missing { key: &'static str, bound: &'static str, reason: String },
    #[error("read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is no TOML: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("`{key}` in `{}` must be a string, a number, a bool or a list of strings", path.display())]
    Shape { key: String, path: PathBuf },
    #[error("`{key}` in `{}` is no setting", path.display())]
    Unknown { key: String, path: PathBuf },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Flag,
    Environment,
    File(PathBuf),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

// === impl Setting ===

impl<T> Setting<T> {
    pub const fn new(
        name: &'static str,
        variables: &'static [&'static str],
        bound: &'static str,
        parse: fn(&str) -> Option<T>,
    ) -> Setting<T> {
        Setting { name, variables, bound, parse, parse_ollama: parse }
    }

    /// The same setting with another reader for Ollama's variables.
    pub const fn ollama(self, parse_ollama: fn(&str) -> Option<T>) -> Setting<T> {
        Setting { parse_ollama, ..self }
    }

    fn error(&self, key: impl Into<String>, value: &str, source_name: Source) -> Error {
        Error::Value { key: key.into(), bound: self.bound, value: conceal(value).into_owned(), source_name }
    }
}

// === impl Sources ===

impl Sources {
    /// The environment of this process; bytes that are no UTF-8 are replaced.
    pub fn from_environment() -> Sources {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Sources::new(std::env::vars_os().map(|(key, value)| (lossy(key), lossy(value))))
    }

    /// An environment given by the caller.
    pub fn new(environment: impl IntoIterator<Item = (String, String)>) -> Sources {
        Sources { environment: environment.into_iter().collect(), ..Sources::default() }
    }

    /// The value of `setting`, from the strongest source that has one. `flag` is the text given on the command line.
    pub fn read<T>(&self, setting: &Setting<T>, flag: Option<&str>) -> Result<Option<T>> {
        if let Some(value) = flag {
            let refuse = || setting.error(format!("--{}", setting.name), value, Source::Flag);
            return (setting.parse)(value).map(Some).ok_or_else(refuse);
        }
        for &variable in setting.variables {
            let Some(value) = self.variable(variable) else { continue };
            let is_ollama = variable.starts_with("OLLAMA_");
            let parse = if is_ollama { setting.parse_ollama } else { setting.parse };
            match parse(value) {
                Some(value) => return Ok(Some(value)),
                None if is_ollama => {
                    let value = conceal(value);
                    tracing::warn!(variable, %value, "passed over: must be {}", setting.bound);
                }
                None => return Err(setting.error(variable, value, Source::Environment)),
            }
        }
        let Some(value) = self.file.get(setting.name) else { return Ok(None) };
        let refuse = || setting.error(setting.name, value, Source::File(self.file_path.clone()));
        (setting.parse)(value).map(Some).ok_or_else(refuse)
    }

    /// The key and the source that [`Sources::read`] takes the value from, for what goes wrong with it later.
    pub fn origin<T>(&self, setting: &Setting<T>, flag: Option<&str>) -> Option<(String, Source)> {
        if flag.is_some() {
            return Some((format!("--{}", setting.name), Source::Flag));
        }
        let is_read = |variable: &&&str| {
            let parse = if variable.starts_with("OLLAMA_") { setting.parse_ollama } else { setting.parse };
            self.variable(variable).is_some_and(|value| parse(value).is_some())
        };
        if let Some(variable) = setting.variables.iter().find(is_read) {
            return Some(((*variable).to_owned(), Source::Environment));
        }
        let file = || Source::File(self.file_path.clone());
        self.file.contains_key(setting.name).then(|| (setting.name.to_owned(), file()))
    }

    /// A variable as Ollama reads one: without space and quotes around it; empty is unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let value = self.environment.get(name)?.trim().trim_matches(['"', '\'']);
        Some(value).filter(|value| !value.is_empty())
    }
}

/// Without the values: an environment holds secrets.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file_path", &self.file_path).finish_non_exhaustive()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => f.write_str("command line"),
            Source::Environment => f.write_str("environment"),
            Source::File(path) => write!(f, "file `{}`", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREADS: Setting<u64> =
        Setting::new("threads", &["CARAVAN_THREADS"], "a number from 1 to 64", |text| {
            uint(text).filter(|threads| (1..=64).contains(threads))
        });
    const STORE: Setting<String> = Setting::new("store", &["CARAVAN_STORE", "OLLAMA_MODELS"], "a path", text);
    const QUEUE: Setting<u64> = Setting::new("max-queue", &["OLLAMA_MAX_QUEUE"], "a number", uint);
    const SPREAD: Setting<bool> =
        Setting::new("spread", &["OLLAMA_SCHED_SPREAD"], "a bool", strict_bool).ollama(ollama_bool);

    fn environment(variables: &[(&str, &str)]) -> Sources {
        Sources::new(variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    fn with_file(sources: Sources, text: &str) -> Sources {
        sources.with_file_text("/etc/caravan.toml".into(), text, &["threads", "store", "spread"]).unwrap()
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_the_file() {
        let sources = with_file(environment(&[("CARAVAN_THREADS", "2")]), "threads = 3");
        assert_eq!(sources.read(&THREADS, Some("1")).unwrap(), Some(1));
        assert_eq!(sources.read(&THREADS, None).unwrap(), Some(2));
        assert_eq!(with_file(environment(&[]), "threads = 3").read(&THREADS, None).unwrap(), Some(3));
        assert_eq!(environment(&[]).read(&THREADS, None).unwrap(), None);
    }

    #[test]
    fn our_variable_beats_that_of_ollama() {
        let both = environment(&[("OLLAMA_MODELS", "/a"), ("CARAVAN_STORE", "/b")]);
        assert_eq!(both.read(&STORE, None).unwrap().as_deref(), Some("/b"));
        let one = with_file(environment(&[("OLLAMA_MODELS", "/a")]), "store = '/c'");
        assert_eq!(one.read(&STORE, None).unwrap().as_deref(), Some("/a"));
    }

    #[test]
    fn where_a_value_comes_from_is_known() {
        let both = environment(&[("OLLAMA_MODELS", "/a"), ("CARAVAN_STORE", "/b")]);
        let origin = |sources: &Sources, flag| sources.origin(&STORE, flag);
        assert_eq!(origin(&both, Some("/c")), Some(("--store".to_owned(), Source::Flag)));
        assert_eq!(origin(&both, None), Some(("CARAVAN_STORE".to_owned(), Source::Environment)));
        let file = with_file(environment(&[("CARAVAN_STORE", "")]), "store = '/c'");
        assert_eq!(origin(&file, None), Some(("store".to_owned(), Source::File("/etc/caravan.toml".into()))));
        assert_eq!(origin(&environment(&[]), None), None);
    }

    #[test]
    fn a_bad_value_is_told_with_key_source_bound_and_value() {
        let told = |sources: Sources, flag| sources.read(&THREADS, flag).unwrap_err().to_string();
        assert_eq!(
            told(environment(&[]), Some("0")),
            "`--threads` must be a number from 1 to 64, got \"0\" (command line)"
        );
        assert_eq!(
            told(environment(&[("CARAVAN_THREADS", "many")]), None),
            "`CARAVAN_THREADS` must be a number from 1 to 64, got \"many\" (environment)"
        );
        assert_eq!(
            told(with_file(environment(&[]), "threads = 65"), None),
            "`threads` must be a number from 1 to 64, got \"65\" (file `/etc/caravan.toml`)"
        );
    }

    #[test]
    fn a_bad_value_is_told_without_its_secrets() {
        for (value, told) in [
            ("s3://me:hush@models/x", "s3://***@models/x"),
            ("http://a, http://me:hu/sh@b,http://c@d", "http://***@d"),
            ("me@home", "***@home"),
            ("s3://", "s3://"),
        ] {
            let error = environment(&[]).read(&QUEUE, Some(value)).unwrap_err().to_string();
            assert_eq!(error, format!("`--max-queue` must be a number, got {told:?} (command line)"));
        }
    }

    #[test]
    fn a_bad_value_is_told_without_the_password_in_it() {
        let flag = Some("http://me:secret@host");
        let told = environment(&[]).read(&THREADS, flag).unwrap_err().to_string();
        assert!(told.contains("got \"http://***@host\"") && !told.contains("secret"), "{told}");
        let broken =
            Sources::default().with_file_text("c.toml".into(), "etcd = \"http://me:secret@h", &["etcd"]);
        let told = broken.unwrap_err().to_string();
        assert!(told.contains("line 1") && !told.contains("secret"), "{told}");
    }

    #[test]
    fn junk_in_a_variable_of_ollama_is_passed_over() {
        assert_eq!(environment(&[("OLLAMA_MAX_QUEUE", "-1")]).read(&QUEUE, None).unwrap(), None);
        assert_eq!(environment(&[("OLLAMA_MAX_QUEUE", " '512' ")]).read(&QUEUE, None).unwrap(), Some(512));
        assert!(environment(&[]).read(&QUEUE, Some("-1")).is_err());
    }

    #[test]
    fn a_bool_of_ollama_is_true_unless_it_says_false() {
        let spread = |value| environment(&[("OLLAMA_SCHED_SPREAD", value)]).read(&SPREAD, None).unwrap();
        assert_eq!(spread("off"), Some(true));
        assert_eq!(spread("0"), Some(false));
        assert_eq!(spread("\"\""), None);
        assert!(environment(&[]).read(&SPREAD, Some("off")).is_err());
        assert_eq!(with_file(environment(&[]), "spread = true").read(&SPREAD, None).unwrap(), Some(true));
    }

    #[test]
    fn space_and_quotes_around_a_variable_are_dropped() {
        let sources = environment(&[("A", "  \" x \" "), ("B", " '' ")]);
        assert_eq!((sources.variable("A"), sources.variable("B")), (Some(" x "), None));
    }
}

//! Jinja chat templates, as model files carry them in `tokenizer.chat_template`: minijinja, set up like the
//! Python code that these templates are written for (blocks trimmed, Python's methods, its own `tojson`).
//!
//! What it cannot bound: one text that a template doubles in a variable again and again grows with the steps
//! that it is given, not with the output.

mod context;
mod python;
mod tojson;

use std::borrow::Cow;
use std::io;

use jiff::civil::Date;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, syntax::SyntaxConfig};

use crate::{Error, MAX_OUTPUT_BYTES, MAX_SOURCE_BYTES, Message, Values};
use context::Dialect;

const NAME: &str = "chat";
/// Instructions of one rendering, about a second. A conversation of 1,000 messages takes 200,000.
const MAX_STEPS: u64 = 10_000_000;
/// Instructions of one probe: a conversation of two messages takes a few hundred.
const MAX_PROBE_STEPS: u64 = 100_000;
/// Blocks within blocks; minijinja counts several for a macro. Its own bound of 500 is near the end of a small stack.
const MAX_DEPTH: usize = 200;

/// A parsed Jinja template.
#[derive(Debug, Clone)]
pub struct Jinja {
    source: String,
    environment: Environment<'static>,
    dialect: Dialect,
}

// === impl Jinja ===

impl Jinja {
    /// Parses `source` and tries out how it wants its messages.
    pub fn parse(source: &str) -> Result<Jinja, Error> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::Limit { line: 1, unit: "bytes of template", bound: MAX_SOURCE_BYTES });
        }
        let mut environment = environment().map_err(syntax_error)?;
        // Python reads every line ending as a newline.
        let lines = source.replace("\r\n", "\n").replace('\r', "\n");
        let plain = without_generation_tags(&lines).into_owned();
        environment.add_template_owned(NAME, plain).map_err(syntax_error)?;
        let mut jinja = Jinja { source: source.to_owned(), environment, dialect: Dialect::default() };
        jinja.environment.set_fuel(Some(MAX_PROBE_STEPS));
        jinja.dialect = jinja.probe();
        jinja.environment.set_fuel(Some(MAX_STEPS));
        Ok(jinja)
    }

    /// The text as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `values`.
    pub fn render(&self, values: &Values) -> Result<String, Error> {
        self.render_as(values, self.dialect)
    }

    fn render_as(&self, values: &Values, dialect: Dialect) -> Result<String, Error> {
        let template = self.environment.get_template(NAME).map_err(syntax_error)?;
        let mut out = Bounded::default();
        match template.render_captured_to(context::build(values, dialect), &mut out) {
            Ok(_) => Ok(String::from_utf8_lossy(&out.bytes).into_owned()),
            Err(error) => Err(execution_error(&error, &out)),
        }
    }

    /// Renders small conversations and looks whether their texts arrive.
    fn probe(&self) -> Dialect {
        const NEEDLE: &str = "needle-in-the-prompt";
        let arrives = |role: &str, dialect: Dialect| {
            let mut messages = vec![Message::new(role, NEEDLE)];
            if role == "system" {
                messages.push(Message::new("user", "hello"));
            }
            let values = Values { messages, add_generation_prompt: true, ..Values::default() };
            self.render_as(&values, dialect).is_ok_and(|prompt| prompt.contains(NEEDLE))
        };
        let mut dialect = Dialect { takes_images: mentions_images(&self.source), ..Dialect::default() };
        let in_parts = Dialect { always_in_parts: true, ..dialect };
        if !arrives("user", dialect) && arrives("user", in_parts) {
            dialect = in_parts;
        }
        dialect.system_in_user = arrives("user", dialect) && !arrives("system", dialect);
        dialect
    }
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_recursion_limit(MAX_DEPTH);
    python::install(&mut environment);
    environment.add_filter("tojson", tojson::filter);
    environment.add_function("raise_exception", |text: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
    });
    Ok(environment)
}

/// `strftime_now(format)` on a given day; the time of day is midnight.
fn strftime(today: Date, format: &str) -> Result<String, minijinja::Error> {
    let now = today.to_datetime(jiff::civil::Time::midnight());
    jiff::fmt::strtime::format(format, now)
        .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Templates for training mark what the model said with `{% generation %}`; for a prompt the mark means nothing.
/// `if true` keeps the white space around it as it was.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let inside = &rest[at + 2..];
        let start = inside.len() - inside.trim_start_matches(['-', '+']).trim_start().len();
        let word = &inside[start..];
        let (name, replacement) = match word.starts_with("end") {
            true => ("endgeneration", "endif"),
            false => ("generation", "if true"),
        };
        let keep = at + 2 + start;
        let ends = word.strip_prefix(name).map(str::trim_start);
        out.push_str(&rest[..keep]);
        rest = &rest[keep..];
        if ends.is_some_and(|after| ["%}", "-%}", "+%}"].iter().any(|end| after.starts_with(end))) {
            out.push_str(replacement);
            rest = &rest[name.len()..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Templates of vision models look at the type of each part.
fn mentions_images(source: &str) -> bool {
    ["'image'", "\"image\"", "'image_url'", "\"image_url\""].iter().any(|name| source.contains(name))
}

fn syntax_error(error: minijinja::Error) -> Error {
    Error::Syntax { line: error.line().unwrap_or(1), text: describe(&error) }
}

fn execution_error(error: &minijinja::Error, out: &Bounded) -> Error {
    let line = error.line().unwrap_or(1);
    if out.is_full {
        return Error::Limit { line, unit: "bytes of output", bound: MAX_OUTPUT_BYTES };
    }
    match error.kind() {
        ErrorKind::OutOfFuel => Error::Limit { line, unit: "steps to render", bound: MAX_STEPS as usize },
        _ => Error::Execution { line, text: describe(error) },
    }
}

/// What a template raises is told as it is; other errors with their kind.
fn describe(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    }
}

/// Takes [`MAX_OUTPUT_BYTES`] and then refuses.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_OUTPUT_BYTES - self.bytes.len() {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_plain_blocks() {
        let cases = [
            ("a{% generation %}b{% endgeneration %}c", "a{% if true %}b{% endif %}c"),
            ("{%- generation -%}b{%-endgeneration-%}", "{%- if true -%}b{%-endif-%}"),
            (
                "{% generation_x %}{% if add_generation_prompt %}",
                "{% generation_x %}{% if add_generation_prompt %}",
            ),
            ("{% generation", "{% generation"),
        ];
        for (source, expected) in cases {
            assert_eq!(without_generation_tags(source), expected);
        }
    }
}

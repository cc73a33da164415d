//! Jinja chat templates, as model files carry them in `tokenizer.chat_template`: minijinja, set up like the
//! Python code that these templates are written for (blocks trimmed, Python's methods, its own `tojson`).
//!
//! Its steps, its depth and all that it makes are bounded: a template that loops or that doubles a text ends with an
//! error that names the bound. For that the parsed template is put together anew before it is compiled (`rebuild`),
//! which takes the inner workings of minijinja, whose version is therefore an exact one.

mod begun;
mod context;
mod meter;
mod python;
mod rebuild;
mod tojson;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::civil::Date;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, machinery, syntax::SyntaxConfig};

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
    /// What is compiled: the source without what only Python needs.
    plain: String,
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
        let environment = environment().map_err(syntax_error)?;
        // Python reads every line ending as a newline.
        let lines = source.replace("\r\n", "\n").replace('\r', "\n");
        let plain = without_generation_tags(&lines).into_owned();
        let mut jinja = Jinja { source: source.to_owned(), plain, environment, dialect: Dialect::default() };
        jinja.compile()?;
        jinja.environment.set_fuel(Some(MAX_PROBE_STEPS));
        jinja.dialect = jinja.probe();
        jinja.environment.set_fuel(Some(MAX_STEPS));
        Ok(jinja)
    }

    /// The text as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `values`. What the assistant has begun to say is left open.
    pub fn render(&self, values: &Values) -> Result<String, Error> {
        let Some((before, begun)) = begun::split(values) else {
            return self.render_as(values, self.dialect);
        };
        let mut prompt = self.render_as(&before, self.dialect)?;
        begun::append(&mut prompt, &begun);
        within_bound(prompt)
    }

    /// Whether it has a place for system messages; else they go into the next user message.
    pub fn has_system(&self) -> bool {
        !self.dialect.system_in_user
    }

    fn render_as(&self, values: &Values, dialect: Dialect) -> Result<String, Error> {
        let (instructions, blocks) = self.compile()?;
        let mut prompt = String::new();
        let mut out = machinery::make_string_output(&mut prompt);
        let context = context::build(values, dialect);
        machinery::eval(&self.environment, &instructions, context, &blocks, &mut out, AutoEscape::None)
            .map_err(|error| execution_error(&error))?;
        within_bound(prompt)
    }

    /// Done for every rendering: it takes a part of the time of one, and compiled templates borrow their text.
    fn compile(&self) -> Result<Compiled<'_>, Error> {
        let parsed = machinery::parse(&self.plain, NAME, self.environment.syntax().clone());
        let rebuilt = rebuild::statement(&parsed.map_err(syntax_error)?).map_err(|foreign| {
            let text = "a chat template cannot include, import or extend others".to_owned();
            Error::Syntax { line: foreign.line, text }
        })?;
        let mut generator = machinery::CodeGenerator::new(NAME, &self.plain);
        generator.compile_stmt(&rebuilt);
        Ok(generator.finish())
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
        let mut dialect = Dialect {
            takes_images: mentions_images(&self.source),
            tools_in_system: mentions_tools_of_a_message(&self.source),
            ..Dialect::default()
        };
        let in_parts = Dialect { always_in_parts: true, ..dialect };
        if !arrives("user", dialect) && arrives("user", in_parts) {
            dialect = in_parts;
        }
        dialect.system_in_user = arrives("user", dialect) && !arrives("system", dialect);
        dialect
    }
}

fn within_bound(prompt: String) -> Result<String, Error> {
    if prompt.len() > MAX_OUTPUT_BYTES {
        return Err(Error::Limit { line: 1, unit: "bytes of output", bound: MAX_OUTPUT_BYTES });
    }
    Ok(prompt)
}

type Compiled<'a> = (machinery::Instructions<'a>, BTreeMap<&'a str, machinery::Instructions<'a>>);

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_recursion_limit(MAX_DEPTH);
    python::install(&mut environment);
    meter::install(&mut environment);
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

fn mentions_tools_of_a_message(source: &str) -> bool {
    ["message['tools']", "message[\"tools\"]", "message.tools"].iter().any(|name| source.contains(name))
}

fn syntax_error(error: minijinja::Error) -> Error {
    Error::Syntax { line: error.line().unwrap_or(1), text: describe(&error) }
}

fn execution_error(error: &minijinja::Error) -> Error {
    let line = error.line().unwrap_or(1);
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => {
            Error::Limit { line, unit: "steps to render", bound: MAX_STEPS as usize }
        }
        (_, Some(meter::TOO_MUCH)) => {
            Error::Limit { line, unit: "bytes of text made on the way", bound: meter::MAX_BYTES }
        }
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

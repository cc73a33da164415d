//! What a rendering has made so far, in bytes: texts, lists and what was printed. Templates come from strangers, and a
//! few instructions can double a text until memory ends; here they end first.
//!
//! The filters that `rebuild` puts in the place of operators, and those of the engine's own that can make much out of
//! little, ask before they make something.

use std::fmt::{self, Write};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::rebuild;

/// All that one rendering may make. A million tokens of conversation are some 4 MiB, and templates copy each text a few
/// times on its way.
pub(super) const MAX_BYTES: usize = 64 << 20;
/// How [`super::execution_error`] knows why a rendering ended.
pub(super) const TOO_MUCH: &str = "too much text";

/// What an element of a list takes beside its text.
const ELEMENT_BYTES: usize = 32;
/// Real templates indent by 2 and 4.
const MAX_INDENT: usize = 64;

/// Lives as long as one rendering.
#[derive(Default)]
struct Meter {
    bytes: usize,
}

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter(rebuild::ADD, add);
    environment.add_filter(rebuild::REPEAT, multiply);
    environment.add_filter(rebuild::JOIN, |state: &mut State, a: &Value, b: &Value| {
        text(state, |out| write!(out, "{a}{b}")).map(Value::from)
    });
    environment.add_filter(rebuild::COUNT, |state: &mut State, value: Value| {
        charge(state, size(&value))?;
        Ok::<_, Error>(value)
    });
    environment.add_filter("replace", |state: &mut State, text: &str, from: &str, to: &str| {
        charge_replaced(state, text, from, to)?;
        Ok::<_, Error>(text.replace(from, to))
    });
    environment.add_filter("string", |state: &mut State, value: Value| match value.as_str() {
        Some(_) => Ok(value),
        None => text(state, |out| write!(out, "{value}")).map(Value::from),
    });
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter("list", |state: &mut State, value: &Value| {
        if value.is_undefined() {
            return Ok(Value::from(Vec::<Value>::new()));
        }
        charge(state, ELEMENT_BYTES * elements(value))?;
        Ok::<_, Error>(Value::from(value.try_iter()?.collect::<Vec<Value>>()))
    });
    // No chat template has them, and each makes much out of little.
    for name in ["batch", "slice", "format", "pprint", "groupby", "urlencode"] {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment.set_formatter(print);
}

/// Counts bytes that are about to be made.
pub(super) fn charge(state: &mut State, bytes: usize) -> Result<(), Error> {
    let meter = state.get_or_insert_extension(Meter::default());
    meter.bytes = meter.bytes.saturating_add(bytes);
    if meter.bytes > MAX_BYTES { Err(too_much()) } else { Ok(()) }
}

/// Counts what `replace` is about to make.
pub(super) fn charge_replaced(state: &mut State, text: &str, from: &str, to: &str) -> Result<(), Error> {
    let count = text.matches(from).count();
    charge(state, text.len().saturating_add(count.saturating_mul(to.len())))
}

/// Counts the list that splitting a text is about to make.
pub(super) fn charge_split(state: &mut State, text: &str) -> Result<(), Error> {
    // An empty separator is refused by whoever splits; a letter is the shortest.
    charge(state, text.len().saturating_add(ELEMENT_BYTES * (text.len() / 2 + 1)))
}

/// Text that may grow as long as the meter allows.
pub(super) fn text(
    state: &mut State,
    write: impl FnOnce(&mut Bounded) -> fmt::Result,
) -> Result<String, Error> {
    let left = MAX_BYTES - state.get_or_insert_extension(Meter::default()).bytes.min(MAX_BYTES);
    let mut out = Bounded { text: String::new(), left };
    write(&mut out).map_err(|_| too_much())?;
    charge(state, out.text.len())?;
    Ok(out.text)
}

pub(super) struct Bounded {
    text: String,
    left: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

fn too_much() -> Error {
    Error::new(ErrorKind::InvalidOperation, TOO_MUCH)
}

/// What a value that was made takes, without what its elements are.
fn size(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        // What is only iterable, a range for one, holds no elements.
        None if value.kind() == ValueKind::Seq => ELEMENT_BYTES * value.len().unwrap_or_default(),
        None => 0,
    }
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn elements(value: &Value) -> usize {
    value.as_str().map_or_else(|| value.len().unwrap_or_default(), str::len)
}

/// `{{ value }}`, also where it is captured.
fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => {
            charge(state, text.len())?;
            out.write_str(text)?;
        }
        None => {
            let text = text(state, |out| write!(out, "{value}"))?;
            out.write_str(&text)?;
        }
    }
    Ok(())
}

// === operators ===

fn add(state: &mut State, a: &Value, b: &Value) -> Result<Value, Error> {
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => text(state, |out| write!(out, "{a}{b}")).map(Value::from),
        _ if is_list(a) && is_list(b) => {
            let lengths = [a, b].map(|list| list.len().unwrap_or_default());
            charge(state, ELEMENT_BYTES * lengths.iter().sum::<usize>())?;
            Ok(Value::from(a.try_iter()?.chain(b.try_iter()?).collect::<Vec<Value>>()))
        }
        _ => calculate('+', (a, b), i128::checked_add, |a, b| a + b),
    }
}

fn multiply(state: &mut State, a: &Value, b: &Value) -> Result<Value, Error> {
    let (many, count) = if a.as_str().is_some() || is_list(a) { (a, b) } else { (b, a) };
    if many.as_str().is_none() && !is_list(many) {
        return calculate('*', (a, b), i128::checked_mul, |a, b| a * b);
    }
    let count = count
        .as_i64()
        .filter(|_| count.is_integer())
        .ok_or_else(|| unsupported('*', a, b))
        .map(|count| usize::try_from(count).unwrap_or_default())?;
    if let Some(text) = many.as_str() {
        charge(state, text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    let items: Vec<Value> = many.try_iter()?.collect();
    charge(state, (ELEMENT_BYTES * items.len()).saturating_mul(count))?;
    let all: Vec<Value> = std::iter::repeat_n(items, count).flatten().collect();
    Ok(Value::from(all))
}

fn calculate(
    sign: char,
    (a, b): (&Value, &Value),
    ints: fn(i128, i128) -> Option<i128>,
    floats: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let int = |value: &Value| i128::try_from(value.clone()).ok().filter(|_| value.is_integer());
    let float = |value: &Value| f64::try_from(value.clone()).ok().filter(|_| value.is_number());
    match (int(a), int(b), float(a), float(b)) {
        (Some(int), Some(other), ..) => match ints(int, other) {
            // Whatever fits is shown as the smaller type, so that it compares and prints like a literal.
            Some(result) => Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from)),
            None => {
                let text = format!("unable to calculate {a} {sign} {b}");
                Err(Error::new(ErrorKind::InvalidOperation, text))
            }
        },
        (.., Some(float), Some(other)) => Ok(Value::from(floats(float, other))),
        _ => Err(unsupported(sign, a, b)),
    }
}

fn unsupported(sign: char, a: &Value, b: &Value) -> Error {
    let (a, b) = (a.kind(), b.kind());
    let text = format!("tried to use {sign} operator on unsupported types {a} and {b}");
    Error::new(ErrorKind::InvalidOperation, text)
}

// === filters ===

fn join(
    state: &mut State,
    value: &Value,
    between: Option<&str>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<String, Error> {
    let attribute = match attribute {
        Some(name) => Some(name),
        None => options.get::<Option<&str>>("attribute")?,
    };
    let named = options.get::<Option<&str>>("d")?;
    options.assert_all_used()?;
    let items = value.try_iter()?.map(|item| match attribute {
        Some(name) => item.get_attr(name),
        None => Ok(item),
    });
    join_items(state, items, between.or(named).unwrap_or_default())
}

/// The texts of `items` with one between each two.
pub(super) fn join_items(
    state: &mut State,
    items: impl Iterator<Item = Result<Value, Error>>,
    between: &str,
) -> Result<String, Error> {
    let items: Vec<Value> = items.collect::<Result<_, _>>()?;
    text(state, |out| {
        for (at, item) in items.iter().enumerate() {
            out.write_str(if at > 0 { between } else { "" })?;
            match item.as_str() {
                Some(text) => out.write_str(text)?,
                None => write!(out, "{item}")?,
            }
        }
        Ok(())
    })
}

/// `text|indent(width=4, first=false, blank=false)`: as in Jinja, without a line end at the end.
fn indent(
    state: &mut State,
    indented: &str,
    width: Option<usize>,
    first: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let width = width.or(options.get("width")?).unwrap_or(4);
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    options.assert_all_used()?;
    if width > MAX_INDENT {
        let text = format!("`width` must be at most {MAX_INDENT}, got {width}");
        return Err(Error::new(ErrorKind::InvalidOperation, text));
    }
    let indented = indented.strip_suffix('\n').unwrap_or(indented);
    text(state, |out| {
        for (at, line) in indented.split('\n').enumerate() {
            out.write_str(if at > 0 { "\n" } else { "" })?;
            if if at == 0 { first } else { blank || !line.is_empty() } {
                write!(out, "{:width$}", "")?;
            }
            out.write_str(line)?;
        }
        Ok(())
    })
}

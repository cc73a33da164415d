//! Where Python and minijinja disagree and chat templates notice.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::meter;

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.set_unknown_method_callback(method);
}

/// `none` is not; a template guards `tools|length` with it.
fn is_iterable(value: &Value) -> bool {
    value.is_undefined() || value.as_str().is_some() || is_container(value)
}

/// Whatever has a length and can be indexed.
fn is_sequence(value: &Value) -> bool {
    value.is_undefined() || value.as_str().is_some() || is_container(value)
}

fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

/// What is undefined has none of anything.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("a value of type {} has no length", value.kind()))
    })
}

fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => match text_method(state, text, name, args)? {
            Some(result) => Ok(result),
            None => pycompat::unknown_method_callback(state, value, name, args),
        },
        None => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// Methods of `str` that pycompat does not have; `None` when it is none of these either.
fn text_method(state: &mut State, text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let affix = || from_args::<(&str,)>(args).map(|(affix,)| affix);
    let parts = |parts: Option<(&str, &str)>, separator: &str, absent: [&str; 3]| match parts {
        Some((before, after)) => Value::from(vec![before.to_owned(), separator.to_owned(), after.to_owned()]),
        None => Value::from(absent.map(str::to_owned).to_vec()),
    };
    Ok(Some(match name {
        "removeprefix" => Value::from(text.strip_prefix(affix()?).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(affix()?).unwrap_or(text)),
        "partition" => {
            let separator = affix()?;
            parts(text.split_once(separator), separator, [text, "", ""])
        }
        "rpartition" => {
            let separator = affix()?;
            parts(text.rsplit_once(separator), separator, ["", "", text])
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            Value::from(meter::join_items(state, items.try_iter()?.map(Ok), text)?)
        }
        // How wide or long the fields of a format are is the format's to say, and no chat template needs one.
        "format" => {
            return Err(Error::new(ErrorKind::InvalidOperation, "`format` is not supported, use `~`"));
        }
        "replace" => {
            let (from, to, _): (&str, &str, Option<i64>) = from_args(args)?;
            meter::charge_replaced(state, text, from, to)?;
            return Ok(None);
        }
        "split" | "splitlines" => {
            meter::charge_split(state, text)?;
            return Ok(None);
        }
        "rsplit" => {
            meter::charge_split(state, text)?;
            let (separator, limit): (&str, Option<i64>) = from_args(args)?;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX - 1);
            let mut pieces: Vec<String> = text.rsplitn(limit + 1, separator).map(str::to_owned).collect();
            pieces.reverse();
            Value::from(pieces)
        }
        _ => return Ok(None),
    }))
}

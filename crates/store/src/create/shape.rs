//! The Go template that a new model gets for the Jinja template in its weights, when that makes prompts of a shape that
//! is known.

use gguf::{Array, Gguf, Value};
use template::{Jinja, known};

pub(super) use template::known::Known;

/// `None` also when there is no Jinja template, or one that does not parse: the model is as good without.
pub(super) fn recognise(gguf: &Gguf) -> Option<&'static Known> {
    let source = gguf.metadata.get("tokenizer.chat_template").and_then(Value::as_str)?;
    let jinja = Jinja::parse(source).ok()?;
    known::recognise(&jinja, &special(gguf, "bos"), &special(gguf, "eos"))
}

/// The text of a special token, which Jinja templates are given.
fn special(gguf: &Gguf, name: &str) -> String {
    let id = gguf.metadata.get(&format!("tokenizer.ggml.{name}_token_id")).and_then(Value::as_u64);
    let text = match (gguf.metadata.get("tokenizer.ggml.tokens"), id) {
        (Some(Value::Array(Array::String(tokens))), Some(id)) => {
            usize::try_from(id).ok().and_then(|id| tokens.get(id))
        }
        _ => None,
    };
    text.cloned().unwrap_or_default()
}

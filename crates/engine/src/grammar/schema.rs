//! A JSON schema as a request brings it: read with bounds, written out in full, and given the way of writing that
//! answers shall have.

mod meaning;
mod nesting;

use serde_json::{Value, json};

use crate::Error;

/// The largest schema of real services that we know has 200 kB.
const MAX_BYTES: usize = 256 << 10;
/// Compilers of schemas recurse.
const MAX_DEPTH: usize = 64;
/// The same when references are followed: hundreds of definitions, each of which leads to the next.
const MAX_LEVELS: usize = 2_000;
/// Of one object, that may be left out: wherever one may come, each that follows may, too. To compile so many takes a
/// second without optimization, and more than twice as long for twice as many.
pub const MAX_OPTIONAL_KEYS: usize = 2_000;
/// Enough for so many levels, without optimization, too. Only what is used of it is ever memory.
pub const STACK_BYTES: usize = 128 << 20;

/// Whitespace between the tokens of JSON: none, one blank, or a line break and some indentation. Without a bound a model
/// that has nothing to say writes blanks for ever.
const WHITESPACE: &str = r"( |\n[ \t]{0,20})?";

/// How llguidance reads a schema that names this.
const OPTIONS: &str = "x-guidance";

pub fn read(text: &str) -> Result<Value, Error> {
    let problem = |problem: String| Error::Grammar(problem);
    if text.len() > MAX_BYTES {
        return Err(problem(format!("the schema must have at most {MAX_BYTES} bytes, got {}", text.len())));
    }
    let depth = depth(text);
    if depth > MAX_DEPTH {
        return Err(problem(format!("the schema must be nested at most {MAX_DEPTH} deep, got {depth}")));
    }
    let schema: Value =
        serde_json::from_str(text).map_err(|error| problem(format!("the schema is not JSON: {error}")))?;
    let mut schema = meaning::write_out(&schema).map_err(problem)?;
    let levels = nesting::levels(&schema);
    if levels > MAX_LEVELS {
        let text = format!("the schema must be at most {MAX_LEVELS} deep, references followed, got {levels}");
        return Err(problem(text));
    }
    // Clients send what their own libraries make of a type: keywords that only say more are passed over, and
    // alternatives need not exclude each other.
    let options = json!({
        "whitespace_pattern": WHITESPACE,
        "whitespace_flexible": true,
        "coerce_one_of": true,
        "lenient": true,
    });
    schema.insert(OPTIONS.to_owned(), options);
    Ok(Value::Object(schema))
}

/// How deep brackets are nested, without recursion.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_texts_are_not_nested() {
        for (text, expected) in
            [("{}", 1), (r#"{"a":[1,{"b":"[[["}]}"#, 3), (r#"["\\",["\"["]]"#, 2), ("]]]", 0), ("", 0)]
        {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_schema_is_refused_with_the_bound() {
        let refused = |text: &str| read(text).unwrap_err().to_string();
        assert!(refused("[]").contains("must be a JSON object"));
        assert!(refused("{").contains("not JSON"));
        let large = format!(r#"{{"title":"{}"}}"#, "a".repeat(MAX_BYTES));
        assert!(refused(&large).contains("at most 262144 bytes, got 262156"));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(refused(&deep).contains("at most 64 deep, got 100000"));
    }

    #[test]
    fn the_way_of_writing_is_ours() {
        let schema = read(r#"{"x-guidance":{"whitespace_flexible":false},"type":"null"}"#).unwrap();
        assert_eq!(schema[OPTIONS]["whitespace_pattern"], WHITESPACE);
        assert_eq!(schema["type"], "null");
    }
}

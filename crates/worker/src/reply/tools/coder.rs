//! Calls as Qwen 3 Coder writes them: tags with names in them instead of JSON.
//!
//! ```text
//! <tool_call>
//! <function=get_weather>
//! <parameter=city>
//! Paris
//! </parameter>
//! </function>
//! </tool_call>
//! ```
//!
//! A value is bare text, so the tool's own schema says what it is.

use std::ops::Range;

use serde_json::{Map, Number, Value};

use super::{Call, Offer};

pub const OPEN: &str = "<function=";
const CLOSE: &str = "</function>";
/// A model that forgets the end of the function still ends the call.
const CLOSE_CALL: &str = "</tool_call>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_CLOSE: &str = "</parameter>";

/// The first whole call in `text`.
pub fn next(text: &str) -> Option<Range<usize>> {
    let start = text.find(OPEN)?;
    let ends = [CLOSE, CLOSE_CALL].map(|close| text[start..].find(close).map(|at| start + at + close.len()));
    ends.into_iter().flatten().min().map(|end| start..end)
}

/// What the text of a call says; `None` when it names no tool that was offered.
pub fn read(text: &str, offers: &[Offer]) -> Option<Call> {
    let (name, mut rest) = text.strip_prefix(OPEN)?.split_once('>')?;
    let offer = offers.iter().find(|offer| offer.name == name.trim())?;
    let mut arguments = Map::new();
    while let Some((key, after)) = rest.split_once(PARAMETER).and_then(|(_, inside)| inside.split_once('>')) {
        // A value that the model forgot to close ends where the next one begins, or with the call.
        let ends = [PARAMETER_CLOSE, PARAMETER, CLOSE, CLOSE_CALL].map(|end| after.find(end));
        let end = ends.into_iter().flatten().min().unwrap_or(after.len());
        let value = &after[..end];
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let key = key.trim();
        arguments.insert(key.to_owned(), typed(value, &offer.types(key)));
        rest = &after[end..];
    }
    Some(Call { name: offer.name.clone(), arguments })
}

/// The first of the types that the text fits; what fits none is text.
fn typed(text: &str, types: &[&str]) -> Value {
    let has = |name: &str| types.contains(&name);
    let trimmed = text.trim();
    // Models trained on Python mix the cases up.
    if trimmed.eq_ignore_ascii_case("null") && !types.is_empty() {
        return Value::Null;
    }
    if has("boolean")
        && let Some(flag) =
            [("true", true), ("false", false)].iter().find(|(word, _)| trimmed.eq_ignore_ascii_case(word))
    {
        return Value::Bool(flag.1);
    }
    let json = |is_right: fn(&Value) -> bool| serde_json::from_str(trimmed).ok().filter(is_right);
    let int = || trimmed.parse::<i64>().ok().map(Value::from);
    let float = || Number::from_f64(trimmed.parse().ok()?).map(Value::Number);
    let whole = has("integer").then(int).flatten();
    let read = whole
        .or_else(|| has("number").then(|| int().or_else(float)).flatten())
        .or_else(|| has("array").then(|| json(Value::is_array)).flatten())
        .or_else(|| has("object").then(|| json(Value::is_object)).flatten());
    read.unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn offers() -> Vec<Offer> {
        let schema = json!({"properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "share": {"type": ["number", "null"]},
            "now": {"type": "boolean"}, "tags": {"type": "array"}, "place": {"anyOf": [{"type": "object"}]},
        }});
        vec![Offer { name: "get_weather".into(), schema }]
    }

    fn arguments(text: &str) -> Value {
        let range = next(text).unwrap();
        Value::Object(read(&text[range], &offers()).unwrap().arguments)
    }

    #[test]
    fn values_are_what_the_schema_says() {
        let text = "<function=get_weather>\n<parameter=city>\n42\n</parameter>\n<parameter=days>\n3\n</parameter>\n\
                    <parameter=share>\n0.5\n</parameter>\n<parameter=now>\ntrue\n</parameter>\n<parameter=tags>\n\
                    [1, \"a\"]\n</parameter>\n<parameter=place>\n{\"x\": 1}\n</parameter>\n<parameter=other>\n7\n\
                    </parameter>\n</function>";
        let expected = json!({
            "city": "42", "days": 3, "share": 0.5, "now": true, "tags": [1, "a"], "place": {"x": 1}, "other": "7"
        });
        assert_eq!(arguments(text), expected);
    }

    #[test]
    fn what_does_not_fit_its_type_is_text_and_null_is_null() {
        let text = "<function=get_weather><parameter=days>soon</parameter><parameter=share>Null</parameter>\
                    <parameter=tags>[1</parameter><parameter=now>True</parameter></function>";
        assert_eq!(arguments(text), json!({"days": "soon", "share": null, "tags": "[1", "now": true}));
    }

    #[test]
    fn only_one_line_end_on_each_side_is_no_part_of_a_value() {
        let text = "<function=get_weather>\n<parameter=city>\n\n two\nlines \n\n</parameter>\n</function>";
        assert_eq!(arguments(text), json!({"city": "\n two\nlines \n"}));
    }

    #[test]
    fn what_a_model_forgets_to_close_ends_with_what_is_around_it() {
        let text = "<function=get_weather>\n<parameter=days>\n3\n<parameter=city>\nBonn\n</tool_call>";
        assert_eq!(arguments(text), json!({"days": 3, "city": "Bonn"}));
    }

    #[test]
    fn an_unfinished_call_and_an_unknown_tool_are_none() {
        assert_eq!(next("<function=get_weather><parameter=city>Bonn"), None);
        assert_eq!(read("<function=rm></function>", &offers()), None);
    }
}

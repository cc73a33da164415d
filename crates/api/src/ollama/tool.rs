//! Tools that a model may call: their types are checked as Go's decoder would check them, and then they are kept as the
//! client wrote them. Ollama drops what its own types have no field for; a template may still show it to a model.

mod shape;

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::error::Result;
use crate::gojson::{self, AGAIN};

/// Has the types of Ollama's and its spelling: `type`, `function`, in it `name`, `description` and `parameters`.
pub type Tool = Value;

/// What Ollama's own types call a list of tools.
pub fn named_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Tool>, D::Error> {
    struct List;

    impl<'de> Visitor<'de> for List {
        type Value = Vec<Tool>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of tools")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Tool>, A::Error> {
            let mut tools = Vec::new();
            while let Some(Kept(tool)) = items.next_element()? {
                tools.push(tool);
            }
            Ok(tools)
        }
    }

    deserializer.deserialize_tuple_struct("Tools", 0, List)
}

/// The same where the list has no name.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Tool>, D::Error> {
    let tools: Vec<Kept> = Deserialize::deserialize(deserializer)?;
    Ok(tools.into_iter().map(|Kept(tool)| tool).collect())
}

/// Parameters that another API has elsewhere than in a tool of Ollama's.
pub(crate) fn check_parameters(mut parameters: Value) -> Result<Value> {
    gojson::from_slice::<shape::Parameters>(parameters.to_string().as_bytes())?;
    spell_parameters(&mut parameters);
    Ok(parameters)
}

/// A tool that has been checked.
struct Kept(Tool);

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kept, D::Error> {
        struct Look;

        impl<'de> Visitor<'de> for Look {
            type Value = Kept;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tool")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut again: A) -> Result<Kept, A::Error> {
                again.next_element::<shape::Tool>()?;
                let tool = again.next_element::<Value>()?.unwrap_or_default();
                Ok(Kept(spelled(tool)))
            }
        }

        deserializer.deserialize_newtype_struct(AGAIN, Look)
    }
}

/// With the names of its fields as they should be. To Go, `null` is a tool of which nothing is given.
fn spelled(mut tool: Value) -> Value {
    if tool.is_null() {
        return json!({"type": "", "function": {"name": "", "parameters": {"type": "", "properties": null}}});
    }
    spell(&mut tool, &["type", "items", "function"]);
    if let Some(function) = tool.get_mut("function") {
        spell(function, &["name", "description", "parameters"]);
        if let Some(parameters) = function.get_mut("parameters") {
            spell_parameters(parameters);
        }
    }
    tool
}

fn spell_parameters(parameters: &mut Value) {
    spell(parameters, &["type", "$defs", "items", "required", "properties"]);
    spell_properties(parameters);
}

fn spell_properties(of: &mut Value) {
    let properties = of.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(|map| map.values_mut()).for_each(spell_property);
}

fn spell_property(property: &mut Value) {
    spell(property, &["anyOf", "type", "items", "description", "enum", "properties", "required"]);
    spell_properties(property);
    let choices = property.get_mut("anyOf").and_then(Value::as_array_mut);
    choices.into_iter().flatten().for_each(spell_property);
}

/// Gives the fields of an object that have one of `names` in another case that name.
fn spell(object: &mut Value, names: &[&str]) {
    let Value::Object(map) = object else { return };
    let name = |key: &str| names.iter().find(|name| name.eq_ignore_ascii_case(key)).copied();
    if map.keys().any(|key| name(key).is_some_and(|name| name != key)) {
        let renamed = std::mem::take(map).into_iter();
        map.extend(renamed.map(|(key, value)| (name(&key).map(str::to_owned).unwrap_or(key), value)));
    }
}

#[cfg(test)]
mod tests;

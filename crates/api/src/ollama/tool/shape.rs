//! The types that Ollama's decoder wants in a tool, and what it calls them. Only decoded into: what is here is what a tool
//! may not contradict.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::gojson;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Tool {
    r#type: String,
    function: ToolFunction,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ToolFunction {
    name: String,
    description: String,
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "ToolFunctionParameters")]
pub(super) struct Parameters {
    r#type: String,
    required: Vec<String>,
    properties: Option<Properties>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", rename = "ToolProperty")]
struct Property {
    any_of: Vec<Property>,
    r#type: Types,
    description: String,
    r#enum: Vec<IgnoredAny>,
    properties: Option<Properties>,
    required: Vec<String>,
}

/// A type, or a list of them.
#[derive(Default)]
struct Types;

/// From names to properties.
struct Properties;

impl<'de> Deserialize<'de> for Types {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Types, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Types;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("types")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Types, A::Error> {
                while items.next_element::<String>()?.is_some() {}
                Ok(Types)
            }
        }

        deserializer.deserialize_tuple(1, List)
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Properties, D::Error> {
        gojson::ordered::<D, Property>(deserializer).map(|_| Properties)
    }
}

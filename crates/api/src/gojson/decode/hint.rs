//! Go's name of a type that serde only shows as a visitor: asked for an element, the visitor of a `Vec<T>` calls the
//! method of its deserializer that fits `T`, and that is all there is to know.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// `api.GenerateRequest`; the types of another Go package carry its name.
pub(super) fn struct_name(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("api.{name}") }
}

/// `[]string` for the visitor of a `Vec<String>`.
pub(super) fn list_name<'de, V: Visitor<'de>>(visitor: V) -> String {
    match visitor.visit_seq(Probe) {
        Err(Name(element)) => format!("[]{element}"),
        Ok(_) => "[]interface {}".to_owned(),
    }
}

pub(super) fn is_number(name: &str) -> bool {
    matches!(name.trim_end_matches(|c: char| c.is_ascii_digit()), "int" | "uint" | "float")
}

/// The answer, travelling as an error: it is the one thing that a visitor passes on unseen.
#[derive(Debug)]
struct Name(String);

struct Probe;

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Name {}

impl serde::de::Error for Name {
    fn custom<T: fmt::Display>(_: T) -> Name {
        Name("interface {}".to_owned())
    }
}

impl<'de> SeqAccess<'de> for Probe {
    type Error = Name;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Name> {
        seed.deserialize(Probe).map(Some)
    }
}

macro_rules! names {
    ($($method:ident $go:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Name> {
            Err(Name($go.to_owned()))
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Name;

    names! {
        deserialize_any "interface {}"
        deserialize_bool "bool"
        deserialize_i8 "int8"
        deserialize_i16 "int16"
        deserialize_i32 "int"
        deserialize_i64 "int"
        deserialize_u8 "uint8"
        deserialize_u16 "uint16"
        deserialize_u32 "int"
        deserialize_u64 "int"
        deserialize_f32 "float32"
        deserialize_f64 "float64"
        deserialize_char "string"
        deserialize_str "string"
        deserialize_string "string"
        deserialize_bytes "[]uint8"
        deserialize_byte_buf "[]uint8"
        deserialize_unit "interface {}"
        deserialize_map "map[string]interface {}"
        deserialize_identifier "string"
        deserialize_ignored_any "interface {}"
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Name> {
        visitor.visit_some(Probe)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Name> {
        Err(Name(list_name(visitor)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Name> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, Name> {
        Err(Name(struct_name(name)))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, Name> {
        Err(Name(struct_name(name)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Name> {
        if name == super::AGAIN {
            return visitor.visit_seq(Probe);
        }
        Err(Name(struct_name(name)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Name> {
        Err(Name(struct_name(name)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Name> {
        Err(Name("string".to_owned()))
    }
}

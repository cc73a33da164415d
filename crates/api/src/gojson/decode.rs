//! A tree to a type, as Go's `json.Unmarshal` does it, for whatever derives `Deserialize`.
//!
//! * Field names match in any case, the last of several wins, `null` is "not given", the unknown is skipped.
//! * A wrong type is named with the path of fields that led to it and with Go's name of the type wanted.
//! * A newtype stands for a Go type with an `UnmarshalJSON` of its own: errors inside name the struct around it, and
//!   where a text was wanted, the type. [`AGAIN`] is one that reads its value several times.
//! * A tuple struct is a list whose Go type has a name. A tuple is several or, where a text stands, only that one.

mod hint;

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::parse::Node;

/// The newtype that sees its value as a list without end, of which each element is that value: for types that must look
/// twice, once at what it is and once at what it should be.
pub(crate) const AGAIN: &str = "again";

/// A text for the caller; Go's wording where Go has one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Error(String);

type Result<T, E = Error> = std::result::Result<T, E>;

pub(super) fn decode<'de, T: serde::Deserialize<'de>>(node: &Node<'de>) -> Result<T> {
    T::deserialize(Cursor { node, place: Place::default(), name: None })
}

/// Where in the request we are, as far as errors tell it: list positions and map keys are left out, as in Go.
#[derive(Clone, Copy, Default)]
struct Place<'p> {
    /// The struct that errors name.
    owner: &'static str,
    /// Whether `owner` stays, whatever structs lie below.
    is_sealed: bool,
    field: Option<&'static str>,
    parent: Option<&'p Place<'p>>,
}

#[derive(Clone, Copy)]
struct Cursor<'n, 'p, 'de> {
    node: &'n Node<'de>,
    place: Place<'p>,
    /// Of the newtype that this is the inside of.
    name: Option<&'static str>,
}

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Error {
        Error(text.to_string())
    }
}

// === impl Place ===

impl Place<'_> {
    /// `ChatRequest.messages.content`, or nothing at the top.
    fn path(&self) -> Option<String> {
        let mut fields = Vec::new();
        let mut place = Some(self);
        while let Some(Place { field, parent, .. }) = place {
            fields.extend(*field);
            place = *parent;
        }
        fields.reverse();
        let owner = self.owner.rsplit('.').next().unwrap_or_default();
        (!fields.is_empty()).then(|| format!("{owner}.{}", fields.join(".")))
    }
}

// === impl Cursor ===

impl<'n, 'p, 'de> Cursor<'n, 'p, 'de> {
    fn mismatch(&self, wanted: &str) -> Error {
        let found = match self.node {
            Node::Null => Cow::Borrowed("null"),
            Node::Bool(_) => Cow::Borrowed("bool"),
            // Go repeats the digits where a number was wanted, since then it is the digits that are wrong.
            Node::Number(digits) if hint::is_number(wanted) => Cow::Owned(format!("number {digits}")),
            Node::Number(_) => Cow::Borrowed("number"),
            Node::String(_) => Cow::Borrowed("string"),
            Node::Array(_) => Cow::Borrowed("array"),
            Node::Object(_) => Cow::Borrowed("object"),
        };
        let into = match self.place.path() {
            Some(path) => format!("struct field {path}"),
            None => "value".to_owned(),
        };
        Error(format!("json: cannot unmarshal {found} into Go {into} of type {wanted}"))
    }

    /// A number that fits `T`; `null` is zero. Go takes neither `1.0` nor `1e3` for an integer.
    fn number<T: std::str::FromStr + Default>(&self, wanted: &str) -> Result<T> {
        match self.node {
            Node::Null => Ok(T::default()),
            Node::Number(digits) => digits.parse().map_err(|_| self.mismatch(wanted)),
            _ => Err(self.mismatch(wanted)),
        }
    }

    fn float(&self, wanted: &str) -> Result<f64> {
        let number: f64 = self.number(wanted)?;
        if number.is_finite() { Ok(number) } else { Err(self.mismatch(wanted)) }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $go:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            visitor.$visit(self.number($go)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Cursor<'_, '_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Number(digits) => match (digits.parse(), digits.parse()) {
                (Ok(value), _) => visitor.visit_u64(value),
                // Only a float has a zero below zero.
                (_, Ok(value)) if value != 0 => visitor.visit_i64(value),
                _ => visitor.visit_f64(self.float("float64")?),
            },
            Node::String(text) => visit_text(text, visitor),
            Node::Array(items) => visitor.visit_seq(Items { rest: items.iter(), place: self.place }),
            Node::Object(entries) => visitor.visit_map(Entries::new(entries, self.place)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Null => visitor.visit_bool(false),
            Node::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.mismatch("bool")),
        }
    }

    // Go's types say `int` where ours say more.
    integers! {
        deserialize_i8 visit_i8 "int8"
        deserialize_i16 visit_i16 "int16"
        deserialize_i32 visit_i32 "int"
        deserialize_i64 visit_i64 "int"
        deserialize_u8 visit_u8 "uint8"
        deserialize_u16 visit_u16 "uint16"
        deserialize_u32 visit_u32 "int"
        deserialize_u64 visit_u64 "int"
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_f64(self.float("float32")?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_f64(self.float("float64")?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Null => visitor.visit_str(""),
            Node::String(text) => visit_text(text, visitor),
            _ => Err(self.mismatch(&self.name.map_or("string".to_owned(), hint::struct_name))),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if name == AGAIN {
            return visitor.visit_seq(Again(self));
        }
        let place = Place { is_sealed: true, ..self.place };
        visitor.visit_newtype_struct(Cursor { place, name: Some(name), ..self })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Null => visitor.visit_seq(Items { rest: [].iter(), place: self.place }),
            Node::Array(items) => visitor.visit_seq(Items { rest: items.iter(), place: self.place }),
            _ => Err(self.mismatch(&hint::list_name(visitor))),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        match self.node {
            Node::Null | Node::Array(_) => self.deserialize_seq(visitor),
            _ => Err(self.mismatch(&hint::struct_name(name))),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::String(_) => {
                visitor.visit_seq(Items { rest: std::slice::from_ref(self.node).iter(), place: self.place })
            }
            _ => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Null => visitor.visit_map(Entries::new(&[], self.place)),
            Node::Object(entries) => visitor.visit_map(Entries::new(entries, self.place)),
            _ => Err(self.mismatch("map[string]interface {}")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let entries: &[_] = match self.node {
            Node::Null => &[],
            Node::Object(entries) => entries,
            _ => return Err(self.mismatch(&hint::struct_name(name))),
        };
        let owner = if self.place.is_sealed { self.place.owner } else { name };
        let place = Place { owner, ..self.place };
        visitor.visit_map(Entries { rest: known(entries, fields).into_iter(), value: None, place })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.node {
            Node::String(text) => visitor.visit_enum(Word(text)),
            _ => Err(self.mismatch("string")),
        }
    }

    forward_to_deserialize_any! { char bytes byte_buf unit unit_struct identifier ignored_any }
}

fn visit_text<'de, V: Visitor<'de>>(text: &Cow<'de, str>, visitor: V) -> Result<V::Value> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_str(text),
    }
}

/// The entries that `fields` knows under the names used there: at most one each, the last that is not `null`.
fn known<'n, 'de>(
    entries: &'n [(Cow<'de, str>, Node<'de>)],
    fields: &'static [&'static str],
) -> Vec<(Key<'n>, &'n Node<'de>)> {
    let mut known: Vec<(&'static str, &Node<'de>)> = Vec::with_capacity(entries.len().min(fields.len()));
    for (key, node) in entries.iter().filter(|(_, node)| !matches!(node, Node::Null)) {
        let exact = fields.iter().find(|field| *field == key);
        let Some(&field) = exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(key)))
        else {
            continue;
        };
        match known.iter_mut().find(|(name, _)| *name == field) {
            Some(earlier) => earlier.1 = node,
            None => known.push((field, node)),
        }
    }
    known.into_iter().map(|(field, node)| (Key::Field(field), node)).collect()
}

struct Items<'n, 'p, 'de> {
    rest: std::slice::Iter<'n, Node<'de>>,
    place: Place<'p>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        self.rest
            .next()
            .map(|node| seed.deserialize(Cursor { node, place: self.place, name: None }))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// One value, over and over.
struct Again<'n, 'p, 'de>(Cursor<'n, 'p, 'de>);

impl<'de> SeqAccess<'de> for Again<'_, '_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        seed.deserialize(self.0).map(Some)
    }
}

/// A field of a struct, which errors name, or a key of a map, which they do not.
enum Key<'n> {
    Field(&'static str),
    Text(&'n str),
}

struct Entries<'n, 'p, 'de> {
    rest: std::vec::IntoIter<(Key<'n>, &'n Node<'de>)>,
    value: Option<(Option<&'static str>, &'n Node<'de>)>,
    place: Place<'p>,
}

impl<'n, 'p, 'de> Entries<'n, 'p, 'de> {
    fn new(entries: &'n [(Cow<'de, str>, Node<'de>)], place: Place<'p>) -> Self {
        let keys: Vec<_> = entries.iter().map(|(key, node)| (Key::Text(key), node)).collect();
        Entries { rest: keys.into_iter(), value: None, place }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, '_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        let (text, field) = match key {
            Key::Field(name) => (name, Some(name)),
            Key::Text(text) => (text, None),
        };
        self.value = Some((field, node));
        seed.deserialize(IntoDeserializer::<Error>::into_deserializer(text)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let (field, node) =
            self.value.take().ok_or_else(|| Error::custom("a value was asked for before its key"))?;
        let place = match field {
            Some(_) => Place { field, parent: Some(&self.place), ..self.place },
            None => self.place,
        };
        seed.deserialize(Cursor { node, place, name: None })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// A variant without content, the only kind that the API has.
struct Word<'n>(&'n str);

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self)> {
        let variant = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(self.0))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value> {
        Err(Error::custom("a variant with content is not part of the API"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value> {
        Err(Error::custom("a variant with content is not part of the API"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value> {
        Err(Error::custom("a variant with content is not part of the API"))
    }
}

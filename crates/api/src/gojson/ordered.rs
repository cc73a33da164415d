//! Maps whose order Ollama keeps. It reads them by another decoder than Go's, with one text for whatever is none.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

pub const NO_MAP: &str = "Value looks like object, but can't find closing '}' symbol";

/// The entries of a map as they come; none of `null`. Errors inside name the struct around the map.
pub fn ordered<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<(String, V)>, D::Error> {
    struct Entries<'a, V> {
        /// Whether there is a map; what goes wrong after that has words of its own.
        is_map: &'a mut bool,
        value: PhantomData<V>,
    }

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<'_, V> {
        type Value = Vec<(String, V)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            *self.is_map = true;
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(
            self,
            deserializer: D,
        ) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(self)
        }
    }

    let mut is_map = false;
    let entries = Entries { is_map: &mut is_map, value: PhantomData };
    let read = deserializer.deserialize_newtype_struct("Map", entries);
    read.map_err(|error| if is_map { error } else { D::Error::custom(NO_MAP) })
}

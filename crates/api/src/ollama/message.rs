//! What a conversation is made of.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::gojson::{self, quote};

/// One turn. `role` is lower-cased on input; any string is accepted, as Ollama does.
// The derived code is reached through the impls below; `Alias` is what Go's errors call it there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self", rename = "Alias")]
pub struct Message {
    pub role: String,
    pub content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// Image bytes, standard base64 with padding on the wire; line ends inside are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(pub Vec<u8>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub function: ToolCallFunction,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCallFunction {
    /// Always serialised, zero too.
    pub index: u32,
    pub name: String,
    /// A JSON object, in the order in which it was written.
    #[serde(deserialize_with = "arguments")]
    pub arguments: Map<String, Value>,
}

/// Go does not mind bits behind the last byte, and neither do the clients that send them.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// `think`: a bool or a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Think {
    Bool(bool),
    /// `low`, `medium`, `high` or `max`.
    Level(String),
}

fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    gojson::ordered(deserializer).map(Map::from_iter)
}

// === impl Message ===

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Message::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Message, D::Error> {
        struct Turn;

        impl<'de> Visitor<'de> for Turn {
            type Value = Message;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Message, D::Error> {
                let mut message = Message::deserialize(deserializer)?;
                message.role = message.role.to_lowercase();
                Ok(message)
            }
        }

        deserializer.deserialize_newtype_struct("Message", Turn)
    }
}

// === impl Image ===

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Image, D::Error> {
        struct Base64;

        impl<'de> Visitor<'de> for Base64 {
            type Value = Image;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Image, E> {
                Image::from_base64(text)
                    .map_err(|at| E::custom(format_args!("illegal base64 data at input byte {at}")))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Image, D::Error> {
                deserializer.deserialize_str(self)
            }
        }

        deserializer.deserialize_newtype_struct("ImageData", Base64)
    }
}

impl Image {
    /// Decodes standard base64, or tells at which byte it goes wrong.
    pub fn from_base64(text: &str) -> Result<Image, usize> {
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let decoded = if text.bytes().any(|byte| is_line_end(&byte)) {
            LENIENT.decode(text.bytes().filter(|byte| !is_line_end(byte)).collect::<Vec<u8>>())
        } else {
            LENIENT.decode(text)
        };
        decoded.map(Image).map_err(|_| illegal_byte(text.as_bytes()))
    }
}

/// Where Go's decoder stops in `text`, which is known to be no base64.
fn illegal_byte(text: &[u8]) -> usize {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let mut bytes = text.iter().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
    let mut in_group = 0; // How many digits of the group of four have been seen.
    while let Some((at, &byte)) = bytes.next() {
        if is_digit(byte) {
            in_group = (in_group + 1) % 4;
            continue;
        }
        if byte != b'=' || in_group < 2 {
            return at;
        }
        if in_group == 2 {
            match bytes.next() {
                Some((_, b'=')) => {}
                Some((at, _)) => return at - 1, // Go points at the padding that lacks its twin.
                None => return text.len(),
            }
        }
        // After the padding nothing may follow.
        return bytes.next().map_or(text.len(), |(at, _)| at);
    }
    text.len() - in_group
}

// === impl Think ===

impl Think {
    pub const LEVELS: [&str; 4] = ["low", "medium", "high", "max"];

    pub fn is_on(&self) -> bool {
        !matches!(self, Think::Bool(false))
    }
}

impl Serialize for Think {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Think::Bool(on) => serializer.serialize_bool(*on),
            Think::Level(level) => serializer.serialize_str(level),
        }
    }
}

impl<'de> Deserialize<'de> for Think {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Think, D::Error> {
        const CHOICES: &str = r#""high", "medium", "low", "max", true, or false"#;
        match Value::deserialize(deserializer)? {
            Value::Bool(on) => Ok(Think::Bool(on)),
            Value::String(level) if Think::LEVELS.contains(&level.as_str()) => Ok(Think::Level(level)),
            Value::String(level) => Err(D::Error::custom(format_args!(
                "invalid think value: {} (must be {CHOICES})",
                quote(&level)
            ))),
            _ => Err(D::Error::custom(format_args!("think must be a boolean or string ({CHOICES})"))),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Logprob {
    pub token: String,
    pub logprob: f64,
    pub bytes: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<TopLogprob>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    pub token: String,
    pub logprob: f64,
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_survives_any_json_reader_with_its_role_lowered() {
        let written = json!({
            "role": "Assistant", "content": "", "images": ["AAE="],
            "tool_calls": [{"id": "c", "function": {"index": 1, "name": "f", "arguments": {"b": 1, "a": [2]}}}]
        });
        let message: Message = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(message.role, "assistant");
        let mut expected = written;
        expected["role"] = "assistant".into();
        assert_eq!(serde_json::to_value(&message).unwrap(), expected);
    }

    #[test]
    fn base64_is_read_as_go_reads_it() {
        assert_eq!(Image::from_base64("AAEC"), Ok(Image(vec![0, 1, 2])));
        assert_eq!(Image::from_base64("AA\r\nE\n=\n"), Ok(Image(vec![0, 1])));
        assert_eq!(Image::from_base64(""), Ok(Image(Vec::new())));
        // Bits behind the last byte are dropped.
        assert_eq!(Image::from_base64("AB=="), Ok(Image(vec![0])));
    }

    #[test]
    fn wrong_base64_tells_the_byte_that_go_tells() {
        for (text, at) in [
            ("data:image/png;base64,AAEC", 4),
            ("AAE", 0),
            ("AAECA", 4),
            ("AA=", 3),
            ("AA=A", 2),
            ("A===", 1),
            ("AAE=A", 4),
            ("AA\n!A", 3),
            ("_-_-", 0),
        ] {
            assert_eq!(Image::from_base64(text), Err(at), "{text:?}");
        }
    }

    #[test]
    fn arguments_that_are_no_map_are_refused_as_ollama_does() {
        let read = |arguments: Value| {
            let body = json!({"function": {"name": "f", "arguments": arguments}}).to_string();
            gojson::from_slice::<ToolCall>(body.as_bytes()).map(|call| call.function.arguments)
        };
        for wrong in [json!("{}"), json!([]), json!(1)] {
            assert_eq!(read(wrong).unwrap_err().message, gojson::NO_MAP);
        }
        assert!(read(Value::Null).unwrap().is_empty());
        let kept: Vec<String> =
            read(json!({"b": null, "a": 1})).unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(kept, ["b", "a"]);
    }
}

//! Server-sent events, and what every translation of Ollama's stream into them owes its clients.
//!
//! Bytes only: who sends them, and when, is the gateway's business.

#[cfg(test)]
pub(crate) mod testing;

use serde::Serialize;

use crate::error::Error;
use crate::gojson;

/// Ollama's stream in the words of another API.
///
/// The laws: whatever parts come, every frame is whole, and the last one is the one by which that API's clients know
/// that the stream has ended. It comes once, and nothing comes after it.
pub trait Translation {
    /// What Ollama's own stream consists of.
    type Part;

    /// Writes what `part` adds.
    fn push(&mut self, part: Self::Part, events: &mut Events);

    /// The stream has broken: an error frame, and an end that no client waits beyond.
    fn fail(&mut self, error: &Error, events: &mut Events);

    /// No part is left. A stream that lacks its last part is finished here.
    fn end(&mut self, events: &mut Events);
}

/// Frames, ready to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events(Vec<u8>);

// === impl Events ===

impl Events {
    /// A frame without a name.
    pub fn data<T: Serialize>(&mut self, value: &T) {
        let json =
            gojson::to_vec(value).expect("answers have string keys and nothing that fails to serialise");
        self.0.extend_from_slice(b"data: ");
        self.0.extend_from_slice(&json);
        self.0.extend_from_slice(b"\n\n");
    }

    /// A frame whose name clients dispatch on.
    pub fn named<T: Serialize>(&mut self, name: &str, value: &T) {
        self.0.extend_from_slice(b"event: ");
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.data(value);
    }

    /// OpenAI's end of a stream.
    pub fn done(&mut self) {
        self.0.extend_from_slice(b"data: [DONE]\n\n");
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

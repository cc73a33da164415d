//! The vocabulary: what each token renders as, what kind it is, and which bytes an encoder finds it by.

use std::collections::HashMap;

/// The token types of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    /// Also everything undefined: a token that the model does not use and that renders as nothing.
    Unused,
    Byte,
}

/// All tokens, by id and by the bytes that they stand for in a text.
#[derive(Default)]
pub(super) struct Vocab {
    /// The pieces of all tokens, one after another.
    bytes: Vec<u8>,
    /// Where each piece ends in `bytes`.
    ends: Vec<usize>,
    kinds: Vec<Kind>,
    ids: HashMap<Box<[u8]>, u32>,
}

// === impl Kind ===

impl Kind {
    pub fn from_id(id: i64) -> Kind {
        match id {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            6 => Kind::Byte,
            _ => Kind::Unused,
        }
    }

    /// Whether such a token is only written out for those who ask for it.
    pub fn is_hidden(self) -> bool {
        matches!(self, Kind::Control | Kind::Unknown)
    }

    /// Whether such a token is cut out of a text before the text is encoded.
    pub fn is_added(self) -> bool {
        matches!(self, Kind::Control | Kind::Unknown | Kind::UserDefined)
    }
}

// === impl Vocab ===

impl Vocab {
    pub fn with_capacity(tokens: usize) -> Vocab {
        Vocab {
            bytes: Vec::with_capacity(tokens * 8),
            ends: Vec::with_capacity(tokens),
            kinds: Vec::with_capacity(tokens),
            ids: HashMap::with_capacity(tokens),
        }
    }

    /// Adds the next token. `key` is what an encoder finds it by; of two tokens with one key the first counts.
    pub fn push(&mut self, piece: &[u8], key: Option<&[u8]>, kind: Kind) {
        let id = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        if let Some(key) = key {
            self.ids.entry(key.into()).or_insert(id);
        }
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len());
        self.kinds.push(kind);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn id(&self, key: &[u8]) -> Option<u32> {
        self.ids.get(key).copied()
    }

    /// Empty when there is no such token.
    pub fn piece(&self, id: u32) -> &[u8] {
        let at = id as usize;
        let Some(&end) = self.ends.get(at) else { return &[] };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..end]
    }

    pub fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// Every key and its token, in no order.
    pub fn keys(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.ids.iter().map(|(key, &id)| (&**key, id))
    }
}

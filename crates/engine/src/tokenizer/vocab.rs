//! The vocabulary: what each token renders as, what kind it is, and which bytes an encoder finds it by.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

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
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    /// What tokens are found by, one after another, and where that ends; empty for one that is not found.
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    /// Tokens by the hash of their keys. The keys themselves would be allocations of their own, which for a quarter
    /// of a million tokens take more memory than all pieces.
    ids: HashTable<u32>,
    hasher: RandomState,
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
            keys: Vec::with_capacity(tokens * 8),
            key_ends: Vec::with_capacity(tokens),
            ids: HashTable::with_capacity(tokens),
            hasher: RandomState::new(),
        }
    }

    /// Adds the next token. `key` is what an encoder finds it by; of two tokens with one key the first counts.
    pub fn push(&mut self, piece: &[u8], key: Option<&[u8]>, kind: Kind) {
        let id = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let is_new = key.is_some_and(|key| self.id(key).is_none());
        self.keys.extend_from_slice(key.filter(|_| is_new).unwrap_or_default());
        self.key_ends.push(end(&self.keys));
        if let Some(key) = key.filter(|_| is_new) {
            let Vocab { keys, key_ends, ids, hasher, .. } = self;
            ids.insert_unique(hasher.hash_one(key), id, |&id| hasher.hash_one(part(keys, key_ends, id)));
        }
        self.bytes.extend_from_slice(piece);
        self.ends.push(end(&self.bytes));
        self.kinds.push(kind);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn id(&self, key: &[u8]) -> Option<u32> {
        let is_it = |&id: &u32| part(&self.keys, &self.key_ends, id) == key;
        self.ids.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// What a token is found by; empty when it is not found.
    pub fn key(&self, id: u32) -> &[u8] {
        part(&self.keys, &self.key_ends, id)
    }

    /// Empty when there is no such token.
    pub fn piece(&self, id: u32) -> &[u8] {
        part(&self.bytes, &self.ends, id)
    }

    pub fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// Every key and its token, in no order.
    pub fn keys(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.ids.iter().map(|&id| (part(&self.keys, &self.key_ends, id), id))
    }
}

/// A file with 4 GiB of text in its vocabulary would not get here: its header is bounded.
fn end(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// The part of `bytes` that belongs to a token; empty when there is no such token.
fn part<'a>(bytes: &'a [u8], ends: &[u32], id: u32) -> &'a [u8] {
    let at = id as usize;
    let Some(&end) = ends.get(at) else { return &[] };
    let start = if at == 0 { 0 } else { ends[at - 1] };
    &bytes[start as usize..end as usize]
}

//! Tokenizers: from the files of a checkpoint to the keys of a GGUF.

mod added;
mod json;
mod roles;
mod sentencepiece;

use gguf::Value;

use crate::Error;
use crate::checkpoint::{Checkpoint, Entries};

/// The largest published tokenizer.json has 33 MB.
const MAX_TOKENIZER: u64 = 64 << 20;

/// What a token is. The numbers are the format's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A vocabulary, by id.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    /// `tokenizer.ggml.model`: `gpt2`, `llama` or `bert`.
    pub model: &'static str,
    pub tokens: Vec<Token>,
    /// More keys, without `tokenizer.` before them.
    pub keys: Entries,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub text: String,
    pub kind: Kind,
    pub score: f32,
}

/// The keys, without `tokenizer.` before them. `rows` is how many tokens the embedding has.
pub(crate) fn read(checkpoint: &Checkpoint<'_>, rows: u64) -> Result<Entries, Error> {
    let json = checkpoint.json("tokenizer.json", MAX_TOKENIZER)?;
    let pieces = checkpoint.file("tokenizer.model");
    let mut vocabulary = match (&json, pieces) {
        // Made from the pieces, which have the scores that it lost.
        (Some(json), Some(pieces)) if json::is_sentencepiece(json)? => sentencepiece::read(pieces)?,
        (Some(json), _) => json::read(json, rows)?,
        (None, Some(pieces)) => sentencepiece::read(pieces)?,
        (None, None) => return Err(Error::NoTokenizer),
    };
    added::apply(checkpoint, json.as_ref(), &mut vocabulary, rows)?;
    fit(&mut vocabulary, rows)?;
    let roles = roles::read(checkpoint, json.as_ref(), &vocabulary)?;
    Ok(vocabulary.into_keys(roles))
}

/// As many tokens as the embedding has rows: those that are missing are never said, and what is too much has no row.
fn fit(vocabulary: &mut Vocabulary, rows: u64) -> Result<(), Error> {
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let tokens = vocabulary.tokens.len();
    // The embedding has that many rows on disk, so this is no larger than what was uploaded.
    for at in tokens..rows {
        vocabulary.tokens.push(Token { text: format!("[PAD{at}]"), kind: Kind::Unused, score: -1000.0 });
    }
    let is_said = |token: &Token| !matches!(token.kind, Kind::Unused | Kind::UserDefined | Kind::Control);
    match vocabulary.tokens.iter().skip(rows).find(|token| is_said(token)) {
        Some(token) => {
            let problem =
                format!("it has {tokens} tokens, the embedding {rows} rows; {:?} has none", token.text);
            Err(Error::file("tokenizer", problem))
        }
        None => {
            vocabulary.tokens.truncate(rows);
            Ok(())
        }
    }
}

// === impl Vocabulary ===

impl Vocabulary {
    fn into_keys(self, roles: Entries) -> Entries {
        let mut keys: Entries = vec![("ggml.model".to_owned(), self.model.into())];
        keys.extend(self.keys);
        if self.model == "llama" {
            let scores: Vec<f32> = self.tokens.iter().map(|token| token.score).collect();
            keys.push(("ggml.scores".to_owned(), scores.into()));
        }
        let kinds: Vec<i32> = self.tokens.iter().map(|token| token.kind as i32).collect();
        keys.push(("ggml.token_type".to_owned(), Value::from(kinds)));
        let texts: Vec<String> = self.tokens.into_iter().map(|token| token.text).collect();
        keys.push(("ggml.tokens".to_owned(), texts.into()));
        keys.extend(roles);
        keys
    }

    pub fn id(&self, text: &str) -> Option<u32> {
        self.tokens.iter().position(|token| token.text == text).and_then(|at| u32::try_from(at).ok())
    }
}

//! tokenizer.model: SentencePiece's protocol buffer, of which three fields matter.
//!
//! Format: <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>.

use prost::Message;

use super::{Kind, MAX_TOKENIZER, Token, Vocabulary};
use crate::Error;
use crate::job::Input;
use crate::source::read_text;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(float, tag = "2")]
    score: f32,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    /// 1 = unigram, 2 = byte pairs.
    #[prost(int32, optional, tag = "3")]
    model: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    /// True where it is not said.
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
}

const BYTE_PAIRS: i32 = 2;

pub(super) fn read(input: &Input) -> Result<Vocabulary, Error> {
    let wrong = |problem: String| Error::file(&input.name, problem);
    let bytes = read_text(&input.name, &input.path, MAX_TOKENIZER)?;
    let model = Model::decode(bytes.as_slice())
        .map_err(|error| wrong(format!("it is no SentencePiece model: {error}")))?;
    if model.pieces.is_empty() {
        return Err(wrong("it has no pieces".to_owned()));
    }
    let trained = model.trainer.and_then(|trainer| trainer.model).unwrap_or(1);
    if trained != BYTE_PAIRS {
        return Err(wrong("it is no model of byte pairs; unigram models are not supported".to_owned()));
    }
    let token = |piece: Piece| -> Result<Token, Error> {
        let kind = match piece.kind.unwrap_or(1) {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            other => return Err(wrong(format!("piece {:?} has the unknown type {other}", piece.text))),
        };
        if piece.score.is_nan() {
            return Err(wrong(format!("piece {:?} has a score that is no number", piece.text)));
        }
        Ok(Token { text: piece.text, kind, score: piece.score })
    };
    let tokens = model.pieces.into_iter().map(token).collect::<Result<_, _>>()?;
    let add_prefix = model.normalizer.and_then(|normalizer| normalizer.add_dummy_prefix).unwrap_or(true);
    let keys = vec![
        ("ggml.pre".to_owned(), "default".into()),
        ("ggml.add_space_prefix".to_owned(), add_prefix.into()),
    ];
    Ok(Vocabulary { model: "llama", tokens, keys })
}

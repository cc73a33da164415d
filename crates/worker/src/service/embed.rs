//! One call of `Embed`: texts to vectors, in their order.

use api::Error;
use engine::Tokenizer;
use protocol::v1::{EmbedRequest, EmbedResponse, Vector};

use crate::{keep_alive::KeepAlive, replicas::Replicas};

pub async fn embed(replicas: &Replicas, request: EmbedRequest) -> Result<EmbedResponse, Error> {
    let model = request.model.clone().unwrap_or_default();
    let in_use = replicas.enter(&model, request.keep_alive_ns.map(KeepAlive::from_ns))?;
    let loaded = in_use.loaded().clone();
    let slot = in_use.take_slot()?;
    let wish = Wish {
        room: loaded.context_length(request.context_length),
        truncate: request.truncate,
        dimensions: request.dimensions,
        normalize: request.normalize,
    };
    let inputs = {
        let loaded = loaded.clone();
        let tokenize = move || {
            let tokenizer = loaded.runner.tokenizer();
            request.inputs.iter().map(|input| wish.tokenize(input, tokenizer)).collect::<Result<Vec<_>, _>>()
        };
        let tokenized = tokio::task::spawn_blocking(tokenize).await;
        tokenized.unwrap_or_else(|_| Err(Error::internal("tokenizing panicked")))?
    };
    let prompt_tokens = inputs.iter().map(Vec::len).sum::<usize>() as u64;
    let rows = loaded.runner.embed(slot, inputs).await?;
    let embeddings = rows.into_iter().map(|row| wish.finish(row)).collect::<Result<_, _>>()?;
    Ok(EmbedResponse { embeddings, prompt_tokens })
}

/// What is to be done with texts and vectors.
#[derive(Clone, Copy, Debug)]
struct Wish {
    /// Tokens of an input.
    room: usize,
    truncate: bool,
    /// 0 = all.
    dimensions: u32,
    normalize: bool,
}

// === impl Wish ===

impl Wish {
    fn tokenize(&self, text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, Error> {
        let tokens = encode(text, tokenizer);
        if tokens.len() > self.room && !self.truncate {
            return Err(Error::invalid("the input length exceeds the context length"));
        }
        Ok(cut(tokens, self.room, tokenizer))
    }

    fn finish(&self, mut row: Vec<f32>) -> Result<Vector, Error> {
        check_finite(&row)?;
        let dimensions = self.dimensions as usize;
        if (1..row.len()).contains(&dimensions) {
            row.truncate(dimensions);
        }
        if self.normalize {
            normalize(&mut row);
        }
        Ok(Vector { values: row })
    }
}

/// At least one token.
pub(super) fn encode(text: &str, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut tokens = tokenizer.encode(text, true, true);
    if tokens.is_empty() {
        // A model without a beginning of sequence: an empty text still has an end.
        tokens.extend(tokenizer.eos());
    }
    tokens
}

/// To `room` tokens. The end of sequence that some embedders read their answer from stays at the end.
pub(super) fn cut(mut tokens: Vec<u32>, room: usize, tokenizer: &Tokenizer) -> Vec<u32> {
    if tokens.len() > room {
        let end = tokens.pop().filter(|end| Some(*end) == tokenizer.eos() && room > 0);
        tokens.truncate(room - usize::from(end.is_some()));
        tokens.extend(end);
    }
    tokens
}

pub(super) fn check_finite(row: &[f32]) -> Result<(), Error> {
    match row.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Error::invalid("embedding contains NaN or Inf values")),
    }
}

/// To length one; a row of zeros has no direction and stays.
pub(super) fn normalize(row: &mut [f32]) {
    let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { room: 8, truncate: true, dimensions: 0, normalize: true };

    fn finish(wish: Wish, row: &[f32]) -> Vec<f32> {
        wish.finish(row.to_vec()).unwrap().values
    }

    #[test]
    fn vectors_have_length_one_unless_raw_ones_are_wanted() {
        assert_eq!(finish(WISH, &[3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(finish(Wish { normalize: false, ..WISH }, &[3.0, 4.0]), [3.0, 4.0]);
        assert_eq!(finish(WISH, &[0.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn fewer_dimensions_are_cut_and_normalised_again() {
        assert_eq!(finish(Wish { dimensions: 1, ..WISH }, &[3.0, 4.0]), [1.0]);
        assert_eq!(finish(Wish { dimensions: 9, ..WISH }, &[3.0, 4.0]), [0.6, 0.8]);
    }

    #[test]
    fn a_vector_that_is_not_finite_is_refused_in_ollamas_words() {
        for value in [f32::NAN, f32::INFINITY] {
            let error = WISH.finish(vec![1.0, value]).unwrap_err();
            assert_eq!(error, Error::invalid("embedding contains NaN or Inf values"));
        }
    }
}

//! One call of `Rerank`: how well documents answer a query, in their order.
//!
//! A reranker reads query and document together and gives a logit, which is told as the probability that the document
//! answers the query: what Cohere, Jina, vLLM and text-embeddings-inference tell. An embedder has only vectors, of which
//! the cosine is told, as vLLM does.

use api::Error;
use engine::{Info, Pairs, Tokenizer};
use protocol::v1::{RerankRequest, RerankResponse};

use super::embed;
use crate::{keep_alive::KeepAlive, replicas::Replicas};

pub async fn rerank(replicas: &Replicas, request: RerankRequest) -> Result<RerankResponse, Error> {
    let model = request.model.clone().unwrap_or_default();
    let in_use = replicas.enter(&model, request.keep_alive_ns.map(KeepAlive::from_ns))?;
    let loaded = in_use.loaded().clone();
    let slot = in_use.take_slot()?;
    let inputs = {
        let loaded = loaded.clone();
        let tokenize = move || inputs(&request, loaded.runner.info(), loaded.runner.tokenizer());
        let tokenized = tokio::task::spawn_blocking(tokenize).await;
        tokenized.unwrap_or_else(|_| Err(Error::internal("tokenizing panicked")))?
    };
    let (runner, prompt_tokens) = (&loaded.runner, inputs.tokens());
    let scores = match inputs {
        Inputs::Pairs(pairs) => runner.rank(slot, pairs).await?.into_iter().map(sigmoid).collect(),
        Inputs::Texts(texts) => cosines(runner.embed(slot, texts).await?)?,
    };
    Ok(RerankResponse { scores, prompt_tokens })
}

enum Inputs {
    /// One per document.
    Pairs(Vec<Vec<u32>>),
    /// The query, and the documents.
    Texts(Vec<Vec<u32>>),
}

impl Inputs {
    fn tokens(&self) -> u64 {
        let (Inputs::Pairs(inputs) | Inputs::Texts(inputs)) = self;
        inputs.iter().map(Vec::len).sum::<usize>() as u64
    }
}

fn inputs(request: &RerankRequest, info: &Info, tokenizer: &Tokenizer) -> Result<Inputs, Error> {
    let room = info.context_length;
    let most = match request.max_tokens_per_document {
        0 => room,
        tokens => usize::try_from(tokens).unwrap_or(room).min(room),
    };
    if let Some(reranker) = &info.reranker {
        let pairs = Pairs::new(tokenizer, reranker, &request.query, room);
        return Ok(Inputs::Pairs(
            request.documents.iter().map(|document| pairs.encode(document, most)).collect(),
        ));
    }
    if info.pooling.is_none() {
        return Err(Error::invalid("this model does not support rerank"));
    }
    let read = |text: &String, room: usize| embed::cut(embed::encode(text, tokenizer), room, tokenizer);
    let documents = request.documents.iter().map(|document| read(document, most));
    Ok(Inputs::Texts([read(&request.query, room)].into_iter().chain(documents).collect()))
}

fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + f64::from(-logit).exp())
}

/// Of the first row with each of the others.
fn cosines(mut rows: Vec<Vec<f32>>) -> Result<Vec<f64>, Error> {
    for row in &mut rows {
        embed::check_finite(row)?;
        embed::normalize(row);
    }
    let Some((query, documents)) = rows.split_first() else { return Ok(Vec::new()) };
    let cosine = |row: &Vec<f32>| {
        let products = query.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b));
        // Rounding may take it a little beyond.
        products.sum::<f64>().clamp(-1.0, 1.0)
    };
    Ok(documents.iter().map(cosine).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logit_is_told_as_a_probability() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert!((sigmoid(2.0) - 0.880_797).abs() < 1e-6 && (sigmoid(-2.0) - 0.119_203).abs() < 1e-6);
        assert_eq!((sigmoid(200.0), sigmoid(f32::MIN)), (1.0, 0.0));
    }

    #[test]
    fn vectors_are_compared_by_their_direction() {
        let scores =
            cosines(vec![vec![2.0, 0.0], vec![9.0, 0.0], vec![0.0, 1.0], vec![-1.0, 0.0], vec![0.0; 2]]);
        assert_eq!(scores.unwrap(), [1.0, 0.0, -1.0, 0.0]);
        let error = cosines(vec![vec![1.0], vec![f32::NAN]]).unwrap_err();
        assert_eq!(error, Error::invalid("embedding contains NaN or Inf values"));
    }
}

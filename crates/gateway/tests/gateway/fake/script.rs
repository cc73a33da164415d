//! What a fake worker says: words that follow from seed and position, as a real sampler's tokens would.

use api::Error;
use protocol::v1::{Done, GenerateChunk, GenerateRequest, Logprob};

pub fn token(seed: u64, position: u64) -> u32 {
    ((seed.wrapping_mul(31) + position.wrapping_mul(7)) % 1000) as u32
}

pub fn text(seed: u64, count: u64) -> String {
    (0..count).map(|position| format!("{} ", token(seed, position))).collect()
}

/// As many tokens as asked for, or five, and none that the client has already.
pub fn answer(request: &GenerateRequest) -> Vec<Result<GenerateChunk, Error>> {
    let options = request.options.clone().unwrap_or_default();
    let count = u64::try_from(options.num_predict).unwrap_or(5);
    let resume = request.resume.clone().unwrap_or_default();
    let emitted = resume.emitted_ids.len() as u64;
    let expected: Vec<u32> = (0..emitted).map(|position| token(options.seed, position)).collect();
    if expected != resume.emitted_ids || text(options.seed, emitted).len() as u64 != resume.delivered {
        return vec![Err(Error::internal("the resume does not continue what was sent"))];
    }
    let mut chunks: Vec<Result<GenerateChunk, Error>> = (emitted..count)
        .map(|position| {
            let id = token(options.seed, position);
            let logprob = Logprob { token: format!("{id} "), logprob: -0.5, ..Logprob::default() };
            let logprobs = if request.logprobs { vec![logprob] } else { Vec::new() };
            let content = format!("{id} ");
            Ok(GenerateChunk {
                token_ids: vec![id],
                position: position + 1,
                content,
                logprobs,
                ..GenerateChunk::default()
            })
        })
        .collect();
    if let Some(Ok(first)) = chunks.first_mut() {
        first.cached_tokens = Some(4);
    }
    chunks.push(Ok(GenerateChunk { done: Some(done(count)), position: count, ..GenerateChunk::default() }));
    chunks
}

fn done(eval_tokens: u64) -> Done {
    Done {
        prompt_tokens: 7,
        cached_tokens: 4,
        prompt_duration_ns: 11,
        eval_tokens,
        eval_duration_ns: 13,
        context: vec![1, 2, 3],
        ..Done::default()
    }
}

/// A chunk with text and nothing else.
pub fn said(content: &str) -> GenerateChunk {
    GenerateChunk { content: content.into(), ..GenerateChunk::default() }
}

/// The last chunk.
pub fn ended() -> GenerateChunk {
    GenerateChunk { done: Some(done(2)), ..GenerateChunk::default() }
}

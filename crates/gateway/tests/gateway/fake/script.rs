//! What a fake worker says: words that follow from seed and position, as a real sampler's tokens would.

use api::Error;
use protocol::v1::{Done, GenerateChunk, GenerateRequest, Logprob};

/// Positions where nobody names a number.
pub const USUAL_CONTEXT: u32 = 2048;

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

/// Different for every start of one id, the same in every run of a test.
pub fn rand_like(id: &str) -> usize {
    static STARTS: std::sync::Mutex<Option<std::collections::HashMap<String, usize>>> =
        std::sync::Mutex::new(None);
    let mut starts = STARTS.lock().unwrap();
    let count = starts.get_or_insert_with(std::collections::HashMap::new).entry(id.to_owned()).or_default();
    *count += 1;
    *count
}

/// What a worker says that it runs on.
#[derive(Clone, Copy)]
pub struct Machine {
    pub device: &'static str,
    pub memory_bytes: u64,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine { device: "cpu", memory_bytes: 1 << 30 }
    }
}

/// What it gives who wants so much; 0 = as it likes.
pub fn context_length(num_ctx: u32) -> u32 {
    if num_ctx == 0 { USUAL_CONTEXT } else { num_ctx.min(8192) }
}

pub fn expires(keep_alive_ns: i64) -> i64 {
    if keep_alive_ns < 0 { i64::MAX } else { keep_alive_ns }
}

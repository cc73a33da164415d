//! What the scripted engine answers, and how it ranks.

use engine::{Sequence, Tokenizer};

use crate::hash;

const WORDS: [&str; 24] = [
    "a", "the", "caravan", "camel", "dune", "water", "market", "star", "road", "well", "and", "or", "under",
    "over", "crosses", "follows", "carries", "finds", "long", "quiet", "bright", "seven", "night", "before",
];

/// The shortest answer, in words; the longest has twice as many. Long enough that a benchmark which wants a fixed
/// number of tokens can ask for it with `num_predict`.
const MIN_WORDS: u64 = 64;

const SAY: &str = "[[say ";

/// The whole answer, never empty. It derives from the prompt without the part that is the answer's own beginning.
pub fn write(sequence: &Sequence, tokenizer: &Tokenizer) -> Vec<u32> {
    let prompt = &sequence.prompt[..sequence.prompt.len().saturating_sub(sequence.resume_at)];
    let text =
        said(prompt, tokenizer).unwrap_or_else(|| prose(hash::tokens(prompt) ^ sequence.sampling.seed));
    tokenizer.encode(&text, false, false)
}

/// The logit of a pair: from -4, when the document has no word of the query, to 4, when it has all of them.
pub fn rank(pair: &[u32], end: Option<u32>, tokenizer: &Tokenizer) -> f32 {
    let at = pair.iter().position(|token| Some(*token) == end).unwrap_or(pair.len());
    let (query, document) = (tokenizer.decode(&pair[..at]), tokenizer.decode(&pair[at..]));
    let words: Vec<&str> = query.split_whitespace().collect();
    let found = words.iter().filter(|word| document.split_whitespace().any(|other| other == **word)).count();
    8.0 * found as f32 / words.len().max(1) as f32 - 4.0
}

/// The text that the last `[[say TEXT]]` of the prompt asks for.
fn said(prompt: &[u32], tokenizer: &Tokenizer) -> Option<String> {
    let bytes: Vec<u8> = prompt.iter().flat_map(|token| tokenizer.piece(*token)).copied().collect();
    let text = String::from_utf8_lossy(&bytes);
    let rest = &text[text.rfind(SAY)? + SAY.len()..];
    let said = &rest[..rest.rfind("]]")?];
    (!said.is_empty()).then(|| said.to_owned())
}

fn prose(seed: u64) -> String {
    let count = MIN_WORDS + hash::mix(seed) % MIN_WORDS;
    let word = |at: u64| WORDS[(hash::mix(seed ^ hash::mix(at)) % WORDS.len() as u64) as usize];
    (0..count).map(word).collect::<Vec<_>>().join(" ") + "."
}

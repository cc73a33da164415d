//! What a model's tokens become: content, thinking and tool calls, cut at stop strings, in chunks that carry the ids
//! of the tokens which released their text.
//!
//! Pure: tokens in, chunks out. What comes out, put together, does not depend on how the text is cut into tokens, and
//! a parser that has replayed the ids another one has sent goes on exactly where that one was.

mod repeats;
mod stop;
mod text;
mod thinking;
mod tools;

use std::sync::Arc;

use engine::{Detokenizer, Logprobs, Tokenizer};
use protocol::v1::{GenerateChunk, Logprob, done::Reason};

pub use self::text::Text;
use self::{repeats::Repeats, text::Piece};
pub use self::{
    thinking::Tags,
    tools::{Dress, Offer, Spec as ToolSpec},
};

/// How an answer ends that goes round in circles: cut, not whole. Ollama ends its stream without a last line, which leaves
/// every client of it waiting for one.
const STUCK: Reason = Reason::Length;

/// What a request wants done to its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    pub stops: Vec<String>,
    /// `None` = thinking is not told apart.
    pub thinking: Option<Tags>,
    /// `None` = no tools were offered.
    pub tools: Option<ToolSpec>,
}

/// One answer being read.
#[derive(Debug)]
pub struct Parser {
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    text: Text,
    /// Tokens whose text is held back.
    pending: Vec<Pending>,
    /// Every token so far, replayed ones included.
    tokens: Vec<u32>,
    /// Bytes of the answer's text so far, before stop strings.
    text_bytes: usize,
    repeats: Repeats,
    /// Bytes of content and thinking that the client has already and must not get again.
    skip: u64,
    /// What the token that completed a stop string released; it belongs to the last chunk.
    last: Piece,
}

#[derive(Debug)]
struct Pending {
    token: u32,
    logprob: Option<Logprob>,
    /// Where in the answer its text begins.
    at: usize,
}

/// What one token led to.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    /// `None` while everything is held back.
    pub chunk: Option<GenerateChunk>,
    /// A stop string is complete, or the model goes round in circles: the answer has ended, and [`Parser::finish`] has
    /// the rest.
    pub ended: Option<Reason>,
}

// === impl Spec ===

impl Spec {
    /// Whether one of the tags is a control token of the model, which is no text unless asked for.
    fn needs_special(&self, tokenizer: &Tokenizer) -> bool {
        let thinking = self.thinking.iter().flat_map(|tags| [&tags.open, &tags.close]);
        let mut tags = thinking.chain(self.tools.iter().flat_map(|tools| &tools.dress.tags));
        let is_control = |token: &u32| tokenizer.piece(*token).is_empty();
        tags.any(|tag| tokenizer.encode(tag, true, false).iter().any(is_control))
    }
}

// === impl Parser ===

impl Parser {
    pub fn new(tokenizer: Arc<Tokenizer>, spec: Spec) -> Parser {
        let detokenizer = Detokenizer::new(tokenizer.clone());
        let detokenizer =
            if spec.needs_special(&tokenizer) { detokenizer.with_special() } else { detokenizer };
        Parser {
            detokenizer,
            tokenizer,
            text: Text::new(spec),
            pending: Vec::new(),
            tokens: Vec::new(),
            text_bytes: 0,
            repeats: Repeats::default(),
            skip: 0,
            last: Piece::default(),
        }
    }

    /// Every token so far, replayed ones included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub fn push(&mut self, token: u32, logprob: Option<&Logprobs>) -> Step {
        let text = self.read(token, logprob);
        if self.repeats.is_stuck(&text) {
            return Step { chunk: None, ended: Some(STUCK) };
        }
        let piece = self.text.push(&text);
        let piece = self.skip(piece);
        if piece.stopped_at.is_some() {
            self.last = piece;
            return Step { chunk: None, ended: Some(Reason::Stop) };
        }
        Step { chunk: (!piece.is_empty()).then(|| self.chunk(piece)), ended: None }
    }

    /// The last chunk: what was held back, when no stop string cut it off. Half a character is dropped, as in Ollama.
    pub fn finish(&mut self) -> GenerateChunk {
        let rest = self.text.finish();
        if let Some(end) = rest.stopped_at {
            // Tokens that only made up the stop string count, but have no place in the log probabilities.
            self.pending
                .iter_mut()
                .filter(|pending| pending.at >= end)
                .for_each(|pending| pending.logprob = None);
        }
        let mut piece = std::mem::take(&mut self.last);
        piece.append(self.skip(rest));
        self.chunk(piece)
    }

    /// Takes the tokens that another worker has sent, and forgets the text that the client has. The chunk is what
    /// the client lacks of theirs; its tokens were sent already.
    pub fn replay(&mut self, tokens: &[u32], delivered: u64) -> Step {
        self.skip += delivered;
        let mut missing = Piece::default();
        let mut ended = None;
        for token in tokens {
            let text = self.read(*token, None);
            if self.repeats.is_stuck(&text) {
                ended = Some(STUCK);
                break;
            }
            let piece = self.text.push(&text);
            let stopped = piece.stopped_at.is_some();
            missing.append(self.skip(piece));
            if stopped {
                ended = Some(Reason::Stop);
                break;
            }
        }
        self.pending.clear();
        // Calls are never cut: the chunk that carried the tokens carried them whole.
        missing.calls.clear();
        let chunk = (!missing.is_empty()).then(|| self.chunk(missing));
        Step { chunk, ended }
    }

    /// The text that a token completes.
    fn read(&mut self, token: u32, logprob: Option<&Logprobs>) -> String {
        let logprob = logprob.map(|logprob| self.describe(token, logprob));
        self.pending.push(Pending { token, logprob, at: self.text_bytes });
        self.tokens.push(token);
        let text = self.detokenizer.push(token);
        self.text_bytes += text.len();
        text
    }

    fn describe(&self, token: u32, logprobs: &Logprobs) -> Logprob {
        let one = |token: u32, logprob: f32| {
            let bytes = self.tokenizer.piece_with_special(token).to_vec();
            let token = String::from_utf8_lossy(&bytes).into_owned();
            Logprob { token, logprob: f64::from(logprob), bytes, top: Vec::new() }
        };
        let top = logprobs.top.iter().map(|(token, logprob)| one(*token, *logprob)).collect();
        Logprob { top, ..one(token, logprobs.logprob) }
    }

    fn skip(&mut self, mut piece: Piece) -> Piece {
        if self.skip > 0 {
            self.skip -= piece.cut_front(self.skip);
        }
        piece
    }

    /// A chunk with everything that is pending.
    fn chunk(&mut self, piece: Piece) -> GenerateChunk {
        let pending = std::mem::take(&mut self.pending);
        GenerateChunk {
            position: self.tokens.len() as u64,
            token_ids: pending.iter().map(|pending| pending.token).collect(),
            logprobs: pending.into_iter().filter_map(|pending| pending.logprob).collect(),
            content: piece.content,
            thinking: piece.thinking,
            tool_calls: piece.calls,
            ..GenerateChunk::default()
        }
    }
}

/// How many bytes at the end of `text` may be the beginning of `tag`: the longest end that is a proper beginning.
fn overlap(text: &str, tag: &str) -> usize {
    let longest = text.len().min(tag.len().saturating_sub(1));
    let candidates = (1..=longest).rev().filter(|len| tag.is_char_boundary(*len));
    candidates.into_iter().find(|len| text.ends_with(&tag[..*len])).unwrap_or(0)
}

/// Cuts a text at some of its character boundaries.
#[cfg(test)]
fn cut<'a>(text: &'a str, cuts: &[usize]) -> Vec<&'a str> {
    let mut places: Vec<usize> = cuts.iter().copied().filter(|at| text.is_char_boundary(*at)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

#[cfg(test)]
mod tests;

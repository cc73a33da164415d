//! Grammars by llguidance: the vocabulary as its trie, a schema as its parser, and its matcher as a constraint.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
    toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv},
};
use serde_json::Value;

use super::{Begin, Constraint, schema::MAX_OPTIONAL_KEYS};
use crate::{Error, Tokenizer, sampler::Mask};

/// An object has four in a row for each key that may come next; the rest is for what is around it.
const MAX_ITEMS: usize = 4 * MAX_OPTIONAL_KEYS + 2_000;
/// Characters of a pattern in the text of an error.
const MAX_SHOWN: usize = 100;

/// What one grammar may cost. A state of the lexer has one or two kB, so these are 20 to 40 MB; a mask that runs into its
/// bound has taken some ten milliseconds, hundreds of times as long as usual.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: MAX_ITEMS,
        step_max_items: 10 * MAX_ITEMS,
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// A vocabulary ready for grammars.
pub(super) struct Guidance(ParserFactory);

/// A compiled grammar at its beginning.
pub(super) struct Compiled(Mutex<Matcher>);

struct Walk {
    matcher: Matcher,
    /// Tokens that came after the end.
    late: usize,
}

/// A vocabulary as llguidance sees it.
struct Vocabulary(TokTrie);

// === impl Guidance ===

impl Guidance {
    pub fn new(tokenizer: &Tokenizer) -> Result<Guidance, Error> {
        let size = tokenizer.vocab_size() as u32;
        let ends: Vec<TokenId> = (0..size).filter(|&token| tokenizer.is_eog(token)).collect();
        let Some(&end) = ends.first() else {
            return Err(Error::Grammar("the model has no token that ends an answer".to_owned()));
        };
        let words: Vec<Vec<u8>> = (0..size).map(|token| word(tokenizer, token)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, end), &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(Vocabulary(trie));
        // Parts of the vocabulary that many grammars allow as a whole, such as what may stand inside a JSON text: such a
        // mask is mostly copied.
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| Error::Grammar(format!("{error:#}")))?;
        *factory.limits_mut() = limits();
        factory.quiet();
        Ok(Guidance(factory))
    }

    pub fn compile(&self, schema: Value) -> Result<Compiled, Error> {
        let parser = self.0.create_parser(TopLevelGrammar::from_json_schema(schema));
        let mut matcher = Matcher::new(Ok(parser.map_err(problem)?));
        // What is wrong with a grammar may show only now; and what this computes every answer will need.
        matcher.compute_mask().map_err(problem)?;
        Ok(Compiled(Mutex::new(matcher)))
    }
}

/// What a token adds to a text. Of a token that is not text the marker stands first, which no grammar allows.
fn word(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    let piece = tokenizer.piece(token);
    if !piece.is_empty() {
        return piece.to_vec();
    }
    [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.piece_with_special(token)].concat()
}

/// What is wrong, in a line. What follows the first line of an error is where in llguidance it happened, or an excerpt.
fn problem(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("the schema cannot be compiled");
    let has = |part: &str| first.contains(part);
    Error::Grammar(if has("regex parse error") {
        pattern_problem(&text)
    } else if has("Current row has") || has("max_items") {
        let keys = MAX_ITEMS / 4;
        format!(
            "an object must have at most {keys} keys that may be left out; require some, or take some out"
        )
    } else if has("circular references") {
        "a `$ref` that leads back to the schema around it must have no other keywords beside it".to_owned()
    } else if has("NoExtensionBias") {
        "nothing can keep to the schema; a `$ref` may lead to itself".to_owned()
    } else if has("regex for integer range") || has("regex for float range") {
        "`minimum` and `maximum` must be within \u{b1}9223372036854775807".to_owned()
    } else {
        first.to_owned()
    })
}

/// Of the regular expression and a mark below it, which come first, the former; and the reason, which comes last.
fn pattern_problem(text: &str) -> String {
    let reason = text.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it cannot be parsed");
    let pattern: String = text.lines().nth(1).unwrap_or_default().trim().chars().take(MAX_SHOWN).collect();
    format!("`pattern` {pattern:?}: {reason}")
}

impl Begin for Compiled {
    fn begin(&self) -> Result<Box<dyn Constraint>, Error> {
        let matcher = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The lexer is shared: what one answer has made it find out the next one does not wait for. Its lock costs
        // nothing, because all answers of an engine are walked on one thread.
        Ok(Box::new(Walk { matcher: matcher.clone(), late: 0 }))
    }
}

impl Constraint for Walk {
    fn allowed(&mut self) -> Result<Mask, Error> {
        let mask = self.matcher.compute_mask_or_eos().map_err(problem)?;
        Ok(Mask::from_words(mask.as_slice().to_vec()))
    }

    fn accept(&mut self, token: u32) -> Result<(), Error> {
        // A sequence that ignores the end of its answer may go on with nothing but ends.
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            self.late += 1;
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(problem)
    }

    fn rewind(&mut self, tokens: usize) -> Result<(), Error> {
        let late = tokens.min(self.late);
        self.late -= late;
        self.matcher.rollback(tokens - late).map_err(problem)
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(text)
    }

    /// Nothing may be forced by it: the longest tokens are not always those that a model would say.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

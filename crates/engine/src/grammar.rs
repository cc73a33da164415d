//! What an answer must look like: JSON, or JSON of a schema. Compiled once, then every sequence walks through it token
//! by token and asks what may come next.
//!
//! The grammar is llguidance's (Earley parsing over derivatives of regular expressions, with the vocabulary as a trie);
//! only [`guidance`] knows that. Which answers have a grammar is not decided here.

mod guidance;
mod numbers;
mod schema;
mod thought;

use std::sync::{Arc, OnceLock};
use std::{fmt, thread};

use crate::{Error, Tokenizer, sampler::Mask};
use guidance::Guidance;
use numbers::Numbers;
use thought::Thoughtful;

pub use thought::Thought;

/// A compiled grammar. Cheap to clone; sequences share it.
#[derive(Clone)]
pub struct Grammar(Arc<dyn Begin>);

/// Compiles grammars for the vocabulary of one model.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    /// Made when the first grammar is asked for: it takes tenths of a second and some memory.
    guidance: OnceLock<Result<Guidance, Error>>,
}

/// Where constraints come from.
pub(crate) trait Begin: Send + Sync {
    /// At the beginning of an answer.
    fn begin(&self) -> Result<Box<dyn Constraint>, Error>;
}

/// How far one answer has come in its grammar. Two implementations: llguidance's, and the counter that the scheduler is
/// tested with.
pub trait Constraint: Send {
    /// What may come next; empty when nothing may. A token that ends an answer is in it if and only if the grammar is
    /// satisfied.
    fn allowed(&mut self) -> Result<Mask, Error>;

    /// `token`, which was allowed, has come.
    fn accept(&mut self, token: u32) -> Result<(), Error>;

    /// Forgets the last `tokens` that were accepted.
    fn rewind(&mut self, tokens: usize) -> Result<(), Error>;
}

// === impl Grammar ===

impl Grammar {
    pub(crate) fn new(begin: impl Begin + 'static) -> Grammar {
        Grammar(Arc::new(begin))
    }

    /// The same for answers that may begin with a thought. `grammars` is where it comes from.
    pub fn after(self, thought: Thought, grammars: &Grammars) -> Grammar {
        Grammar::new(Thoughtful { thought, grammar: self, tokenizer: grammars.tokenizer.clone() })
    }

    /// Where an answer begins.
    pub fn begin(&self) -> Result<Box<dyn Constraint>, Error> {
        self.0.begin()
    }
}

/// The same compilation, not the same language.
impl PartialEq for Grammar {
    fn eq(&self, other: &Grammar) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Grammar")
    }
}

// === impl Grammars ===

impl Grammars {
    pub fn new(tokenizer: Arc<Tokenizer>) -> Grammars {
        Grammars { tokenizer, guidance: OnceLock::new() }
    }

    /// Any JSON object, as Ollama's `"format": "json"` means it.
    pub fn json(&self) -> Result<Grammar, Error> {
        self.schema(r#"{"type":"object"}"#)
    }

    /// JSON of a schema, which is bounded in size and in depth. Takes milliseconds, the first time tenths of a second.
    pub fn schema(&self, text: &str) -> Result<Grammar, Error> {
        // A compiler recurses where a schema refers. The caller's stack may be a small one.
        let compile = || {
            let schema = schema::read(text)?;
            let guidance = self.guidance.get_or_init(|| Guidance::new(&self.tokenizer)).as_ref();
            guidance.map_err(Error::clone)?.compile(schema)
        };
        let compiled = thread::scope(|scope| {
            let thread = thread::Builder::new().name("grammar".to_owned()).stack_size(schema::STACK_BYTES);
            let problem = || Error::Grammar("the schema cannot be compiled now; try again".to_owned());
            thread.spawn_scoped(scope, compile).map_err(|_| problem())?.join().map_err(|_| problem())?
        })?;
        Ok(Grammar::new(Numbers::new(Grammar::new(compiled), self.tokenizer.clone())))
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Grammars")
    }
}

#[cfg(test)]
mod tests;

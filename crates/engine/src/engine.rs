//! The engine as its one owner, a runner thread, sees it: admit, step, cancel. Synchronous on purpose: no clock,
//! no network, no environment and no async in here.

use std::{sync::Arc, time::Duration};

use crate::{Error, Event, Reranker, Sequence, SequenceId, Tokenizer};

/// One loaded model that runs up to `slots` sequences at once.
pub trait Engine: Send {
    fn info(&self) -> &Info;

    fn tokenizer(&self) -> Arc<Tokenizer>;

    /// Gives the sequence a slot. It joins the running batch at the next step.
    ///
    /// Fails with [`Error::NoSlot`] when every slot is taken, and with what is wrong with the prompt otherwise;
    /// the engine is then as it was.
    fn admit(&mut self, sequence: Sequence) -> Result<(), Error>;

    /// Schedules, forwards, samples and settles once. Empty when idle, or when the step only moved prefills on.
    ///
    /// What concerns one sequence is an [`Event::Failed`]; an error here means that the engine cannot go on.
    fn step(&mut self) -> Result<Vec<Event>, Error>;

    /// Tells how long the last step took: an engine has no clock. With it steps are made as large as the sequences
    /// that wait for their next token can bear; without it that is guessed. An engine that has no use for it ignores it.
    fn note_step(&mut self, _took: Duration) {}

    /// Frees the slot and the pages of a sequence before the next step. Unknown ids are ignored: it may just
    /// have finished.
    fn cancel(&mut self, id: SequenceId);

    /// Whether no sequence holds a slot.
    fn is_idle(&self) -> bool;

    /// What of [`Info::size_bytes`] no step has needed yet: pages of the KV cache that were never used.
    fn untaken_bytes(&self) -> u64 {
        0
    }

    /// One pooled row of `embedding_length` per input, not normalised.
    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error>;

    /// How well each document answers its query, as a logit: 0 is even chances. A pair is what
    /// [`Pairs`](crate::Pairs) make. Only for a model with [`Info::reranker`].
    fn rank(&mut self, pairs: &[Vec<u32>]) -> Result<Vec<f32>, Error>;
}

/// What a loaded model is: facts for status answers, memory accounting and prompt building.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    pub architecture: String,
    /// How many sequences run at once.
    pub slots: usize,
    /// Positions of one slot.
    pub context_length: usize,
    /// Positions that the model was trained for.
    pub train_context_length: usize,
    pub embedding_length: usize,
    pub vocab_size: usize,
    /// Memory that the loaded model may use: weights, KV cache of all slots, scratch.
    pub size_bytes: u64,
    /// Set for a model without a language head: how its rows become one vector.
    pub pooling: Option<Pooling>,
    /// Set for a model that tells how well a document answers a query.
    pub reranker: Option<Reranker>,
    /// The Jinja chat template inside the model file.
    pub chat_template: Option<String>,
    /// Whether a prompt starts with the beginning-of-sequence token.
    pub add_bos: bool,
    /// The text of the beginning-of-sequence token; empty = the model has none.
    pub bos: String,
    /// The text of the end-of-sequence token; empty = the model has none.
    pub eos: String,
}

/// How the rows of a sequence become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    Cls,
    Last,
}

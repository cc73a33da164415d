//! What the scheduler sees of a model: a batch goes in, scores come out. Three implementations live by it: the
//! transformer, the same on a device, and the parrot that the scheduler is tested with.

use std::ops::Range;

use crate::{
    Error,
    kernels::{Cpu, norm::is_finite},
    pages::PageId,
};

pub(crate) trait Model: Send {
    fn vocab_size(&self) -> usize;

    /// Runs every token of `batch`, remembers it in the pages of its span, and fills `logits` with a row per span
    /// that asks for one.
    ///
    /// A span whose numbers are broken is a fault of its own row; an error means that the model cannot go on.
    fn forward(&mut self, batch: &Batch<'_>, logits: &mut Logits) -> Result<(), Error>;

    /// What of the memory for the KV cache was not needed yet.
    fn untaken_bytes(&self) -> u64 {
        0
    }

    /// Does the same with the batch, for the normalised rows after the last block.
    fn hidden(&mut self, _batch: &Batch<'_>) -> Result<Hidden, Error> {
        Err(Error::Unsupported { what: "make embeddings" })
    }

    /// The logits of a reranker: one for each of the pooled `rows`, [n, width].
    fn rank(&mut self, _rows: &[f32]) -> Result<Vec<f32>, Error> {
        Err(RANKS_NOTHING)
    }
}

pub(crate) const RANKS_NOTHING: Error = Error::Unsupported { what: "rank documents" };

/// What a model thinks of tokens before it scores the next ones.
#[derive(Debug, Default)]
pub(crate) struct Hidden {
    /// [n, width].
    pub rows: Vec<f32>,
    /// Of each span, what is wrong with it.
    pub faults: Vec<Option<Error>>,
}

/// The tokens of one step, of all sequences, one after another.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    pub tokens: Vec<u32>,
    /// Of each token, its place in its sequence.
    pub positions: Vec<u32>,
    pub spans: Vec<Span<'a>>,
}

/// The run of one sequence in a batch.
#[derive(Clone, Debug)]
pub(crate) struct Span<'a> {
    /// Which tokens of the batch.
    pub rows: Range<usize>,
    /// Pages for every position up to the last one of the span.
    pub pages: &'a [PageId],
    pub output: Output,
}

/// Of which tokens a span wants scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    None,
    Last,
    All,
}

/// Scores before softmax. Kept by the caller from step to step, so that the memory is used again.
#[derive(Debug, Default)]
pub(crate) struct Logits {
    vocab_size: usize,
    /// [wanted rows, vocab_size], in the order of the spans.
    pub values: Vec<f32>,
    /// Of each span, what is wrong with it.
    pub faults: Vec<Option<Error>>,
}

impl<M: Model + ?Sized> Model for Box<M> {
    fn vocab_size(&self) -> usize {
        (**self).vocab_size()
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut Logits) -> Result<(), Error> {
        (**self).forward(batch, logits)
    }

    fn untaken_bytes(&self) -> u64 {
        (**self).untaken_bytes()
    }

    fn hidden(&mut self, batch: &Batch<'_>) -> Result<Hidden, Error> {
        (**self).hidden(batch)
    }

    fn rank(&mut self, rows: &[f32]) -> Result<Vec<f32>, Error> {
        (**self).rank(rows)
    }
}

// === impl Batch ===

impl<'a> Batch<'a> {
    /// Adds `tokens`, the first of which stands at `position`.
    pub fn push(&mut self, tokens: &[u32], position: usize, pages: &'a [PageId], output: Output) {
        let first = self.tokens.len();
        self.tokens.extend(tokens);
        self.positions.extend((position..position + tokens.len()).map(|at| at as u32));
        self.spans.push(Span { rows: first..self.tokens.len(), pages, output });
    }

    /// The tokens whose scores are wanted.
    pub fn wanted(&self) -> Vec<usize> {
        self.spans.iter().flat_map(Span::wanted).collect()
    }
}

// === impl Span ===

impl Span<'_> {
    pub fn wanted(&self) -> Range<usize> {
        match self.output {
            Output::None => self.rows.end..self.rows.end,
            Output::Last => self.rows.end - 1..self.rows.end,
            Output::All => self.rows.clone(),
        }
    }
}

// === impl Logits ===

impl Logits {
    /// Room for `rows` rows, and no faults among `spans` spans.
    pub fn reset(&mut self, vocab_size: usize, rows: usize, spans: usize) {
        self.vocab_size = vocab_size;
        self.values.resize(rows * vocab_size, 0.0);
        self.faults.clear();
        self.faults.resize(spans, None);
    }

    /// Notes for each span whether its rows are not finite, unless something is wrong with it already.
    pub fn find_faults(&mut self, batch: &Batch<'_>, cpu: Cpu) {
        let mut rows = self.values.chunks_exact(self.vocab_size);
        for (span, fault) in batch.spans.iter().zip(&mut self.faults) {
            for row in rows.by_ref().take(span.wanted().len()) {
                if fault.is_none() && !is_finite(cpu, row) {
                    let what = "what the language head (`output`) computed".to_owned();
                    *fault = Some(Error::NotFinite { what });
                }
            }
        }
    }

    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.vocab_size..(at + 1) * self.vocab_size]
    }
}

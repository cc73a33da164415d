//! The one transformer: a list of branches over rows of the residual stream. Which ones, and with what in them, is
//! data; see [`crate::spec`] and `build`. Run here by our own kernels; [`crate::device`] runs the same list by candle's.

mod attention;
mod build;
mod cache;
mod entry;
mod experts;
mod feed_forward;
mod norm;
mod ranker;

use std::sync::Arc;

use crate::{
    Error,
    compute::Compute,
    kernels::{
        activation,
        norm::add,
        packed::Packed,
        rope::Angles,
        rows::{Forms, Rows},
    },
    linear::Linear,
    model::{Batch, Hidden, Logits, Model},
    pool::Shared,
    spec::Spec,
    weights::Backend,
};
pub(crate) use attention::Attention;
use attention::Step;
pub(crate) use build::{Parts, Setup};
use cache::Cache;
pub(crate) use cache::Shape;
pub(crate) use entry::{Embed, Entry};
pub(crate) use experts::{Experts, SharedExpert};
pub(crate) use feed_forward::FeedForward;
pub(crate) use norm::Norm;
pub(crate) use ranker::Ranker;

/// Rows that a thread adds up at least: what makes waking it worth while.
const ROW_GRAIN: usize = 8;

pub(crate) struct Transformer {
    spec: Spec,
    compute: Arc<Compute>,
    /// [vocab, width]; rows are widened when a token asks.
    embedding: Arc<Packed>,
    entry: Entry,
    branches: Vec<Branch>,
    output_norm: Option<Norm>,
    /// `None` = an embedder.
    head: Option<Linear>,
    ranker: Option<Ranker>,
    frequencies: Vec<f32>,
    local_frequencies: Option<Vec<f32>>,
    cache: Cache,
    buffers: Buffers,
}

/// One residual half of a block: `x += after(body(before(x)))`, then `x = closing(x)`. A norm that the file lacks is
/// left out, which makes pre-norm, post-norm and sandwich-norm the same thing.
pub(crate) struct Branch<B: Backend = Compute> {
    pub block: usize,
    pub before: Before<B>,
    pub body: Body<B>,
    pub after: Option<B::Norm>,
    pub closing: Option<B::Norm>,
}

/// What a branch takes in.
pub(crate) enum Before<B: Backend = Compute> {
    Norm(B::Norm),
    /// The stream as it is.
    Plain,
    /// What the branch before it took in: the two are parallel.
    Shared,
}

pub(crate) enum Body<B: Backend = Compute> {
    Attention(Attention<B>),
    FeedForward(FeedForward<B>),
    Experts(Experts<B>),
}

/// Room for a step. It grows to the largest step and stays.
#[derive(Debug, Default)]
struct Buffers {
    /// The residual stream, [n, width].
    stream: Vec<f32>,
    /// What a branch, or the head, takes in.
    input: Rows,
    /// The same as it was before it took its forms, [n, width]: for experts, who take some rows each.
    values: Vec<f32>,
    /// What a branch adds.
    update: Vec<f32>,
    /// Of each row, whether the stream is finite.
    is_finite: Vec<bool>,
    attention: attention::Buffers,
    feed_forward: feed_forward::Buffers,
    experts: experts::Buffers,
    angles: Angles,
    local_angles: Angles,
}

impl Branch {
    /// The forms in which the body wants its input.
    fn forms(&self) -> Forms {
        match &self.body {
            Body::Attention(body) => body.forms(),
            Body::FeedForward(body) => body.forms(),
            Body::Experts(body) => body.forms(),
        }
    }
}

// === impl Transformer ===

impl Transformer {
    /// Embeds the tokens and lets every branch add to the stream.
    fn run_blocks(&mut self, batch: &Batch<'_>, faults: &mut [Option<Error>]) -> Result<(), Error> {
        for span in &batch.spans {
            self.cache.reserve(span.pages)?;
        }
        let embed =
            Embed { embedding: &self.embedding, entry: &self.entry, scale: self.spec.embedding_scale };
        embed.fill(self.compute.cpu, batch, &mut self.buffers.stream);
        let Buffers { angles, local_angles, .. } = &mut self.buffers;
        angles.fill(&batch.positions, &self.frequencies, self.spec.rope.magnitude);
        if let (Some(frequencies), Some(rope)) = (&self.local_frequencies, &self.spec.local_rope) {
            local_angles.fill(&batch.positions, frequencies, rope.magnitude);
        }
        for at in 0..self.branches.len() {
            self.run_branch(at, batch);
            self.add_update(at);
            self.find_faults(self.branches[at].block, batch, faults);
        }
        Ok(())
    }

    fn run_branch(&mut self, at: usize, batch: &Batch<'_>) {
        self.take_in(at, batch.tokens.len());
        let Transformer { spec, compute, branches, cache, buffers, .. } = self;
        let Buffers { input, values, update, attention, angles, local_angles, .. } = buffers;
        let branch = &branches[at];
        match &branch.body {
            Body::Attention(body) => {
                let is_local = spec.local_rope.is_some() && spec.is_local(branch.block);
                let angles = if is_local { &*local_angles } else { &*angles };
                let step = Step { compute, batch, angles };
                body.forward(step, (cache, branch.block), attention, (input, update));
            }
            Body::FeedForward(body) => body.forward(compute, &mut buffers.feed_forward, (input, update)),
            Body::Experts(body) => body.forward(compute, &mut buffers.experts, (input, values), update),
        }
    }

    /// Prepares what branch `at` takes in, and those that share it.
    fn take_in(&mut self, at: usize, rows: usize) {
        let Transformer { spec, compute, branches, buffers, .. } = self;
        let Buffers { stream, input, values, .. } = buffers;
        let norm = match &branches[at].before {
            Before::Shared => return,
            Before::Plain => None,
            Before::Norm(norm) => Some(norm),
        };
        let sharing = branches[at + 1..].iter().take_while(|next| matches!(next.before, Before::Shared));
        let takers = || branches[at..=at].iter().chain(sharing.clone());
        let forms = takers().fold(Forms::default(), |forms, branch| forms.and(branch.forms()));
        let keeps_values = takers().any(|branch| matches!(branch.body, Body::Experts(_)));
        let (width, cpu) = (spec.width, compute.cpu);
        values.resize(if keeps_values { rows * width } else { 0 }, 0.0);
        let values = Shared::new(values);
        input.fill((&compute.pool, cpu), (rows, width), forms, |row, to| {
            let part = row * width..(row + 1) * width;
            to.copy_from_slice(&stream[part.clone()]);
            if let Some(norm) = norm {
                norm.apply(cpu, to);
            }
            if keeps_values {
                // SAFETY: a row is filled once.
                unsafe { values.part(part) }.copy_from_slice(to);
            }
        });
    }

    /// Adds what branch `at` computed to the stream.
    fn add_update(&mut self, at: usize) {
        let Transformer { spec, compute, branches, buffers, .. } = self;
        let Buffers { stream, update, is_finite, .. } = buffers;
        let (width, cpu) = (spec.width, compute.cpu);
        let rows = stream.len() / width;
        is_finite.resize(rows, true);
        let shared = (Shared::new(stream), Shared::new(update), Shared::new(is_finite));
        compute.pool.split(rows, ROW_GRAIN, |_, range| {
            for row in range {
                let part = row * width..(row + 1) * width;
                // SAFETY: a row is in one piece of work.
                let (stream, update, is_finite) = unsafe {
                    (shared.0.part(part.clone()), shared.1.part(part), &mut shared.2.part(row..row + 1)[0])
                };
                if let Some(norm) = &branches[at].after {
                    norm.apply(cpu, update);
                }
                *is_finite = add(cpu, stream, update);
                if let Some(norm) = &branches[at].closing {
                    norm.apply(cpu, stream);
                }
            }
        });
    }

    /// Scores of the rows `wanted`.
    fn run_head(&mut self, wanted: &[usize], logits: &mut Logits) -> Result<(), Error> {
        let Transformer { spec, compute, buffers, output_norm, head, .. } = self;
        let head = head.as_ref().ok_or(Error::Unsupported { what: "score tokens" })?;
        let Buffers { stream, input, .. } = buffers;
        let (width, cpu) = (spec.width, compute.cpu);
        let fill = |row: usize, to: &mut [f32]| {
            to.copy_from_slice(&stream[wanted[row] * width..][..width]);
            if let Some(norm) = &*output_norm {
                norm.apply(cpu, to);
            }
        };
        input.fill((&compute.pool, cpu), (wanted.len(), width), Linear::forms([head]), fill);
        Linear::forward(compute, input, &mut [(head, &mut logits.values)]); // [wanted, vocab]
        if let Some(cap) = spec.output_soft_cap {
            activation::cap_all(cpu, &mut logits.values, cap);
        }
        Ok(())
    }

    /// Notes for each span the first block after which its rows are not finite.
    fn find_faults(&self, block: usize, batch: &Batch<'_>, faults: &mut [Option<Error>]) {
        let is_finite = &self.buffers.is_finite;
        if is_finite.iter().all(|&is_finite| is_finite) {
            return;
        }
        for (span, fault) in batch.spans.iter().zip(faults) {
            if fault.is_none() && !is_finite[span.rows.clone()].iter().all(|&is_finite| is_finite) {
                *fault = Some(Error::block_not_finite(block));
            }
        }
    }
}

impl Model for Transformer {
    fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut Logits) -> Result<(), Error> {
        let wanted = batch.wanted();
        logits.reset(self.spec.vocab_size, wanted.len(), batch.spans.len());
        self.run_blocks(batch, &mut logits.faults)?;
        if !wanted.is_empty() {
            self.run_head(&wanted, logits)?;
            logits.find_faults(batch, self.compute.cpu);
        }
        Ok(())
    }

    fn untaken_bytes(&self) -> u64 {
        self.cache.untaken_bytes()
    }

    fn hidden(&mut self, batch: &Batch<'_>) -> Result<Hidden, Error> {
        let mut faults = vec![None; batch.spans.len()];
        self.run_blocks(batch, &mut faults)?;
        let mut rows = self.buffers.stream.clone();
        if let Some(norm) = &self.output_norm {
            norm.apply(self.compute.cpu, &mut rows);
        }
        Ok(Hidden { rows, faults })
    }

    fn rank(&mut self, rows: &[f32]) -> Result<Vec<f32>, Error> {
        Ranker::rank(self.ranker.as_ref(), &self.compute, rows)
    }
}

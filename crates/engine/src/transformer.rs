//! The one transformer: a list of branches over rows of the residual stream. Which ones, and with what in them, is
//! data; see [`crate::spec`] and `build`.

mod attention;
mod build;
mod cache;
mod entry;
mod experts;
mod feed_forward;
mod norm;

use std::sync::Arc;

use candle_core::{Device, Tensor, quantized::QTensor};

use crate::{
    Error,
    compute::Compute,
    kernels::{activation, norm::not_finite, rope::Angles},
    linear::{Input, Linear},
    model::{Batch, Logits, Model},
    spec::Spec,
};
use attention::{Attention, Step};
pub(crate) use build::Setup;
use cache::Cache;
use entry::Entry;
use experts::Experts;
use feed_forward::FeedForward;
use norm::Norm;

pub(crate) struct Transformer {
    spec: Spec,
    compute: Arc<Compute>,
    /// [vocab, width]; kept as it is in the file, rows are widened when a token asks.
    embedding: Arc<QTensor>,
    entry: Entry,
    branches: Vec<Branch>,
    output_norm: Option<Norm>,
    /// `None` = an embedder.
    head: Option<Linear>,
    frequencies: Vec<f32>,
    local_frequencies: Option<Vec<f32>>,
    cache: Cache,
    buffers: Buffers,
}

/// One residual half of a block: `x += after(body(before(x)))`, then `x = closing(x)`. A norm that the file lacks is
/// left out, which makes pre-norm, post-norm and sandwich-norm the same thing.
struct Branch {
    block: usize,
    before: Before,
    body: Body,
    after: Option<Norm>,
    closing: Option<Norm>,
}

/// What a branch takes in.
enum Before {
    Norm(Norm),
    /// The stream as it is.
    Plain,
    /// What the branch before it took in: the two are parallel.
    Shared,
}

enum Body {
    Attention(Attention),
    FeedForward(FeedForward),
    Experts(Experts),
}

/// Room for a step. It grows to the largest step and stays.
#[derive(Debug, Default)]
struct Buffers {
    /// The residual stream, [n, width].
    stream: Vec<f32>,
    /// What a branch takes in.
    input: Input,
    /// What a branch adds.
    update: Vec<f32>,
    attention: attention::Buffers,
    feed_forward: feed_forward::Buffers,
    experts: experts::Buffers,
    angles: Angles,
    local_angles: Angles,
}

// === impl Transformer ===

impl Transformer {
    /// The normalised rows after the last block, [n, width], and of each span what is wrong with it.
    pub fn hidden(&mut self, batch: &Batch<'_>) -> Result<(Vec<f32>, Vec<Option<Error>>), Error> {
        let mut faults = vec![None; batch.spans.len()];
        let compute = self.compute.clone();
        compute.pool.install(|| self.run_blocks(batch, &mut faults))?;
        let mut rows = self.buffers.stream.clone();
        if let Some(norm) = &self.output_norm {
            norm.apply(&compute, &mut rows);
        }
        Ok((rows, faults))
    }

    /// Embeds the tokens and lets every branch add to the stream.
    fn run_blocks(&mut self, batch: &Batch<'_>, faults: &mut [Option<Error>]) -> Result<(), Error> {
        for span in &batch.spans {
            self.cache.reserve(span.pages)?;
        }
        self.embed_tokens(&batch.tokens, &batch.positions)?;
        let Buffers { angles, local_angles, .. } = &mut self.buffers;
        angles.fill(&batch.positions, &self.frequencies, self.spec.rope.magnitude);
        if let (Some(frequencies), Some(rope)) = (&self.local_frequencies, &self.spec.local_rope) {
            local_angles.fill(&batch.positions, frequencies, rope.magnitude);
        }
        for at in 0..self.branches.len() {
            self.run_branch(at, batch)?;
            self.find_faults(self.branches[at].block, batch, faults);
        }
        Ok(())
    }

    fn embed_tokens(&mut self, tokens: &[u32], positions: &[u32]) -> Result<(), Error> {
        let rows = self.embedding.embedding(&Tensor::new(tokens, &Device::Cpu)?)?; // [n, width]
        let rows = rows.flatten_all()?.to_vec1::<f32>()?;
        let stream = &mut self.buffers.stream;
        stream.clear();
        stream.extend(rows.iter().map(|value| value * self.spec.embedding_scale));
        self.entry.apply(&self.compute, positions, stream);
        Ok(())
    }

    fn run_branch(&mut self, at: usize, batch: &Batch<'_>) -> Result<(), Error> {
        let Transformer { spec, compute, branches, cache, buffers, .. } = self;
        let Buffers { stream, input, update, attention, angles, local_angles, .. } = buffers;
        let branch = &branches[at];
        match &branch.before {
            Before::Shared => {}
            Before::Plain => input.values().clone_from(stream),
            Before::Norm(norm) => {
                input.values().clone_from(stream);
                norm.apply(compute, input.values());
            }
        }
        match &branch.body {
            Body::Attention(body) => {
                let is_local = spec.local_rope.is_some() && spec.is_local(branch.block);
                let angles = if is_local { &*local_angles } else { &*angles };
                let step = Step { compute, batch, angles };
                body.forward(step, (cache, branch.block), attention, (input, update))?;
            }
            Body::FeedForward(body) => body.forward(compute, &mut buffers.feed_forward, input, update)?,
            Body::Experts(body) => body.forward(compute, &mut buffers.experts, input, update)?,
        }
        if let Some(norm) = &branch.after {
            norm.apply(compute, update);
        }
        stream.iter_mut().zip(update).for_each(|(value, update)| *value += *update);
        if let Some(norm) = &branch.closing {
            norm.apply(compute, stream);
        }
        Ok(())
    }

    /// Scores of the rows `wanted`.
    fn run_head(&mut self, wanted: &[usize], logits: &mut Logits) -> Result<(), Error> {
        let head = self.head.as_ref().ok_or(Error::Unsupported { what: "score tokens" })?;
        let width = self.spec.width;
        let Buffers { stream, input, .. } = &mut self.buffers;
        let rows = input.values();
        rows.clear();
        wanted.iter().for_each(|row| rows.extend(&stream[row * width..(row + 1) * width]));
        if let Some(norm) = &self.output_norm {
            norm.apply(&self.compute, rows);
        }
        Linear::forward(&self.compute, input, &mut [(head, &mut logits.values)])?; // [wanted, vocab]
        if let Some(cap) = self.spec.output_soft_cap {
            activation::cap_all(self.compute.cpu, &mut logits.values, cap);
        }
        Ok(())
    }

    /// Notes for each span the first block after which its rows are not finite.
    fn find_faults(&self, block: usize, batch: &Batch<'_>, faults: &mut [Option<Error>]) {
        let width = self.spec.width;
        if not_finite(&self.buffers.stream, width).is_none() {
            return;
        }
        for (span, fault) in batch.spans.iter().zip(faults) {
            let rows = &self.buffers.stream[span.rows.start * width..span.rows.end * width];
            if fault.is_none() && not_finite(rows, width).is_some() {
                *fault =
                    Some(Error::NotFinite { what: format!("what block {block} (`blk.{block}`) computed") });
            }
        }
    }
}

impl Model for Transformer {
    fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut Logits) -> Result<(), Error> {
        let compute = self.compute.clone();
        compute.pool.install(|| {
            let wanted = batch.wanted();
            logits.reset(self.spec.vocab_size, wanted.len(), batch.spans.len());
            self.run_blocks(batch, &mut logits.faults)?;
            if !wanted.is_empty() {
                self.run_head(&wanted, logits)?;
                find_head_faults(batch, logits, self.spec.vocab_size);
            }
            Ok(())
        })
    }
}

fn find_head_faults(batch: &Batch<'_>, logits: &mut Logits, vocab_size: usize) {
    let mut rows = logits.values.chunks_exact(vocab_size);
    for (span, fault) in batch.spans.iter().zip(&mut logits.faults) {
        for row in rows.by_ref().take(span.wanted().len()) {
            if fault.is_none() && not_finite(row, vocab_size).is_some() {
                *fault =
                    Some(Error::NotFinite { what: "what the language head (`output`) computed".to_owned() });
            }
        }
    }
}

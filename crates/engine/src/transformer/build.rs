//! From tensors to branches. What a file does not have is `None`; what it has and nobody takes is an error.

use std::ops::ControlFlow;

use gguf::File;

use super::{
    Body, Branch, Transformer,
    attention::Attention,
    cache::Cache,
    experts::{self, SharedExpert},
    feed_forward::FeedForward,
};
use crate::{
    Error,
    compute::Compute,
    linear::Linear,
    spec::{Experts, Spec},
    weights::Weights,
};

/// What a transformer is built with beside its file.
pub(crate) struct Setup {
    pub compute: Compute,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Longest sequence; decides between the two sets of longrope factors.
    pub context_length: usize,
}

impl Transformer {
    pub fn load(
        file: &File,
        spec: Spec,
        setup: Setup,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Transformer, Error> {
        let mut weights = Weights::new(file, progress);
        let embedding = weights.expect_matrix("token_embd.weight", spec.vocab_size, spec.width)?;
        let mut branches = Vec::new();
        for block in 0..spec.blocks {
            branches.push(attention_branch(&mut weights, &spec, block)?);
            branches.push(feed_forward_branch(&mut weights, &spec, block)?);
        }
        let output_norm = weights.expect_vector("output_norm.weight", spec.width)?;
        let head = weights.matrix("output.weight", spec.vocab_size, spec.width)?;
        let head = head.unwrap_or_else(|| embedding.clone());
        let factors = rope_factors(&mut weights, &spec, setup.context_length)?;
        weights.finish()?;
        Ok(Transformer {
            head: Linear::new(head, 0, spec.vocab_size, None),
            frequencies: spec.rope.frequencies(factors.as_deref()),
            local_frequencies: spec.local_rope.as_ref().map(|rope| rope.frequencies(None)),
            cache: Cache::new(spec.heads, spec.blocks, setup.pages),
            compute: setup.compute.into(),
            embedding,
            branches,
            output_norm,
            buffers: Default::default(),
            spec,
        })
    }
}

fn attention_branch(weights: &mut Weights<'_>, spec: &Spec, block: usize) -> Result<Branch, Error> {
    let name = |part: &str| format!("blk.{block}.{part}");
    let heads = spec.heads(block);
    let rows =
        [heads.count * heads.key_dim, heads.kv_count * heads.key_dim, heads.kv_count * heads.value_dim];
    let [query, key, value] = if weights.has(&name("attn_qkv.weight")) {
        weights.fused(&name("attn_qkv"), rows, spec.width)?
    } else {
        [
            weights.linear(&name("attn_q"), rows[0], spec.width)?,
            weights.linear(&name("attn_k"), rows[1], spec.width)?,
            weights.linear(&name("attn_v"), rows[2], spec.width)?,
        ]
    };
    let body = Body::Attention(Attention {
        heads,
        pairing: spec.pairing,
        epsilon: spec.epsilon,
        query,
        key,
        value,
        query_norm: weights.vector(&name("attn_q_norm.weight"), heads.key_dim)?,
        key_norm: weights.vector(&name("attn_k_norm.weight"), heads.key_dim)?,
        out: weights.linear(&name("attn_output"), spec.width, heads.count * heads.value_dim)?,
    });
    Ok(Branch {
        block,
        before: weights.vector(&name("attn_norm.weight"), spec.width)?,
        body,
        after: weights.vector(&name("post_attention_norm.weight"), spec.width)?,
    })
}

fn feed_forward_branch(weights: &mut Weights<'_>, spec: &Spec, block: usize) -> Result<Branch, Error> {
    let name = |part: &str| format!("blk.{block}.{part}");
    let body = match spec.experts {
        Some(experts) => Body::Experts(mixture(weights, spec, experts, name)?),
        None => Body::FeedForward(dense(weights, spec, block)?),
    };
    Ok(Branch {
        block,
        before: weights.vector(&name("ffn_norm.weight"), spec.width)?,
        body,
        after: weights.vector(&name("post_ffw_norm.weight"), spec.width)?,
    })
}

fn dense(weights: &mut Weights<'_>, spec: &Spec, block: usize) -> Result<FeedForward, Error> {
    let name = |part: &str| format!("blk.{block}.{part}");
    let inner = spec.feed_forward_width;
    let [gate, up] = if weights.has(&name("ffn_gate.weight")) {
        [
            weights.linear(&name("ffn_gate"), inner, spec.width)?,
            weights.linear(&name("ffn_up"), inner, spec.width)?,
        ]
    } else {
        weights.fused(&name("ffn_up"), [inner, inner], spec.width)?
    };
    let down = weights.linear(&name("ffn_down"), spec.width, inner)?;
    Ok(FeedForward { activation: spec.activation, gate, up, down })
}

fn mixture(
    weights: &mut Weights<'_>,
    spec: &Spec,
    experts: Experts,
    name: impl Fn(&str) -> String,
) -> Result<experts::Experts, Error> {
    let Experts { count, used, width: inner, shared_width, is_normalised } = experts;
    let router = weights.linear(&name("ffn_gate_inp"), count, spec.width)?;
    let gates = weights.experts(&name("ffn_gate_exps"), count, inner, spec.width)?;
    let ups = weights.experts(&name("ffn_up_exps"), count, inner, spec.width)?;
    let downs = weights.experts(&name("ffn_down_exps"), count, spec.width, inner)?;
    let activation = spec.activation;
    let bodies = gates.into_iter().zip(ups).zip(downs);
    let bodies = bodies.map(|((gate, up), down)| FeedForward { activation, gate, up, down }).collect();
    let shared = if weights.has(&name("ffn_up_shexp.weight")) {
        let gate = weights.linear(&name("ffn_gate_shexp"), shared_width, spec.width)?;
        let up = weights.linear(&name("ffn_up_shexp"), shared_width, spec.width)?;
        let down = weights.linear(&name("ffn_down_shexp"), spec.width, shared_width)?;
        let gate_of_all = weights.vector(&name("ffn_gate_inp_shexp.weight"), spec.width)?;
        Some(SharedExpert { body: FeedForward { activation, gate, up, down }, gate: gate_of_all })
    } else {
        None
    };
    Ok(experts::Experts { router, used, is_normalised, experts: bodies, shared })
}

/// What each frequency is divided by: llama3's factors, or the one of longrope's two sets that fits the context.
fn rope_factors(
    weights: &mut Weights<'_>,
    spec: &Spec,
    context_length: usize,
) -> Result<Option<Vec<f32>>, Error> {
    let pairs = spec.rope.dims / 2;
    let short = weights.vector("rope_factors_short.weight", pairs)?;
    let long = weights.vector("rope_factors_long.weight", pairs)?;
    let by_length = if context_length > spec.original_context_length { long } else { short };
    let factors = weights.vector("rope_freqs.weight", pairs)?.or(by_length);
    match factors.as_ref().and_then(|factors| factors.iter().position(|&factor| factor <= 0.0)) {
        None => Ok(factors),
        Some(at) => Err(Error::InvalidKey {
            key: "rope factors".to_owned(),
            problem: format!("must be above 0, number {at} is not"),
        }),
    }
}

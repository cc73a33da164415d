//! From tensors to branches. What a file does not have is `None`; what it has and nobody takes is an error.

use std::{ops::ControlFlow, sync::Arc};

use gguf::File;

use super::{
    Before, Body, Branch, Transformer,
    attention::Attention,
    cache::{Cache, Shape},
    entry::Entry,
    experts::{self, SharedExpert},
    feed_forward::FeedForward,
    norm::Norm,
    ranker::Ranker,
};
use crate::{
    Error,
    compute::Compute,
    kernels::packed::Packed,
    load::KvType,
    spec::{Experts, Layout, Spec},
    weights::{Backend, Weights},
};

const EMBEDDING: &str = "token_embd.weight";

/// What a transformer is built with beside its file.
pub(crate) struct Setup {
    pub compute: Compute,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Longest sequence; decides between the two sets of longrope factors.
    pub context_length: usize,
    pub kv_type: KvType,
}

/// All that a file says, where it is computed with.
pub(crate) struct Parts<B: Backend> {
    pub embedding: Arc<Packed>,
    pub entry: Entry,
    pub branches: Vec<Branch<B>>,
    pub output_norm: Option<B::Norm>,
    pub head: Option<B::Linear>,
    pub ranker: Option<Ranker>,
    pub frequencies: Vec<f32>,
    pub local_frequencies: Option<Vec<f32>>,
}

impl<B: Backend> Parts<B> {
    /// `context_length`: the longest sequence.
    pub fn load(mut weights: Weights<'_, B>, spec: &Spec, context_length: usize) -> Result<Parts<B>, Error> {
        let embedding = weights.expect_packed(EMBEDDING, spec.vocab_size, spec.width)?;
        let entry = Entry::load(&mut weights, spec)?;
        let mut branches = Vec::new();
        for block in 0..spec.blocks {
            branches.push(attention_branch(&mut weights, spec, block)?);
            branches.push(feed_forward_branch(&mut weights, spec, block)?);
        }
        let output_norm = match spec.layout {
            Layout::After => None,
            Layout::Before | Layout::BeforeOrShared => {
                Some(Norm::expect(&mut weights, spec, "output_norm", spec.width)?)
            }
        };
        let head = spec.has_head.then(|| head(&mut weights, spec, &embedding)).transpose()?;
        let ranker = Ranker::load(&mut weights, spec)?;
        let factors = rope_factors(&mut weights, spec, context_length)?;
        let output_norm = place(&weights, output_norm)?;
        weights.finish()?;
        Ok(Parts {
            embedding,
            entry,
            branches,
            output_norm,
            head,
            ranker,
            frequencies: spec.rope.frequencies(factors.as_deref()),
            local_frequencies: spec.local_rope.as_ref().map(|rope| rope.frequencies(None)),
        })
    }
}

impl Transformer {
    pub fn load(
        file: &File,
        spec: Spec,
        setup: Setup,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Transformer, Error> {
        let weights = Weights::new(file, &setup.compute, progress);
        let parts = Parts::load(weights, &spec, setup.context_length)?;
        Ok(Transformer {
            embedding: parts.embedding,
            entry: parts.entry,
            branches: parts.branches,
            output_norm: parts.output_norm,
            head: parts.head,
            ranker: parts.ranker,
            frequencies: parts.frequencies,
            local_frequencies: parts.local_frequencies,
            cache: Cache::new(Shape::of(&spec, setup.kv_type), setup.pages),
            compute: setup.compute.into(),
            buffers: Default::default(),
            spec,
        })
    }
}

/// Puts a norm where it is computed.
fn place<B: Backend>(weights: &Weights<'_, B>, norm: Option<Norm>) -> Result<Option<B::Norm>, Error> {
    norm.map(|norm| weights.backend().norm(norm)).transpose()
}

/// A file without one has it tied to the embedding.
fn head<B: Backend>(
    weights: &mut Weights<'_, B>,
    spec: &Spec,
    embedding: &Arc<Packed>,
) -> Result<B::Linear, Error> {
    let own = weights.matrix("output.weight", spec.vocab_size, spec.width)?;
    let weight = match own.or_else(|| weights.backend().tied(embedding)) {
        Some(weight) => weight,
        None => weights.expect_matrix(EMBEDDING, spec.vocab_size, spec.width)?,
    };
    let bias = weights.vector("output.bias", spec.vocab_size)?;
    weights.backend().linear(weight, bias)
}

fn attention_branch<B: Backend>(
    weights: &mut Weights<'_, B>,
    spec: &Spec,
    block: usize,
) -> Result<Branch<B>, Error> {
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
    let mut head_norm =
        |part: &str, count: usize| Norm::of_heads(weights, spec, &name(part), (count, heads.key_dim));
    let (query_norm, key_norm) =
        (head_norm("attn_q_norm", heads.count)?, head_norm("attn_k_norm", heads.kv_count)?);
    let body = Body::Attention(Attention {
        heads,
        pairing: spec.pairing,
        is_causal: spec.is_causal,
        query,
        key,
        value,
        query_norm: place(weights, query_norm)?,
        key_norm: place(weights, key_norm)?,
        out: weights.linear(&name("attn_output"), spec.width, heads.count * heads.value_dim)?,
    });
    Ok(Branch {
        block,
        before: before(weights, spec, &name("attn_norm"))?,
        body,
        after: after(weights, spec, &name("post_attention_norm"))?,
        closing: closing(weights, spec, &name("attn_output_norm"))?,
    })
}

fn feed_forward_branch<B: Backend>(
    weights: &mut Weights<'_, B>,
    spec: &Spec,
    block: usize,
) -> Result<Branch<B>, Error> {
    let name = |part: &str| format!("blk.{block}.{part}");
    let body = match spec.experts {
        Some(experts) => Body::Experts(mixture(weights, spec, experts, name)?),
        None => Body::FeedForward(dense(weights, spec, block)?),
    };
    let norm = name("ffn_norm");
    let is_shared = spec.layout == Layout::BeforeOrShared && !weights.has(&format!("{norm}.weight"));
    Ok(Branch {
        block,
        before: if is_shared { Before::Shared } else { before(weights, spec, &norm)? },
        body,
        after: after(weights, spec, &name("post_ffw_norm"))?,
        closing: closing(weights, spec, &name("layer_output_norm"))?,
    })
}

fn before<B: Backend>(weights: &mut Weights<'_, B>, spec: &Spec, name: &str) -> Result<Before<B>, Error> {
    match spec.layout {
        Layout::After => Ok(Before::Plain),
        Layout::Before | Layout::BeforeOrShared => {
            let norm = Norm::expect(weights, spec, name, spec.width)?;
            weights.backend().norm(norm).map(Before::Norm)
        }
    }
}

fn after<B: Backend>(
    weights: &mut Weights<'_, B>,
    spec: &Spec,
    name: &str,
) -> Result<Option<B::Norm>, Error> {
    let norm = Norm::optional(weights, spec, name, spec.width)?;
    place(weights, norm)
}

fn closing<B: Backend>(
    weights: &mut Weights<'_, B>,
    spec: &Spec,
    name: &str,
) -> Result<Option<B::Norm>, Error> {
    match spec.layout {
        Layout::After => {
            let norm = Norm::expect(weights, spec, name, spec.width)?;
            weights.backend().norm(norm).map(Some)
        }
        Layout::Before | Layout::BeforeOrShared => Ok(None),
    }
}

fn dense<B: Backend>(
    weights: &mut Weights<'_, B>,
    spec: &Spec,
    block: usize,
) -> Result<FeedForward<B>, Error> {
    let name = |part: &str| format!("blk.{block}.{part}");
    let inner = spec.feed_forward_width;
    let (gate, up) = if !spec.is_gated {
        (None, weights.linear(&name("ffn_up"), inner, spec.width)?)
    } else if weights.has(&name("ffn_gate.weight")) {
        let gate = weights.linear(&name("ffn_gate"), inner, spec.width)?;
        (Some(gate), weights.linear(&name("ffn_up"), inner, spec.width)?)
    } else {
        let [gate, up] = weights.fused(&name("ffn_up"), [inner, inner], spec.width)?;
        (Some(gate), up)
    };
    let down = weights.linear(&name("ffn_down"), spec.width, inner)?;
    Ok(FeedForward { activation: spec.activation, gate, up, down })
}

fn mixture<B: Backend>(
    weights: &mut Weights<'_, B>,
    spec: &Spec,
    experts: Experts,
    name: impl Fn(&str) -> String,
) -> Result<experts::Experts<B>, Error> {
    let Experts { count, used, width: inner, shared_width, is_normalised } = experts;
    let router = weights.linear(&name("ffn_gate_inp"), count, spec.width)?;
    let gates = weights.experts(&name("ffn_gate_exps"), count, inner, spec.width)?;
    let ups = weights.experts(&name("ffn_up_exps"), count, inner, spec.width)?;
    let downs = weights.experts(&name("ffn_down_exps"), count, spec.width, inner)?;
    let activation = spec.activation;
    let bodies = gates.into_iter().zip(ups).zip(downs);
    let bodies = bodies.map(|((gate, up), down)| FeedForward { activation, gate: Some(gate), up, down });
    let shared = if weights.has(&name("ffn_up_shexp.weight")) {
        let gate = weights.linear(&name("ffn_gate_shexp"), shared_width, spec.width)?;
        let up = weights.linear(&name("ffn_up_shexp"), shared_width, spec.width)?;
        let down = weights.linear(&name("ffn_down_shexp"), spec.width, shared_width)?;
        let gate_of_all = weights.vector(&name("ffn_gate_inp_shexp.weight"), spec.width)?;
        let body = FeedForward { activation, gate: Some(gate), up, down };
        Some(SharedExpert { body, gate: gate_of_all })
    } else {
        None
    };
    Ok(experts::Experts { router, used, is_normalised, experts: bodies.collect(), shared })
}

/// What each frequency is divided by: llama3's factors, or the one of longrope's two sets that fits the context.
fn rope_factors<B: Backend>(
    weights: &mut Weights<'_, B>,
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

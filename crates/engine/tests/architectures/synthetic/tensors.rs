//! Which tensors a small model has.

use super::{CONTEXT, Model, Part, VOCAB};

type Named = (String, Vec<u64>);

/// Names and shapes, in ggml's order of dimensions.
pub fn of(model: &Model) -> Vec<Named> {
    let (width, half) = (size(model.width), model.rope_dims() / 2);
    let is_after = model.has(Part::NormsAfter);
    let norm = if is_after { "token_embd_norm" } else { "output_norm" };
    let mut all = vec![
        ("token_embd.weight".to_owned(), vec![width, size(VOCAB)]),
        (format!("{norm}.weight"), vec![width]),
    ];
    if model.has(Part::LayerNorm) {
        all.push((format!("{norm}.bias"), vec![width]));
    }
    let mut put_if = |part: Part, name: &str, shape: &[u64]| {
        if model.has(part) {
            all.push((name.to_owned(), shape.to_vec()));
        }
    };
    put_if(Part::Output, "output.weight", &[width, size(VOCAB)]);
    put_if(Part::OutputBias, "output.bias", &[size(VOCAB)]);
    put_if(Part::Positions, "position_embd.weight", &[width, CONTEXT.into()]);
    put_if(Part::TokenTypes, "token_types.weight", &[width, 2]);
    put_if(Part::Classifier, "cls.weight", &[width, width]);
    put_if(Part::Classifier, "cls.bias", &[width]);
    put_if(Part::Label, "cls.output.weight", &[width, 1]);
    put_if(Part::Label, "cls.output.bias", &[1]);
    put_if(Part::YesNo, "cls.output.weight", &[width, 2]);
    put_if(Part::RopeFreqs, "rope_freqs.weight", &[half]);
    put_if(Part::RopeFactors, "rope_factors_long.weight", &[half]);
    put_if(Part::RopeFactors, "rope_factors_short.weight", &[half]);
    for block in 0..model.blocks {
        let named = |(name, shape): (&str, Vec<u64>)| (format!("blk.{block}.{name}"), shape);
        all.extend(norms_and_outs(model).into_iter().map(named));
        all.extend(attention(model).into_iter().map(named));
        all.extend(feed_forward(model).into_iter().map(named));
        all.extend(additions(model).into_iter().map(named));
    }
    all
}

fn norms_and_outs(model: &Model) -> Vec<(&'static str, Vec<u64>)> {
    let (width, query, _) = widths(model);
    let mut all: Vec<_> = block_norms(model).into_iter().map(|[weight, _]| (weight, vec![width])).collect();
    all.push(("attn_output.weight", vec![query, width]));
    if model.experts == 0 {
        all.push(("ffn_down.weight", vec![size(model.inner), width]));
    }
    all
}

fn attention(model: &Model) -> Vec<(&'static str, Vec<u64>)> {
    let (width, query, key) = widths(model);
    match model.has(Part::FusedQkv) {
        true => vec![("attn_qkv.weight", vec![width, query + 2 * key])],
        false => vec![
            ("attn_q.weight", vec![width, query]),
            ("attn_k.weight", vec![width, key]),
            ("attn_v.weight", vec![width, key]),
        ],
    }
}

fn feed_forward(model: &Model) -> Vec<(&'static str, Vec<u64>)> {
    let (width, inner, experts) = (size(model.width), size(model.inner), size(model.experts));
    let mut all = Vec::new();
    if experts > 0 {
        all.extend([
            ("ffn_gate_inp.weight", vec![width, experts]),
            ("ffn_down_exps.weight", vec![inner, width, experts]),
            ("ffn_gate_exps.weight", vec![width, inner, experts]),
            ("ffn_up_exps.weight", vec![width, inner, experts]),
        ]);
    } else if model.has(Part::FusedGateUp) {
        all.push(("ffn_up.weight", vec![width, 2 * inner]));
    } else if model.has(Part::Ungated) {
        all.push(("ffn_up.weight", vec![width, inner]));
    } else {
        all.extend([("ffn_gate.weight", vec![width, inner]), ("ffn_up.weight", vec![width, inner])]);
    }
    if model.has(Part::SharedExpert) {
        let inner = size(2 * model.inner);
        all.extend([
            ("ffn_gate_inp_shexp.weight", vec![width]),
            ("ffn_down_shexp.weight", vec![inner, width]),
            ("ffn_gate_shexp.weight", vec![width, inner]),
            ("ffn_up_shexp.weight", vec![width, inner]),
        ]);
    }
    all
}

/// Biases and further norms.
fn additions(model: &Model) -> Vec<(&'static str, Vec<u64>)> {
    let (width, query, key) = widths(model);
    let head = size(model.head_dim);
    let mut all = Vec::new();
    if model.has(Part::QkvBias) {
        all.extend([("attn_q.bias", vec![query]), ("attn_k.bias", vec![key]), ("attn_v.bias", vec![key])]);
    }
    if model.has(Part::QkNorm) {
        all.extend([("attn_q_norm.weight", vec![head]), ("attn_k_norm.weight", vec![head])]);
    }
    if model.has(Part::HeadNorms) {
        let (heads, kv_heads) = (size(model.heads), size(model.kv_heads));
        all.extend([("attn_q_norm.weight", vec![head, heads]), ("attn_k_norm.weight", vec![head, kv_heads])]);
    }
    if model.has(Part::Biases) {
        all.extend([("attn_output.bias", vec![width]), ("ffn_down.bias", vec![width])]);
        all.push(("ffn_up.bias", vec![size(model.inner)]));
    }
    if model.has(Part::FusedBias) {
        all.push(("attn_qkv.bias", vec![query + 2 * key]));
    }
    if model.has(Part::LayerNorm) {
        all.extend(block_norms(model).into_iter().map(|[_, bias]| (bias, vec![width])));
    }
    if model.has(Part::PostNorms) {
        all.extend([("post_attention_norm.weight", vec![width]), ("post_ffw_norm.weight", vec![width])]);
    }
    all
}

/// Weight and bias of the norms of a block.
fn block_norms(model: &Model) -> Vec<[&'static str; 2]> {
    let attention = ["attn_norm.weight", "attn_norm.bias"];
    if model.has(Part::NormsAfter) {
        return vec![
            ["attn_output_norm.weight", "attn_output_norm.bias"],
            ["layer_output_norm.weight", "layer_output_norm.bias"],
        ];
    }
    match model.has(Part::Parallel) {
        true => vec![attention],
        false => vec![attention, ["ffn_norm.weight", "ffn_norm.bias"]],
    }
}

/// Of a row, of all its queries, and of all its keys.
fn widths(model: &Model) -> (u64, u64, u64) {
    let heads = |count: usize| size(count * model.head_dim);
    (size(model.width), heads(model.heads), heads(model.kv_heads))
}

fn size(size: usize) -> u64 {
    size as u64
}

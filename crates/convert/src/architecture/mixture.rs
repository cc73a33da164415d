//! Mixtures of experts: what each expert has, and what config.json says of them.

use super::Size::{ExpertInner, Width};
use super::{Row, Sizes, must};
use crate::Error;
use crate::checkpoint::Entries;
use crate::json::Json;

/// How an architecture names its experts.
pub(super) struct Mixture {
    /// What is before an expert's number.
    pub before_expert: &'static str,
    pub rows: &'static [Row],
    /// Keys of config.json: how many experts there are, and how wide they are inside.
    pub count_key: &'static str,
    pub inner_key: &'static str,
}

const UP: &[super::Size] = &[ExpertInner, Width];
const DOWN: &[super::Size] = &[Width, ExpertInner];

pub(super) const MIXTRAL: Mixture = Mixture {
    before_expert: "block_sparse_moe.experts.",
    rows: &[
        must("w1.weight", "ffn_gate_exps.weight", UP),
        must("w2.weight", "ffn_down_exps.weight", DOWN),
        must("w3.weight", "ffn_up_exps.weight", UP),
    ],
    count_key: "num_local_experts",
    inner_key: "intermediate_size",
};

pub(super) const QWEN3: Mixture = Mixture {
    before_expert: "mlp.experts.",
    rows: &[
        must("gate_proj.weight", "ffn_gate_exps.weight", UP),
        must("down_proj.weight", "ffn_down_exps.weight", DOWN),
        must("up_proj.weight", "ffn_up_exps.weight", UP),
    ],
    count_key: "num_experts",
    inner_key: "moe_intermediate_size",
};

/// Every block must have experts, whose shares add up to one: whoever runs the file takes that for granted.
pub(super) fn qwen3_keys(config: &Json, sizes: &Sizes) -> Result<Entries, Error> {
    if let Some(step) = config.count("decoder_sparse_step")?.filter(|step| *step != 1) {
        return Err(config.wrong("decoder_sparse_step", &format!("must be 1, got {step}")));
    }
    if config.array("mlp_only_layers")?.is_some_and(|layers| !layers.is_empty()) {
        return Err(config.wrong("mlp_only_layers", "must be empty, every layer needs experts"));
    }
    // The library's own default is false; all published models say true.
    if !config.flag("norm_topk_prob")?.unwrap_or(false) {
        return Err(config.wrong("norm_topk_prob", "must be true"));
    }
    Ok(vec![("expert_feed_forward_length".to_owned(), (sizes.expert_inner as u32).into())])
}

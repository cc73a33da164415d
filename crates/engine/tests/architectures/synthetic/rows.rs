//! The small models: one or more per row of the arch table.

use super::{Model, Part::*};

/// All of them.
pub fn models() -> Vec<Model> {
    let llama = Model {
        name: "llama",
        arch: "llama",
        blocks: 2,
        width: 64,
        inner: 96,
        experts: 0,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        parts: vec![Output, RopeFreqs],
        keys: vec![("rope.freq_base", 500_000f32.into())],
    };
    let linear = vec![("rope.scaling.type", "linear".into()), ("rope.scaling.factor", 4f32.into())];
    let yarn = vec![
        ("rope.scaling.type", "yarn".into()),
        ("rope.scaling.factor", 4f32.into()),
        ("rope.scaling.original_context_length", 16u32.into()),
    ];
    let longrope = vec![
        ("rope.scaling.type", "longrope".into()),
        ("rope.scaling.attn_factor", 1.19f32.into()),
        ("rope.scaling.original_context_length", 32u32.into()),
        ("rope.dimension_count", 16u32.into()),
    ];
    let window = |tokens: u32| ("attention.sliding_window", tokens.into());
    let caps =
        vec![("attn_logit_softcapping", 5f32.into()), ("final_logit_softcapping", 6f32.into()), window(8)];
    let gemma3 = vec![
        window(8),
        ("rope.freq_base", 1_000_000f32.into()),
        ("rope.scaling.type", "linear".into()),
        ("rope.scaling.factor", 8f32.into()),
    ];
    let with = |name, arch, parts, keys| Model { name, arch, parts, keys, ..llama.clone() };
    let wide = |model: Model| Model { head_dim: 32, ..model };
    let widths = |shared: Option<u32>| {
        let own = [("expert_feed_forward_length", 96u32.into())];
        own.into_iter()
            .chain(shared.map(|width| ("expert_shared_feed_forward_length", width.into())))
            .collect()
    };
    let mixed = |experts: usize, model: Model| Model { experts, ..model };
    vec![
        llama.clone(),
        mixed(5, with("llama-experts", "llama", vec![Output], vec![])),
        mixed(7, with("qwen2moe", "qwen2moe", vec![QkvBias, Output, SharedExpert], widths(Some(192)))),
        mixed(6, with("qwen3moe", "qwen3moe", vec![QkNorm], widths(None))),
        with("llama-linear", "llama", vec![QkvBias], linear),
        Model { kv_heads: 4, ..with("llama-plain", "llama", vec![], vec![]) },
        with("qwen2", "qwen2", vec![QkvBias, Output], vec![]),
        with("qwen2-yarn", "qwen2", vec![QkvBias], yarn),
        wide(with("qwen3", "qwen3", vec![QkNorm], vec![("rope.freq_base", 1_000_000f32.into())])),
        with("phi3", "phi3", vec![FusedQkv, FusedGateUp, RopeFactors, Output], longrope),
        wide(with("gemma", "gemma", vec![], vec![])),
        wide(with("gemma2", "gemma2", vec![PostNorms], caps)),
        Model { blocks: 7, ..wide(with("gemma3", "gemma3", vec![PostNorms, QkNorm], gemma3)) },
    ]
}

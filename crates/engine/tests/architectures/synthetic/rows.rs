//! The small models: one or more per row of the arch table.

use gguf::Value;

use super::{
    Model,
    Part::{self, *},
};

type Keys = Vec<(&'static str, Value)>;

/// All that have a language head.
pub fn models() -> Vec<Model> {
    [llamas(), experts(), ropes(), layer_norms(), gemmas()].concat()
}

/// All that make vectors.
pub fn embedders() -> Vec<Model> {
    let bert = || vec![LayerNorm, NormsAfter, Positions, TokenTypes, QkvBias, Biases, Ungated];
    let nomic = vec![LayerNorm, NormsAfter, TokenTypes, FusedQkv];
    let pooled = |kind: u32| vec![("attention.causal", false.into()), ("pooling_type", kind.into())];
    let turned = vec![("rope.freq_base", 1000f32.into())];
    let full = |model: Model| Model { kv_heads: 4, ..model };
    vec![
        full(with("bert", "bert", bert(), pooled(1))),
        full(with("bert-cls", "bert", bert(), pooled(2))),
        full(with("nomic-bert", "nomic-bert", nomic, [pooled(1), turned].concat())),
        wide(with("qwen3-last", "qwen3", vec![QkNorm], vec![("pooling_type", 3u32.into())])),
    ]
}

/// All that tell how well a document answers a query.
pub fn rerankers() -> Vec<Model> {
    let bert = || vec![LayerNorm, NormsAfter, Positions, TokenTypes, QkvBias, Biases, Ungated];
    let ahead = || vec![("attention.causal", false.into())];
    let ranks = || ("pooling_type", 4u32.into());
    let labels: Value = vec!["yes".to_owned(), "no".to_owned()].into();
    let full = |name, parts: Vec<Part>, keys: Keys| Model {
        kv_heads: 4,
        ..with(name, "bert", [bert(), parts].concat(), keys)
    };
    vec![
        full("bert-rank", vec![Classifier, Label], [ahead(), vec![ranks()]].concat()),
        // What a converter writes for most: only the tensors tell.
        full("bert-label", vec![Label], ahead()),
        full("bert-dense", vec![Classifier], [ahead(), vec![ranks()]].concat()),
        wide(with(
            "qwen3-rank",
            "qwen3",
            vec![QkNorm, YesNo],
            vec![ranks(), ("classifier.output_labels", labels)],
        )),
    ]
}

fn llama() -> Model {
    Model {
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
    }
}

fn with(name: &'static str, arch: &'static str, parts: Vec<Part>, keys: Keys) -> Model {
    Model { name, arch, parts, keys, ..llama() }
}

fn wide(model: Model) -> Model {
    Model { head_dim: 32, ..model }
}

fn llamas() -> Vec<Model> {
    vec![
        llama(),
        Model { kv_heads: 4, ..with("llama-plain", "llama", vec![], vec![]) },
        with("qwen2", "qwen2", vec![QkvBias, Output], vec![]),
        wide(with("qwen3", "qwen3", vec![QkNorm], vec![("rope.freq_base", 1_000_000f32.into())])),
    ]
}

fn experts() -> Vec<Model> {
    let own = ("expert_feed_forward_length", 96u32.into());
    let widths = vec![own.clone(), ("expert_shared_feed_forward_length", 192u32.into())];
    let mixed = |experts: usize, model: Model| Model { experts, ..model };
    vec![
        mixed(5, with("llama-experts", "llama", vec![Output], vec![])),
        mixed(7, with("qwen2moe", "qwen2moe", vec![QkvBias, Output, SharedExpert], widths)),
        mixed(6, with("qwen3moe", "qwen3moe", vec![QkNorm], vec![own])),
    ]
}

/// Every kind of scaling for contexts that are longer than those of the training.
fn ropes() -> Vec<Model> {
    let linear = vec![("rope.scaling.type", "linear".into()), ("rope.scaling.factor", 4f32.into())];
    let yarn = vec![
        ("rope.scaling.type", "yarn".into()),
        ("rope.scaling.factor", 4f32.into()),
        ("rope.scaling.original_context_length", 16u32.into()),
    ];
    let sharp = vec![
        ("rope.scaling.yarn_beta_fast", 4f32.into()),
        ("rope.scaling.yarn_beta_slow", 0.5f32.into()),
        ("rope.scaling.attn_factor", 0.9f32.into()),
    ];
    // Which factors count is told by the context: 64 here, and 256 in llama.cpp, which has no smaller one.
    let longrope = |original: u32, dims: u32| {
        vec![
            ("rope.scaling.type", "longrope".into()),
            ("rope.scaling.attn_factor", 1.19f32.into()),
            ("rope.scaling.original_context_length", original.into()),
            ("rope.dimension_count", dims.into()),
        ]
    };
    let fused = || vec![FusedQkv, FusedGateUp, RopeFactors, Output];
    vec![
        with("llama-linear", "llama", vec![QkvBias], linear),
        with("llama-yarn", "llama", vec![], [yarn.clone(), sharp].concat()),
        with("qwen2-yarn", "qwen2", vec![QkvBias], yarn),
        with("phi3", "phi3", fused(), longrope(32, 16)),
        with("phi3-partial", "phi3", fused(), longrope(32, 8)),
        with("phi3-short", "phi3", vec![FusedQkv, FusedGateUp, RopeFactors], longrope(256, 16)),
    ]
}

fn layer_norms() -> Vec<Model> {
    let phi2 = vec![LayerNorm, Parallel, Ungated, Biases, FusedQkv, FusedBias, Output, OutputBias];
    let quarter = || vec![("rope.dimension_count", 4u32.into())];
    vec![
        with("phi2", "phi2", phi2, quarter()),
        with("stablelm", "stablelm", vec![LayerNorm, QkvBias, Output], quarter()),
        with("stablelm-12b", "stablelm", vec![LayerNorm, Parallel, HeadNorms, Output], quarter()),
    ]
}

fn gemmas() -> Vec<Model> {
    let window = ("attention.sliding_window", 8u32.into());
    let caps = vec![
        ("attn_logit_softcapping", 5f32.into()),
        ("final_logit_softcapping", 6f32.into()),
        window.clone(),
    ];
    let gemma3 = vec![
        window,
        ("rope.freq_base", 1_000_000f32.into()),
        ("rope.scaling.type", "linear".into()),
        ("rope.scaling.factor", 8f32.into()),
    ];
    let listed: Value = vec![false, true, true, false].into();
    let listed = [gemma3.clone(), vec![("attention.sliding_window_pattern", listed)]].concat();
    let third = [gemma3.clone(), vec![("attention.sliding_window_pattern", 3u32.into())]].concat();
    vec![
        Model { blocks: 4, ..wide(with("gemma3-listed", "gemma3", vec![PostNorms, QkNorm], listed)) },
        Model { blocks: 3, ..wide(with("gemma3-third", "gemma3", vec![PostNorms, QkNorm], third)) },
        wide(with("gemma", "gemma", vec![], vec![])),
        wide(with("gemma2", "gemma2", vec![PostNorms], caps)),
        Model { blocks: 7, ..wide(with("gemma3", "gemma3", vec![PostNorms, QkNorm], gemma3)) },
    ]
}

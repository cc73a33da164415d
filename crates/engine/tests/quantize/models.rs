//! Small models on which every rule of the mixtures shows: enough blocks, rows of whole blocks and of none.

use super::synthetic::{Model, Part::*};

fn plain() -> Model {
    Model {
        name: "mix",
        arch: "llama",
        blocks: 16,
        width: 256,
        inner: 512,
        experts: 0,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        parts: vec![Output, RopeFreqs],
        keys: vec![],
    }
}

pub fn models() -> Vec<Model> {
    let small = || Model { blocks: 8, width: 256, inner: 256, parts: vec![], ..plain() };
    vec![
        plain(),
        Model { name: "mix-tied", blocks: 9, arch: "qwen3", parts: vec![QkNorm], ..small() },
        Model { name: "mix-odd", width: 160, head_dim: 40, parts: vec![Output], ..small() },
        Model { name: "mix-experts", experts: 8, parts: vec![Output], ..small() },
        Model { name: "mix-some-experts", experts: 4, parts: vec![Output], ..small() },
        Model { name: "mix-fused", arch: "phi3", parts: vec![FusedQkv, FusedGateUp, Output], ..small() },
        Model {
            name: "mix-bert",
            arch: "bert",
            kv_heads: 4,
            parts: vec![LayerNorm, NormsAfter, Positions, TokenTypes, QkvBias, Biases, Ungated],
            keys: vec![("attention.causal", false.into()), ("pooling_type", 1u32.into())],
            ..small()
        },
    ]
}

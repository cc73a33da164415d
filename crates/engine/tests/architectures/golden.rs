//! What llama.cpp computes with the same files: `make_golden.py` made golden.json.

use std::collections::BTreeMap;

use candle_core::quantized::GgmlDType;
use serde::Deserialize;

use engine::{Device, Engine, LoadOptions};

use crate::engines::{load, options};
use crate::synthetic::{embedders, models, rerankers, tokens};

/// Logits go to ±8 here. The weights are F32 on both sides, so what is left is the half-precision cache, and that
/// llama.cpp also rounds queries and attention weights to half precision.
const TOLERANCE: f32 = 0.02;

#[derive(Deserialize)]
struct Golden {
    stride: usize,
    tokens: Vec<u32>,
    positions: Vec<usize>,
    models: BTreeMap<String, Vec<Vec<f32>>>,
    best: BTreeMap<String, Vec<usize>>,
    counts: Vec<usize>,
    embeddings: BTreeMap<String, Vec<Vec<f32>>>,
    ranks: BTreeMap<String, Vec<f32>>,
}

/// Rows are normalised to values around one. llama.cpp keeps no cache here, and looks its GELU up in half precision.
const EMBEDDING_TOLERANCE: f32 = 0.005;

#[test]
fn every_row_computes_what_llama_cpp_computes() {
    let worst = rows_on(Device::Cpu);
    println!("largest differences: {worst:?}");
    assert!(worst.iter().all(|(_, furthest)| *furthest <= TOLERANCE), "{worst:?}");
}

#[test]
fn every_row_computes_the_same_where_gpus_are_driven() {
    let worst = rows_on(Device::CandleCpu);
    println!("largest differences: {worst:?}");
    assert!(worst.iter().all(|(_, furthest)| *furthest <= TOLERANCE), "{worst:?}");
}

#[test]
fn every_embedder_computes_what_llama_cpp_computes() {
    let worst = embedders_on(Device::Cpu);
    println!("largest differences: {worst:?}");
    assert!(worst.iter().all(|(_, furthest)| *furthest <= EMBEDDING_TOLERANCE), "{worst:?}");
}

#[test]
fn every_embedder_computes_the_same_where_gpus_are_driven() {
    let worst = embedders_on(Device::CandleCpu);
    println!("largest differences: {worst:?}");
    assert!(worst.iter().all(|(_, furthest)| *furthest <= EMBEDDING_TOLERANCE), "{worst:?}");
}

#[test]
fn every_reranker_computes_what_llama_cpp_computes() {
    let worst = rerankers_on(Device::Cpu);
    println!("largest differences: {worst:?}");
    assert!(worst.iter().all(|(_, furthest)| *furthest <= EMBEDDING_TOLERANCE), "{worst:?}");
}

#[test]
fn every_reranker_computes_the_same_where_gpus_are_driven() {
    let worst = rerankers_on(Device::CandleCpu);
    println!("largest differences: {worst:?}");
    assert!(worst.iter().all(|(_, furthest)| *furthest <= EMBEDDING_TOLERANCE), "{worst:?}");
}

/// Of each reranker, how far its scores are from llama.cpp's at most.
fn rerankers_on(device: Device) -> Vec<(&'static str, f32)> {
    let golden: Golden = serde_json::from_str(include_str!("golden.json")).expect("golden figures");
    let pairs: Vec<Vec<u32>> = golden.counts.iter().map(|&count| tokens(count)).collect();
    let mut worst = Vec::new();
    for model in rerankers() {
        let mut engine =
            load(&model.bytes(GgmlDType::F32), LoadOptions { device, ..options(1, 16) }).expect("a model");
        let mut found = engine.rank(&pairs).expect("logits");
        if model.arch == "qwen3" {
            // There llama.cpp tells a probability.
            found.iter_mut().for_each(|logit| *logit = 1.0 / (1.0 + (-*logit).exp()));
        }
        let expected = &golden.ranks[model.name];
        assert_eq!(found.len(), expected.len());
        let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
        worst.push((model.name, differences.fold(0.0, f32::max)));
    }
    worst
}

/// Of each embedder, how far it is from llama.cpp at most.
fn embedders_on(device: Device) -> Vec<(&'static str, f32)> {
    let golden: Golden = serde_json::from_str(include_str!("golden.json")).expect("golden figures");
    // A reranker makes vectors, too.
    let models = [embedders(), rerankers()].concat();
    assert_eq!(models.len(), golden.embeddings.len());
    let inputs: Vec<Vec<u32>> = golden.counts.iter().map(|&count| tokens(count)).collect();
    let mut worst = Vec::new();
    for model in models {
        let mut engine =
            load(&model.bytes(GgmlDType::F32), LoadOptions { device, ..options(1, 16) }).expect("a model");
        let found = engine.embed(&inputs).expect("vectors");
        let pairs = found.iter().flatten().zip(golden.embeddings[model.name].iter().flatten());
        assert_eq!(pairs.clone().count(), 64 * golden.counts.len());
        let furthest = pairs.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
        worst.push((model.name, furthest));
    }
    worst
}

/// Of each row, how far its logits are from llama.cpp's at most.
fn rows_on(device: Device) -> Vec<(&'static str, f32)> {
    let golden: Golden = serde_json::from_str(include_str!("golden.json")).expect("golden figures");
    assert_eq!(golden.tokens, tokens(golden.tokens.len()), "both sides run the same tokens");
    let models = models();
    assert_eq!(models.len(), golden.models.len());
    let mut worst = Vec::new();
    for model in models {
        let mut engine =
            load(&model.bytes(GgmlDType::F32), LoadOptions { device, ..options(1, 16) }).expect("a model");
        let rows = engine.logits(&golden.tokens).expect("logits");
        let mut furthest = 0f32;
        for (position, expected) in golden.positions.iter().zip(&golden.models[model.name]) {
            let found = rows[*position].iter().step_by(golden.stride);
            for (found, expected) in found.zip(expected) {
                furthest = furthest.max((found - expected).abs());
            }
        }
        for (position, (row, best)) in rows.iter().zip(&golden.best[model.name]).enumerate() {
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(highest - row[*best] <= TOLERANCE, "{} picks another token at {position}", model.name);
        }
        worst.push((model.name, furthest));
    }
    worst
}

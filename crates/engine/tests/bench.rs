//! The models of `make bench-engine` are what they claim to be: made small here, and run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../benches/speed/synthetic.rs"]
#[expect(dead_code, reason = "the bench uses what this does not")]
mod synthetic;

use std::{collections::BTreeMap, ops::ControlFlow};

use engine::{CandleEngine, LoadOptions};
use gguf::{Gguf, Metadata, TensorType};
use synthetic::{Mix, Shape};

/// As many blocks as the real shape has, so that the mixes are the same.
const SMALL: Shape = Shape { width: 256, blocks: 16, heads: 8, kv_heads: 2, inner: 512 };
const MIXES: [&str; 4] = ["Q4_0", "Q4_K_M", "Q8_0", "F16"];
const VOCAB: usize = 300;

/// The metadata of a model with a small tokenizer.
fn tokenizer() -> Metadata {
    let mut texts: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    texts.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    texts.extend((texts.len()..VOCAB).map(|at| format!("w{at}")));
    let kind = |at: usize| match at {
        0..3 => 3,
        3..259 => 6,
        _ => 1,
    };
    let mut writer = gguf::Writer::new();
    writer.metadata("general.architecture", "not to be copied").unwrap();
    writer.metadata("tokenizer.ggml.model", "llama").unwrap();
    writer.metadata("tokenizer.ggml.tokens", texts).unwrap();
    writer.metadata("tokenizer.ggml.scores", vec![0f32; VOCAB]).unwrap();
    writer.metadata("tokenizer.ggml.token_type", (0..VOCAB).map(kind).collect::<Vec<i32>>()).unwrap();
    Gguf::parse(&writer.to_bytes().unwrap()).unwrap().metadata
}

fn bytes(mix: &str) -> Vec<u8> {
    let mix = Mix::from_name(mix).unwrap();
    synthetic::writer(&SMALL, mix, &tokenizer()).unwrap().to_bytes().unwrap()
}

#[test]
fn a_mix_has_the_types_that_llama_quantize_gives_it() {
    for (mix, expected) in [
        ("Q4_0", [(TensorType::Q4_0, 113), (TensorType::F32, 33)]),
        ("Q8_0", [(TensorType::Q8_0, 113), (TensorType::F32, 33)]),
        ("F16", [(TensorType::F16, 113), (TensorType::F32, 33)]),
        ("Q4_K_M", [(TensorType::Q4K, 96), (TensorType::Q6K, 17)]),
    ] {
        let gguf = Gguf::parse(&bytes(mix)).unwrap();
        let mut found = BTreeMap::new();
        gguf.tensors.iter().for_each(|tensor| *found.entry(tensor.kind.id()).or_insert(0) += 1);
        for (kind, count) in expected {
            assert_eq!(found.get(&kind.id()), Some(&count), "{kind} in {mix}");
        }
        let more_bits = gguf.tensors.iter().filter(|tensor| tensor.kind == TensorType::Q6K);
        let names: Vec<&str> = more_bits.map(|tensor| tensor.name.as_str()).collect();
        if mix == "Q4_K_M" {
            assert!(names.contains(&"token_embd.weight"), "{names:?}");
            assert!(names.contains(&"blk.1.attn_v.weight") && names.contains(&"blk.4.ffn_down.weight"));
            assert!(!names.contains(&"blk.2.attn_v.weight") && !names.contains(&"blk.0.ffn_up.weight"));
        }
    }
}

#[test]
fn the_same_model_is_written_every_time() {
    for mix in MIXES {
        assert!(bytes(mix) == bytes(mix), "{mix}");
    }
}

#[test]
fn random_weights_give_scores_of_an_ordinary_size() {
    let folder = tempfile::tempdir().unwrap();
    for mix in MIXES {
        let path = folder.path().join(synthetic::file_name(Mix::from_name(mix).unwrap()));
        std::fs::write(&path, bytes(mix)).unwrap();
        let file = gguf::File::open(&path).unwrap();
        let go_on = &mut |_| ControlFlow::Continue(());
        let mut engine = CandleEngine::load(&file, LoadOptions::default(), go_on).unwrap();
        let tokens: Vec<u32> = (0..40).map(|at| 3 + at * 7).collect();
        for row in engine.logits(&tokens).unwrap() {
            let mean = row.iter().sum::<f32>() / row.len() as f32;
            let spread = (row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / row.len() as f32).sqrt();
            // The head's weights have a spread of 0.02, and 256 normed values of size one go into each score.
            assert!((0.2..0.6).contains(&spread), "{mix}: {spread}");
        }
    }
}

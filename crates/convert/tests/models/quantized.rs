//! What quantizing costs: how far the distributions of the next token are from those of the source, and from what
//! llama.cpp computes with the same files. `../make_converted.py` made quantized.json.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use engine::{CandleEngine, Engine, Event, LoadOptions, Sequence};
use gguf::Quantization;
use serde::Deserialize;

use crate::{making, source};

/// How much more than llama.cpp's own file of the type ours may lose: 3 % was found. What is added is what the engine's
/// rounding of activations makes where nothing is lost.
const SLACK: (f64, f64) = (1.1, 0.001);
/// Of the mean divergence from llama.cpp on the same file: its rounding of activations alone makes half of this.
const MAX_DIVERGENCE: f64 = 0.01;
/// The share of positions at which llama.cpp is sure and another token is likeliest here.
const MAX_OTHERS: f64 = 0.03;
/// A gap between the two likeliest tokens that no rounding closes, in the logarithms of probabilities.
const SURE: f64 = 0.3;

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    /// By quantization, the mean divergence of llama.cpp's file from the source.
    losses: BTreeMap<String, f64>,
    /// By quantization, per position: the likeliest tokens and the natural logarithms of their probabilities.
    models: BTreeMap<String, Vec<Vec<(u32, f64)>>>,
}

/// Logarithms of probabilities after each token.
type Rows = Vec<Vec<f64>>;

#[test]
fn every_quantization_of_a_real_model_says_what_its_source_says() {
    let golden: Golden = serde_json::from_str(include_str!("quantized.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (half, path) = (folder.path().join("half.gguf"), folder.path().join("made.gguf"));
    source::write(&half);
    let expected = rows(&mut load(&half), &golden.tokens);
    let mut wrong = Vec::new();
    for quantization in Quantization::all() {
        making::quantize(&half, quantization, &path);
        let label = gguf::File::open(&path).unwrap().header().file_type();
        // A file of F32 says 0, which reads as "unknown" everywhere.
        assert!(label == quantization.name() || quantization == Quantization::F32, "it calls itself {label}");
        let mut engine = load(&path);
        let said = answer(&mut engine);
        let found = rows(&mut engine, &golden.tokens);
        let (lost, usual) = (loss(&found, &expected), golden.losses[quantization.name()]);
        let (off, others) = against(&found, &golden.models[quantization.name()]);
        println!(
            "{quantization}: loses {lost:.5}, llama.cpp's {usual:.5}; {off:.5}, {others:.3} from llama.cpp; {said:?}"
        );
        assert!(said.contains("Paris"), "{quantization} says {said:?}");
        if lost > SLACK.0 * usual + SLACK.1 || off > MAX_DIVERGENCE || others > MAX_OTHERS {
            wrong.push(quantization);
        }
    }
    assert!(wrong.is_empty(), "beyond their bounds: {wrong:?}");
}

fn load(path: &Path) -> CandleEngine {
    let options = LoadOptions { context_length: 512, threads: 2, ..LoadOptions::default() };
    let file = gguf::File::open(path).unwrap();
    CandleEngine::load(&file, options, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Greedy.
fn answer(engine: &mut CandleEngine) -> String {
    let text = "<|im_start|>user\nWhat is the capital of France? Answer in one sentence.<|im_end|>\n<|im_start|>assistant\n";
    let prompt = engine.tokenizer().encode(text, true, true);
    engine.admit(Sequence { prompt, max_tokens: Some(12), ..Sequence::default() }).unwrap();
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Token { token, .. } = event {
                tokens.push(token);
            }
        }
    }
    engine.tokenizer().decode(&tokens)
}

fn rows(engine: &mut CandleEngine, tokens: &[u32]) -> Rows {
    let normalise = |row: Vec<f32>| {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = row.iter().map(|&logit| f64::from(logit - best).exp()).sum::<f64>().ln();
        row.iter().map(|&logit| f64::from(logit - best) - sum).collect()
    };
    engine.logits(tokens).unwrap().into_iter().map(normalise).collect()
}

/// The mean Kullback-Leibler divergence, in nats.
fn loss(found: &Rows, expected: &Rows) -> f64 {
    let pairs = expected.iter().flatten().zip(found.iter().flatten());
    pairs.map(|(expected, found)| expected.exp() * (expected - found)).sum::<f64>() / found.len() as f64
}

/// The same over the likeliest tokens of llama.cpp and all others as one, and the share of positions at which it is sure
/// of a token that is not the likeliest here.
fn against(found: &Rows, golden: &[Vec<(u32, f64)>]) -> (f64, f64) {
    assert_eq!(found.len(), golden.len());
    let (mut divergence, mut others) = (0.0, 0);
    for (found, golden) in found.iter().zip(golden) {
        let (mut rest, mut golden_rest) = (1.0, 1.0);
        for &(token, expected) in golden {
            let found = found[token as usize];
            divergence += expected.exp() * (expected - found);
            (rest, golden_rest) = (rest - found.exp(), golden_rest - expected.exp());
        }
        let (rest, golden_rest) = (f64::max(rest, 1e-9), f64::max(golden_rest, 1e-9));
        divergence += golden_rest * (golden_rest / rest).ln();
        let is_likeliest = found.iter().all(|&other| other <= found[golden[0].0 as usize]);
        others += usize::from(golden[0].1 - golden[1].1 >= SURE && !is_likeliest);
    }
    (divergence / found.len() as f64, others as f64 / found.len() as f64)
}

//! A real embedder against llama.cpp, and against what sentence-transformers says about it.

use std::ops::ControlFlow;

use engine::{CandleEngine, Engine, Error, LoadOptions, Pooling, Sequence};
use serde::Deserialize;

use crate::files::{MINILM, model, vectors};

/// Of the cosine to llama.cpp's vector: it approximates the GELU that the model was trained with.
const LEAST_COSINE: f32 = 0.9999;

/// See `make_embeddings.py`.
#[derive(Deserialize)]
struct Golden {
    text: String,
    tokens: Vec<u32>,
    /// Of length 1.
    row: Vec<f32>,
}

fn minilm() -> CandleEngine {
    let options = LoadOptions { context_length: 512, threads: 2, ..LoadOptions::default() };
    CandleEngine::load(&model(MINILM), options, &mut |_| ControlFlow::Continue(())).expect("load the model")
}

fn embed(engine: &mut CandleEngine, texts: &[&str]) -> Vec<Vec<f32>> {
    let tokenizer = engine.tokenizer();
    let inputs: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text, true, true)).collect();
    engine.embed(&inputs).expect("embed")
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn a_real_embedder_agrees_with_the_reference() {
    let golden: Vec<Golden> = vectors("minilm.json");
    let mut engine = minilm();
    assert_eq!((engine.info().pooling, engine.info().embedding_length), (Some(Pooling::Mean), 384));
    let texts: Vec<&str> = golden.iter().map(|golden| golden.text.as_str()).collect();
    let rows = embed(&mut engine, &texts);
    let mut least = 1.0f32;
    for (golden, row) in golden.iter().zip(&rows) {
        assert_eq!(engine.tokenizer().encode(&golden.text, true, true), golden.tokens, "{}", golden.text);
        least = least.min(cosine(&golden.row, row));
    }
    println!("least cosine to llama.cpp's vectors: {least}");
    assert!(golden.len() >= 10 && least >= LEAST_COSINE, "{least}");
}

#[test]
fn a_real_embedder_finds_texts_as_alike_as_its_authors_say() {
    // The answer in Hugging Face's documentation of the task, for this model.
    let published = [0.694_577_3, 0.942_915_1, 0.256_876_08];
    let source = "That is a happy person";
    let others = ["That is a happy dog", "That is a very happy person", "Today is a sunny day"];
    let mut engine = minilm();
    let rows = embed(&mut engine, &[source, others[0], others[1], others[2]]);
    for (row, published) in rows[1..].iter().zip(published) {
        let found = cosine(&rows[0], row);
        println!("{found} {published}");
        assert!((found - published).abs() < 1e-4, "{found}, published is {published}");
    }
}

#[test]
fn an_embedder_refuses_to_talk_and_to_read_more_than_it_can_see_at_once() {
    let mut engine = minilm();
    let error = engine.admit(Sequence { prompt: vec![101, 102], ..Sequence::default() }).unwrap_err();
    assert_eq!(error.to_string(), "this model cannot generate text, it makes embeddings");
    let error = engine.embed(&[vec![1000; 513]]).unwrap_err();
    assert_eq!(error, Error::PromptTooLong { tokens: 513, context_length: 512 });
    assert!(engine.is_idle());
}

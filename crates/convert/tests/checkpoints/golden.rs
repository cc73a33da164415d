//! What llama.cpp computes with files that were converted here: `../make_converted.py` made golden.json.

use std::collections::BTreeMap;

use engine::Engine;
use gguf::Quantization;
use serde::Deserialize;

use crate::encoder::bert;
use crate::experts::mixtures;
use crate::lora::Lora;
use crate::phi;
use crate::reference::decoders;

/// Logits go to ±5. llama.cpp also rounds queries and attention weights to half precision.
const TOLERANCE: f32 = 0.02;
/// Rows go to ±2. llama.cpp looks its GELU up in half precision.
const EMBEDDING_TOLERANCE: f32 = 0.005;

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    positions: Vec<usize>,
    logits: BTreeMap<String, Vec<Vec<f32>>>,
    pieces: Vec<u32>,
    vectors: BTreeMap<String, Vec<f32>>,
    /// With an adapter.
    adapted: BTreeMap<String, Vec<Vec<f32>>>,
    texts: Vec<String>,
    ids: BTreeMap<String, Vec<Vec<u32>>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

fn furthest<'a>(found: impl Iterator<Item = &'a f32>, expected: &[f32]) -> f32 {
    found.zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
}

#[test]
fn every_decoder_computes_what_llama_cpp_computes_with_its_file() {
    let golden = golden();
    let checkpoints = decoders().into_iter().map(|decoder| (decoder.model_type, decoder.checkpoint()));
    let checkpoints: Vec<_> = checkpoints.chain([("phi3", phi::checkpoints().1)]).chain(mixtures()).collect();
    assert_eq!(golden.logits.len(), checkpoints.len());
    for (name, checkpoint) in checkpoints {
        let made = checkpoint.convert(Some(Quantization::F32)).unwrap();
        let rows = made.engine().logits(&golden.tokens).unwrap();
        for (position, expected) in golden.positions.iter().zip(&golden.logits[name]) {
            assert_eq!(rows[*position].len(), expected.len());
            let off = furthest(rows[*position].iter(), expected);
            println!("{name} after {position}: {off}");
            assert!(off <= TOLERANCE, "{name} after {position}: {off}");
        }
    }
}

#[test]
fn a_base_with_its_adapter_computes_in_llama_cpp_what_a_trained_model_computes() {
    let golden = golden();
    assert_eq!(golden.adapted.len(), decoders().len());
    for decoder in decoders() {
        let checkpoint = decoder.checkpoint();
        let trained = Lora::of(&checkpoint).merged(&checkpoint).convert(Some(Quantization::F32)).unwrap();
        let rows = trained.engine().logits(&golden.tokens).unwrap();
        let (plain, adapted) = (&golden.logits[decoder.model_type], &golden.adapted[decoder.model_type]);
        for ((position, expected), plain) in golden.positions.iter().zip(adapted).zip(plain) {
            let off = furthest(rows[*position].iter(), expected);
            println!("{} after {position}: {off}", decoder.model_type);
            assert!(off <= TOLERANCE, "{} after {position}: {off}", decoder.model_type);
            assert!(furthest(plain.iter(), expected) > 0.5, "an adapter that changes nothing");
        }
    }
}

#[test]
fn an_encoder_computes_what_llama_cpp_computes_with_its_file() {
    let golden = golden();
    let made = bert().convert(Some(Quantization::F32)).unwrap();
    let found = made.engine().embed(std::slice::from_ref(&golden.pieces)).unwrap();
    assert_eq!(found[0].len(), golden.vectors["bert"].len());
    let off = furthest(found[0].iter(), &golden.vectors["bert"]);
    assert!(off <= EMBEDDING_TOLERANCE, "{off}");
}

#[test]
fn texts_are_cut_as_llama_cpp_cuts_them_with_the_same_file() {
    let golden = golden();
    let decoders = decoders().into_iter().map(|decoder| (decoder.model_type, decoder.checkpoint()));
    for (name, checkpoint) in decoders.chain([("bert", bert())]) {
        let engine = checkpoint.convert(None).unwrap().engine();
        for (text, expected) in golden.texts.iter().zip(&golden.ids[name]) {
            assert_eq!(&engine.tokenizer().encode(text, true, false), expected, "{name}: {text:?}");
        }
    }
}

//! What was converted computes what was trained.

use engine::Engine;
use gguf::Quantization;
use serde_json::json;

use crate::encoder::{bert, encode};
use crate::fixture::{VOCAB, WIDTH, random};
use crate::phi;
use crate::reference::decoders;

/// Logits go to ±10. The weights are the same on both sides; what is left is the engine's cache of half precision.
const TOLERANCE: f64 = 0.02;

fn tokens() -> Vec<u32> {
    (0..24).map(|at| (at * 37 + at * at * 5 + 11) % VOCAB as u32).collect()
}

/// How far apart they are at most.
fn furthest(found: &[Vec<f32>], expected: &[Vec<f64>]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    pairs.map(|(found, expected)| (f64::from(*found) - expected).abs()).fold(0.0, f64::max)
}

#[test]
fn every_decoder_computes_what_its_checkpoint_says() {
    for decoder in decoders() {
        let checkpoint = decoder.checkpoint();
        let expected = decoder.logits(&checkpoint, &tokens());
        let spread = expected.iter().flatten().fold(0f64, |most, value| most.max(value.abs()));
        assert!(spread > 1.0, "{}: logits that say nothing", decoder.class);
        let made = checkpoint.convert(Some(Quantization::F32)).unwrap();
        let found = made.engine().logits(&tokens()).unwrap();
        let off = furthest(&found, &expected);
        println!("{}: {off} of {spread}", decoder.class);
        assert!(off <= TOLERANCE, "{}: {off} of {spread}", decoder.class);
    }
}

#[test]
fn matrices_in_one_and_factors_compute_what_the_checkpoint_says() {
    let (plain, fused) = phi::checkpoints();
    let expected = phi::decoder().logits(&plain, &tokens());
    let found = fused.convert(Some(Quantization::F32)).unwrap().engine().logits(&tokens()).unwrap();
    let off = furthest(&found, &expected);
    assert!(off <= TOLERANCE, "{off}");
}

#[test]
fn half_precision_is_what_a_checkpoint_becomes_by_itself() {
    let decoder = &decoders()[0];
    let mut checkpoint = decoder.checkpoint();
    let whole = checkpoint.convert(None).unwrap();
    assert_eq!(whole.statuses, ["converting model"]);
    let header = whole.open().header().clone();
    assert_eq!(header.file_type(), "F16");
    assert_eq!(header.tensor("blk.0.attn_q.weight").unwrap().kind.name(), "F16");
    assert_eq!(header.tensor("blk.0.attn_norm.weight").unwrap().kind.name(), "F32");
    let expected = decoder.logits(&checkpoint, &tokens());
    assert!(furthest(&whole.engine().logits(&tokens()).unwrap(), &expected) < 0.1);
    for dtype in ["F16", "BF16"] {
        checkpoint.dtype = dtype;
        let made = checkpoint.convert(Some(Quantization::Q8_0)).unwrap();
        assert_eq!(
            made.statuses,
            ["converting model".to_owned(), format!("quantizing {dtype} model to Q8_0")]
        );
        assert!(furthest(&made.engine().logits(&tokens()).unwrap(), &expected) < 0.6);
    }
}

#[test]
fn parts_make_the_same_file_as_one() {
    let checkpoint = decoders()[1].checkpoint();
    let one = checkpoint.convert(None).unwrap();
    let three = checkpoint.convert_parts(3, None).unwrap();
    let bytes = |made: &crate::fixture::Made| std::fs::read(made.folder.path().join("made.gguf")).unwrap();
    assert_eq!(bytes(&one), bytes(&three));
}

#[test]
fn a_gemma_that_sees_becomes_one_that_reads() {
    let decoder = &decoders()[3];
    let mut checkpoint = decoder.checkpoint();
    let expected = decoder.logits(&checkpoint, &tokens());
    let mut text = checkpoint.config.clone();
    text.as_object_mut().unwrap().remove("architectures");
    // What the text's config does not say is what the library takes for granted.
    checkpoint.config = json!({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text});
    let tensors = std::mem::take(&mut checkpoint.tensors);
    checkpoint.tensors =
        tensors.into_iter().map(|(name, array)| (format!("language_model.{name}"), array)).collect();
    checkpoint.tensors.insert("vision_tower.patch.weight".to_owned(), random("v", &[4, 4], 1.0));
    checkpoint.tensors.insert("multi_modal_projector.weight".to_owned(), random("p", &[4, 4], 1.0));
    let made = checkpoint.convert(Some(Quantization::F32)).unwrap();
    assert!(furthest(&made.engine().logits(&tokens()).unwrap(), &expected) <= TOLERANCE);
}

#[test]
fn an_encoder_makes_the_vectors_of_its_checkpoint() {
    let tokens: Vec<u32> = vec![2, 7, 19, 33, 8, 3];
    for (pooling, expected) in [(None, "mean"), (Some("pooling_mode_cls_token"), "first")] {
        let mut checkpoint = bert();
        if let Some(key) = pooling {
            checkpoint.put("1_Pooling/config.json", json!({key: true, "pooling_mode_mean_tokens": false}));
        }
        let rows = encode(&checkpoint, &tokens);
        let vector: Vec<f64> = match expected {
            "mean" => (0..WIDTH)
                .map(|dim| rows.iter().map(|row| row[dim]).sum::<f64>() / rows.len() as f64)
                .collect(),
            _ => rows[0].clone(),
        };
        let made = checkpoint.convert(Some(Quantization::F32)).unwrap();
        let found = made.engine().embed(std::slice::from_ref(&tokens)).unwrap();
        // The engine may or may not normalise; directions are what counts.
        let length = |vector: &[f64]| vector.iter().map(|value| value * value).sum::<f64>().sqrt();
        let found: Vec<f64> = found[0].iter().map(|value| f64::from(*value)).collect();
        let off = found.iter().zip(&vector).map(|(a, b)| (a / length(&found) - b / length(&vector)).abs());
        let off = off.fold(0.0, f64::max);
        assert!(off < 0.002, "{expected}: {off}");
    }
}

#[test]
fn an_encoder_may_stand_within_another_model() {
    let mut checkpoint = bert();
    let plain = checkpoint.convert(None).unwrap();
    let tensors = std::mem::take(&mut checkpoint.tensors);
    checkpoint.tensors = tensors.into_iter().map(|(name, array)| (format!("bert.{name}"), array)).collect();
    checkpoint.tensors.insert("cls.predictions.bias".to_owned(), random("c", &[40], 1.0));
    let within = checkpoint.convert(None).unwrap();
    assert_eq!(plain.open().header().tensors.len(), within.open().header().tensors.len());
    assert_eq!(plain.open().header().metadata.get("tokenizer.ggml.token_type_count"), Some(&2u32.into()));
}

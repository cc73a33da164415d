//! What was converted computes what was trained.

use std::collections::BTreeMap;

use engine::Engine;
use gguf::Quantization;
use serde_json::json;

use crate::fixture::{Array, Checkpoint, INNER, VOCAB, WIDTH, random};
use crate::reference::{apply, decoders, row};

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

const HEADS: usize = 4;

fn bert() -> Checkpoint {
    let config = json!({
        "architectures": ["BertModel"], "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 2,
        "num_attention_heads": HEADS, "vocab_size": 40, "max_position_embeddings": 64, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    });
    let mut tensors: BTreeMap<String, Array> = BTreeMap::new();
    let mut put = |name: &str, rows: usize, cols: usize| {
        let weight = format!("{name}.weight");
        tensors.insert(weight.clone(), random(&weight, &[rows, cols], 2.0 / (cols as f32).sqrt()));
        if !name.starts_with("embeddings") {
            let bias = format!("{name}.bias");
            tensors.insert(bias.clone(), random(&bias, &[rows], 0.3));
        }
    };
    put("embeddings.word_embeddings", 40, WIDTH);
    put("embeddings.position_embeddings", 64, WIDTH);
    put("embeddings.token_type_embeddings", 2, WIDTH);
    put("pooler.dense", WIDTH, WIDTH);
    for block in 0..2 {
        for part in
            ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
        {
            put(&format!("encoder.layer.{block}.{part}"), WIDTH, WIDTH);
        }
        put(&format!("encoder.layer.{block}.intermediate.dense"), INNER, WIDTH);
        put(&format!("encoder.layer.{block}.output.dense"), WIDTH, INNER);
    }
    let norms = (0..2).flat_map(|block| {
        ["attention.output", "output"].map(|part| format!("encoder.layer.{block}.{part}.LayerNorm"))
    });
    for name in norms.chain(["embeddings.LayerNorm".to_owned()]) {
        let mut weight = random(&name, &[WIDTH], 0.3);
        weight.values.iter_mut().for_each(|value| *value += 1.0);
        tensors.insert(format!("{name}.weight"), weight);
        tensors.insert(format!("{name}.bias"), random(&format!("{name}.bias"), &[WIDTH], 0.2));
    }
    let mut checkpoint = Checkpoint::new(config, tensors);
    checkpoint.put("tokenizer.json", crate::tokenizers::word_pieces());
    checkpoint.put(
        "tokenizer_config.json",
        json!({"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}),
    );
    checkpoint
}

/// The row of each token after the last block.
fn encode(checkpoint: &Checkpoint, tokens: &[u32]) -> Vec<Vec<f64>> {
    let get = |name: String| &checkpoint.tensors[&name];
    let linear = |name: &str, x: &[f64]| -> Vec<f64> {
        let out = apply(get(format!("{name}.weight")), x).into_iter();
        out.zip(&get(format!("{name}.bias")).values).map(|(out, bias)| out + f64::from(*bias)).collect()
    };
    let norm = |name: &str, x: Vec<f64>| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let (weight, bias) = (get(format!("{name}.weight")), get(format!("{name}.bias")));
        let scaled = |(at, value): (usize, f64)| {
            (value - mean) / (variance + 1e-12).sqrt() * f64::from(weight.values[at])
                + f64::from(bias.values[at])
        };
        x.into_iter().enumerate().map(scaled).collect()
    };
    let sum = |a: Vec<f64>, b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let embed = |(at, token): (usize, &u32)| {
        let word: Vec<f64> = row(get("embeddings.word_embeddings.weight".into()), *token as usize).collect();
        let position: Vec<f64> = row(get("embeddings.position_embeddings.weight".into()), at).collect();
        let kind: Vec<f64> = row(get("embeddings.token_type_embeddings.weight".into()), 0).collect();
        norm("embeddings.LayerNorm", sum(sum(word, &position), &kind))
    };
    let mut stream: Vec<Vec<f64>> = tokens.iter().enumerate().map(embed).collect();
    for block in 0..2 {
        let name = |part: &str| format!("encoder.layer.{block}.{part}");
        let all = |part: &str| stream.iter().map(|x| linear(&name(part), x)).collect::<Vec<_>>();
        let (queries, keys, values) =
            (all("attention.self.query"), all("attention.self.key"), all("attention.self.value"));
        let size = WIDTH / HEADS;
        let mixed = queries.iter().map(|query| {
            (0..HEADS)
                .flat_map(|head| {
                    let part = head * size..(head + 1) * size;
                    let dot = |key: &Vec<f64>| {
                        query[part.clone()].iter().zip(&key[part.clone()]).map(|(q, k)| q * k).sum::<f64>()
                    };
                    let weights: Vec<f64> =
                        keys.iter().map(|key| (dot(key) / (size as f64).sqrt()).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    let values = &values;
                    part.clone()
                        .map(move |dim| {
                            weights
                                .iter()
                                .zip(values)
                                .map(|(weight, value)| weight / total * value[dim])
                                .sum::<f64>()
                        })
                        .collect::<Vec<f64>>()
                })
                .collect::<Vec<f64>>()
        });
        let mixed: Vec<Vec<f64>> = mixed.collect();
        for (x, mixed) in stream.iter_mut().zip(mixed) {
            let update = linear(&name("attention.output.dense"), &mixed);
            *x = norm(&name("attention.output.LayerNorm"), sum(update, x));
            let inner: Vec<f64> = linear(&name("intermediate.dense"), x).into_iter().map(gelu).collect();
            let update = linear(&name("output.dense"), &inner);
            *x = norm(&name("output.LayerNorm"), sum(update, x));
        }
    }
    stream
}

/// With the error function, by its series: exact enough for the numbers here.
fn gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    let (mut term, mut total) = (z, z);
    for n in 1..120 {
        term *= -z * z / f64::from(n);
        total += term / f64::from(2 * n + 1);
    }
    let erf =
        if z.abs() > 5.0 { z.signum() } else { (2.0 / std::f64::consts::PI.sqrt() * total).clamp(-1.0, 1.0) };
    0.5 * x * (1.0 + erf)
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

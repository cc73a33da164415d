//! A small encoder: its checkpoint, and what the library that saves such ones computes, in double precision.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::fixture::{Array, Checkpoint, INNER, WIDTH, random};
use crate::reference::{apply, row};

const HEADS: usize = 4;

/// A small BERT with a tokenizer of words.
pub fn bert() -> Checkpoint {
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
    checkpoint.put("tokenizer.json", word_pieces());
    checkpoint.put(
        "tokenizer_config.json",
        json!({"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}),
    );
    checkpoint
}

/// The row of each token after the last block.
pub fn encode(checkpoint: &Checkpoint, tokens: &[u32]) -> Vec<Vec<f64>> {
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

/// BERT's, of forty tokens.
fn word_pieces() -> Value {
    let mut vocab = Map::new();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = ["the", "caravan", "goes", "on", "##s", "##ing", "go"];
    for text in special.iter().chain(&words) {
        vocab.insert((*text).to_owned(), json!(vocab.len()));
    }
    for at in vocab.len()..40 {
        vocab.insert(format!("w{at}"), json!(at));
    }
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, text)| json!({"id": id, "content": text, "special": true}))
        .collect();
    json!({
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "lowercase": true, "strip_accents": null},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    })
}

//! How long `GET /api/tags` takes with 1,000 models: the first time, when every manifest is read, and from then on.
//! Models of 50 weights, each with a template, a system message and parameters of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints what it measures, or stops")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use gguf::{Array, TensorType, Value, Writer};
use serde_json::{Value as Json, json};
use store::{Digest, Layer, LayerKind, Manifest, Store};

const MODELS: usize = 1000;
const WEIGHTS: usize = 50;
/// Small beside real vocabularies, which are read once for each of the weights.
const VOCABULARY: usize = 32_000;
const ROUNDS: usize = 20;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("blobs")).unwrap();
    for number in 0..MODELS {
        write_model(folder.path(), number);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let list = || {
        let began = Instant::now();
        let models = runtime.block_on(store.list()).unwrap();
        assert_eq!(models.len(), MODELS);
        let rows: Vec<_> = models.iter().map(|model| model.listed()).collect();
        let bytes = api::gojson::to_vec(&json!({ "models": rows })).unwrap().len();
        (began.elapsed(), bytes)
    };
    let (first, bytes) = list();
    let mut later: Vec<Duration> = (0..ROUNDS).map(|_| list().0).collect();
    later.sort();
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!("{MODELS} models, {bytes} bytes of JSON");
    println!("first listing    {:8.1} ms", ms(first));
    println!("later, median    {:8.1} ms", ms(later[ROUNDS / 2]));
    println!("later, slowest   {:8.1} ms", ms(later[ROUNDS - 1]));
}

fn write_model(folder: &Path, number: usize) {
    let blob = |kind, bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let path = folder.join("blobs").join(digest.to_string().replace(':', "-"));
        let size = bytes.len() as u64;
        if !path.exists() {
            fs::write(path, bytes).unwrap();
        }
        Layer::new(kind, digest, size)
    };
    let text = |json: Json| json.to_string().into_bytes();
    let config =
        json!({"model_format": "gguf", "model_family": "llama", "model_type": "1B", "file_type": "Q4_K_M"});
    let config = blob(LayerKind::Other, text(config));
    let template = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}{{ end }}{{/* NUMBER */}}";
    let layers = vec![
        blob(LayerKind::Model, weights(number % WEIGHTS)),
        blob(LayerKind::Template, template.replace("NUMBER", &number.to_string()).into_bytes()),
        blob(LayerKind::System, format!("You are model {number}.").into_bytes()),
        blob(LayerKind::Params, text(json!({"seed": number}))),
    ];
    let manifest = Manifest::new(Layer::config(config.digest, config.size), layers);
    let place = folder.join(format!("manifests/registry.ollama.ai/library/model{number}"));
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("latest"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn weights(number: usize) -> Vec<u8> {
    let mut writer = Writer::new();
    let tokens: Vec<String> = (0..VOCABULARY).map(|token| format!("token{token}")).collect();
    writer.metadata("general.architecture", "llama").unwrap();
    writer.metadata("general.name", format!("weights {number}").as_str()).unwrap();
    writer.metadata("llama.context_length", 8192u32).unwrap();
    writer.metadata("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))).unwrap();
    writer.tensor("token_embd.weight", &[32, 4], TensorType::F32, vec![0; 32 * 4 * 4]).unwrap();
    writer.to_bytes().unwrap()
}

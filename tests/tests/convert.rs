//! A folder with a checkpoint, as people have it, becomes a model that answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Map, Value, json};
use tests::{cluster::Cluster, process::binary};

const WIDTH: usize = 32;
const BLOCKS: usize = 2;
const WORDS: [&str; 8] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "caravan", "goes", "on", "##s"];

/// Names and shapes of a small BERT.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut all = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![WORDS.len(), WIDTH]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![64, WIDTH]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, WIDTH]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![WIDTH]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![WIDTH]),
    ];
    for block in 0..BLOCKS {
        for (part, rows, cols) in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", 2 * WIDTH, WIDTH),
            ("output.dense", WIDTH, 2 * WIDTH),
        ] {
            all.push((format!("encoder.layer.{block}.{part}.weight"), vec![rows, cols]));
            all.push((format!("encoder.layer.{block}.{part}.bias"), vec![rows]));
        }
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            all.push((format!("encoder.layer.{block}.{part}.weight"), vec![WIDTH]));
            all.push((format!("encoder.layer.{block}.{part}.bias"), vec![WIDTH]));
        }
    }
    all
}

fn write_checkpoint(folder: &Path) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape) in tensors() {
        let start = data.len();
        let count: usize = shape.iter().product();
        // Arbitrary, of both signs, and never twice the same row.
        let value = |at: usize| ((at * 37 + name.len() * 11) % 101) as f32 / 101.0 - 0.4;
        data.extend((0..count).flat_map(|at| value(at).to_le_bytes()));
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
    let config = json!({
        "architectures": ["BertModel"], "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "vocab_size": WORDS.len(),
        "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let vocab: Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special: Vec<Value> =
        (0..4).map(|id| json!({"id": id, "content": WORDS[id], "special": true})).collect();
    let tokenizer = json!({
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "lowercase": true},
        "model": {"type": "WordPiece", "vocab": vocab},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let named =
        json!({"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"});
    fs::write(folder.join("tokenizer_config.json"), named.to_string()).unwrap();
}

fn create(base: &str, name: &str, modelfile: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.args(["create", name, "-f", modelfile.to_str().unwrap()]).args(more).env("OLLAMA_HOST", base);
    tokio::task::block_in_place(|| command.output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_becomes_a_model_on_the_command_line() {
    let cluster = Cluster::serve(&[]).await.unwrap();
    let base = cluster.base(0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    // In the encoding of an editor on Windows.
    let text = "FROM .\r\nLICENSE free\r\n";
    let wide: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let modelfile = folder.path().join("Modelfile");
    fs::write(&modelfile, wide).unwrap();

    let created = create(&base, "whole", &modelfile, &[]);
    let said = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(created.status.success(), "{said}");
    let order = [
        "gathering model components",
        "copying file sha256:",
        "converting model",
        "verifying conversion",
        "writing manifest",
        "success",
    ];
    let places: Vec<usize> =
        order.iter().map(|part| said.find(part).unwrap_or_else(|| panic!("{part}: {said}"))).collect();
    assert!(places.is_sorted(), "{said}");
    let created = create(&base, "small", &modelfile, &["-q", "q8_0"]);
    let said = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(created.status.success() && said.contains("quantizing F32 model to Q8_0"), "{said}");

    let http = tests::http();
    let ask = async |path: &str, body: Value| -> Value {
        http.post(format!("{base}{path}")).json(&body).send().await.unwrap().json().await.unwrap()
    };
    let mut vectors = Vec::new();
    for (name, kind) in [("whole", "F16"), ("small", "Q8_0")] {
        let shown = ask("/api/show", json!({"model": name})).await;
        assert_eq!(shown["details"]["quantization_level"], kind);
        assert_eq!(
            (&shown["details"]["family"], &shown["capabilities"]),
            (&json!("bert"), &json!(["embedding"]))
        );
        let embedded = ask("/api/embed", json!({"model": name, "input": "Caravans goes on"})).await;
        assert_eq!(
            embedded["prompt_eval_count"], 6,
            "two marks, three words, one of them in two pieces: {embedded}"
        );
        let vector: Vec<f64> = serde_json::from_value(embedded["embeddings"][0].clone()).unwrap();
        vectors.push(vector);
    }
    let alike: f64 = vectors[0].iter().zip(&vectors[1]).map(|(a, b)| a * b).sum();
    assert!(alike > 0.999, "{alike}");

    fs::remove_file(folder.path().join("config.json")).unwrap();
    let refused = create(&base, "broken", &modelfile, &[]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("file `config.json` is missing, a checkpoint needs it"), "{said}");
    cluster.check_logs(&[]).unwrap();
}

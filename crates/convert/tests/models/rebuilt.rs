//! The checkpoint of a real decoder, as its trainers' library would save it, rebuilt from the published file: converted, it
//! is that file again, tensor by tensor and token by token.

use std::fs;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use convert::{Input, Job, convert};
use gguf::{File, Gguf, Tensor, TensorType, Value as Entry};
use serde_json::{Map, Value, json};

use crate::source;

/// Here and there.
const NAMES: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
/// Rows of a head.
const HEAD: usize = 64;
const CONTROL: i64 = 3;

#[test]
fn a_real_decoders_checkpoint_becomes_its_published_file() {
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("half.gguf");
    source::write(&half);
    let published = File::open(&half).unwrap();
    let files = write_checkpoint(&published, folder.path());
    let made = folder.path().join("made.gguf");
    let job = Job { files, base: None, quantization: None, threads: 2 };
    let mut out = BufWriter::new(fs::File::create(&made).unwrap());
    convert(&job, &mut out, &mut |_| ControlFlow::Continue(())).unwrap();
    out.flush().unwrap();

    let made = File::open(&made).unwrap();
    let (found, expected) = (made.header(), published.header());
    assert_eq!(found.tensors.len(), expected.tensors.len());
    for tensor in &expected.tensors {
        let same = found.tensor(&tensor.name).unwrap();
        assert_eq!((same.kind, &same.shape), (tensor.kind, &tensor.shape), "{}", tensor.name);
        assert!(made.data(same) == published.data(tensor), "{} differs", tensor.name);
    }
    let is_kept = |key: &str| {
        let about = ["name", "organization", "finetune", "basename", "size_label", "license", "languages"];
        !about.iter().any(|part| key == format!("general.{part}")) && key != "tokenizer.ggml.add_space_prefix"
    };
    for (key, value) in expected.metadata.iter().filter(|(key, _)| is_kept(key)) {
        assert!(found.metadata.get(key) == Some(value), "{key} is {:?}", found.metadata.get(key).map(shown));
    }
}

/// What an error text has room for.
fn shown(value: &Entry) -> String {
    format!("{value:?}").chars().take(200).collect()
}

fn write_checkpoint(published: &File, folder: &Path) -> Vec<Input> {
    let header = published.header();
    let weights = folder.join("model.safetensors");
    write_weights(published, &weights);
    let number = |key: &str| header.metadata.arch_u64(key).unwrap().unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"), "num_hidden_layers": number("block_count"),
        "num_attention_heads": number("attention.head_count"), "num_key_value_heads": number("attention.head_count_kv"),
        "vocab_size": number("vocab_size"), "max_position_embeddings": number("context_length"),
        "rms_norm_eps": 1e-5, "rope_theta": 100_000, "tie_word_embeddings": true, "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    });
    let strings = |key: &str| header.metadata.strings(&format!("tokenizer.ggml.{key}")).unwrap().unwrap();
    let named = |role: &str| {
        let id = header.metadata.u64(&format!("tokenizer.ggml.{role}_token_id")).unwrap().unwrap();
        strings("tokens")[id as usize].clone()
    };
    let template = header.metadata.str("tokenizer.chat_template").unwrap().unwrap();
    let roles = json!({
        "bos_token": named("bos"), "eos_token": {"content": named("eos")}, "unk_token": named("unknown"),
        "pad_token": named("padding"), "add_bos_token": false, "chat_template": template,
    });
    let mut files = vec![Input { name: "model.safetensors".to_owned(), path: weights }];
    let texts =
        [("config.json", config), ("tokenizer.json", tokenizer(header)), ("tokenizer_config.json", roles)];
    for (name, text) in texts {
        let path = folder.join(name);
        fs::write(&path, text.to_string()).unwrap();
        files.push(Input { name: name.to_owned(), path });
    }
    files
}

/// A vocabulary of bytes that cuts digits apart.
fn tokenizer(header: &Gguf) -> Value {
    let strings = |key: &str| header.metadata.strings(&format!("tokenizer.ggml.{key}")).unwrap().unwrap();
    let kinds = header.metadata.integers("tokenizer.ggml.token_type").unwrap().unwrap();
    let vocab: Map<String, Value> =
        strings("tokens").iter().enumerate().map(|(id, text)| (text.clone(), json!(id))).collect();
    let special = strings("tokens").iter().zip(kinds).enumerate().filter(|(_, (_, kind))| *kind == CONTROL);
    let added: Vec<Value> =
        special.map(|(id, (text, _))| json!({"id": id, "content": text, "special": true})).collect();
    json!({
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": strings("merges")},
    })
}

fn write_weights(published: &File, target: &Path) {
    let (mut header, mut end) = (Map::new(), 0);
    for tensor in &published.header().tensors {
        let start = end;
        end += tensor.bytes;
        let dtype = if tensor.kind == TensorType::F32 { "F32" } else { "F16" };
        let shape: Vec<u64> = tensor.shape.iter().rev().copied().collect();
        header.insert(
            renamed(&tensor.name),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let header = Value::Object(header).to_string();
    let mut out = BufWriter::new(fs::File::create(target).unwrap());
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    for tensor in &published.header().tensors {
        out.write_all(&untangled(tensor, published.data(tensor))).unwrap();
    }
    out.flush().unwrap();
}

fn renamed(name: &str) -> String {
    match name {
        "token_embd.weight" => "model.embed_tokens.weight".to_owned(),
        "output_norm.weight" => "model.norm.weight".to_owned(),
        _ => {
            let [_, block, part, _] = name.split('.').collect::<Vec<_>>()[..] else { panic!("{name}") };
            let (_, there) = NAMES.iter().find(|(here, _)| *here == part).unwrap();
            format!("model.layers.{block}.{there}.weight")
        }
    }
}

/// Within a head of queries or keys, rows that turn together stand side by side; there they stand half a head apart.
fn untangled(tensor: &Tensor, bytes: &[u8]) -> Vec<u8> {
    if !tensor.name.ends_with("attn_q.weight") && !tensor.name.ends_with("attn_k.weight") {
        return bytes.to_vec();
    }
    let row = bytes.len() / tensor.shape[1] as usize;
    let heads = bytes.chunks_exact(HEAD * row);
    let parts = heads.flat_map(|head| [0, 1].map(|first| head.chunks_exact(row).skip(first).step_by(2)));
    parts.flatten().flatten().copied().collect()
}

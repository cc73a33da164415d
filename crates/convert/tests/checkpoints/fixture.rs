//! A checkpoint in memory, to be changed by a test and then written to a folder.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use convert::{Error, Input, Job, convert};
use engine::{CandleEngine, LoadOptions};
use gguf::Quantization;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

pub const WIDTH: usize = 32;
pub const INNER: usize = 48;
pub const VOCAB: usize = 264;

/// A tensor with the contiguous dimension last.
#[derive(Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

#[derive(Clone)]
pub struct Checkpoint {
    pub config: Value,
    pub tensors: BTreeMap<String, Array>,
    /// What lies beside: names and bytes.
    pub files: BTreeMap<String, Vec<u8>>,
    /// `F32`, `F16` or `BF16`.
    pub dtype: &'static str,
}

/// What came of it.
pub struct Made {
    pub folder: TempDir,
    pub statuses: Vec<String>,
}

// === impl Checkpoint ===

impl Checkpoint {
    /// With a tokenizer of bytes.
    pub fn new(config: Value, tensors: BTreeMap<String, Array>) -> Checkpoint {
        let mut checkpoint = Checkpoint { config, tensors, files: BTreeMap::new(), dtype: "F32" };
        checkpoint.put("tokenizer.json", byte_tokenizer());
        checkpoint
            .put("tokenizer_config.json", json!({"eos_token": "<|end|>", "chat_template": "{{ messages }}"}));
        checkpoint
    }

    pub fn put(&mut self, name: &str, value: Value) {
        self.files.insert(name.to_owned(), value.to_string().into_bytes());
    }

    /// Writes everything, the tensors in so many parts with an index.
    pub fn write(&self, folder: &Path, parts: usize) -> Vec<Input> {
        let mut files = self.files.clone();
        files.insert("config.json".to_owned(), self.config.to_string().into_bytes());
        let mut map = Map::new();
        let tensors: Vec<_> = self.tensors.iter().collect();
        for (at, part) in tensors.chunks(tensors.len().div_ceil(parts)).enumerate() {
            let name = match parts {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{parts:05}.safetensors", at + 1),
            };
            map.extend(part.iter().map(|(tensor, _)| ((*tensor).clone(), json!(name))));
            files.insert(name, safetensors(part, self.dtype));
        }
        if parts > 1 {
            files.insert(
                "model.safetensors.index.json".to_owned(),
                json!({"weight_map": map}).to_string().into(),
            );
        }
        let write = |(name, bytes): (String, Vec<u8>)| {
            let path = folder.join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            Input { name, path }
        };
        files.into_iter().map(write).collect()
    }

    pub fn convert(&self, quantization: Option<Quantization>) -> Result<Made, Error> {
        self.convert_parts(1, quantization)
    }

    pub fn convert_parts(&self, parts: usize, quantization: Option<Quantization>) -> Result<Made, Error> {
        let folder = tempfile::tempdir().unwrap();
        let files = self.write(folder.path(), parts);
        let statuses = run(files, quantization, &folder.path().join("made.gguf"))?;
        Ok(Made { folder, statuses })
    }

    /// The text of the refusal.
    #[track_caller]
    pub fn refused(&self) -> String {
        match self.convert(None) {
            Ok(_) => panic!("it was converted"),
            Err(error) => error.to_string(),
        }
    }
}

/// Converts, and says what was told.
pub fn run(
    files: Vec<Input>,
    quantization: Option<Quantization>,
    target: &Path,
) -> Result<Vec<String>, Error> {
    run_job(&Job { files, base: None, quantization, threads: 2 }, target)
}

pub fn run_job(job: &Job, target: &Path) -> Result<Vec<String>, Error> {
    let mut statuses = Vec::new();
    let mut out = fs::File::create(target).unwrap();
    convert(job, &mut out, &mut |step| {
        if statuses.last() != Some(&step.status) {
            statuses.push(step.status);
        }
        ControlFlow::Continue(())
    })?;
    Ok(statuses)
}

// === impl Made ===

impl Made {
    pub fn open(&self) -> gguf::File {
        gguf::File::open(&self.folder.path().join("made.gguf")).unwrap()
    }

    pub fn engine(&self) -> CandleEngine {
        let options = LoadOptions { threads: 2, ..LoadOptions::default() };
        CandleEngine::load(&self.open(), options, &mut |_| ControlFlow::Continue(())).unwrap()
    }
}

pub fn safetensors(tensors: &[(&String, &Array)], dtype: &str) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, array) in tensors {
        let start = data.len();
        for value in &array.values {
            match dtype {
                "F32" => data.extend(value.to_le_bytes()),
                "BF16" => data.extend(((value.to_bits() >> 16) as u16).to_le_bytes()),
                _ => data.extend(half(*value).to_le_bytes()),
            }
        }
        let entry = json!({"dtype": dtype, "shape": array.shape, "data_offsets": [start, data.len()]});
        header.insert((*name).clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Cut, not rounded: enough for numbers between one thousandth and ten.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}

/// SplitMix64, named so that a tensor is the same whatever else there is.
pub fn random(name: &str, shape: &[usize], spread: f32) -> Array {
    let mut state = name.bytes().fold(11u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values = (0..shape.iter().product()).map(|_| spread * next()).collect();
    Array { shape: shape.to_vec(), values }
}

/// What GPT-2 writes for a byte.
pub fn letter(byte: u8) -> char {
    let is_plain = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match is_plain(byte) {
        true => char::from(byte),
        false => char::from_u32(256 + (0..byte).filter(|&byte| !is_plain(byte)).count() as u32).unwrap(),
    }
}

/// All bytes, four merges, three added tokens: 263, one fewer than the embedding has rows.
pub fn byte_tokenizer() -> Value {
    let mut vocab = Map::new();
    for byte in 0..=255u8 {
        vocab.insert(letter(byte).to_string(), json!(byte));
    }
    for (at, text) in ["he", "Ġt", "Ġthe", "in"].iter().enumerate() {
        vocab.insert((*text).to_owned(), json!(256 + at));
    }
    let added =
        |id: usize, content: &str, special: bool| json!({"id": id, "content": content, "special": special});
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    json!({
        "added_tokens": [added(260, "<|begin|>", true), added(261, "<|end|>", true), added(262, "<tool>", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
        ]},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["h e", ["Ġ", "t"], "Ġt he", "i n"]}
    })
}

//! A small seeded adapter for a small checkpoint, as two libraries would save it, and the checkpoint with what it adds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use convert::{Error, Input, Job};
use serde_json::{Value, json};

use crate::fixture::{Array, Checkpoint, Made, random, run_job, safetensors};

pub const RANK: usize = 3;
pub const ALPHA: f32 = 6.0;
/// Changed in the first block and in the last.
const MODULES: [&str; 6] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// By module, the matrix to the rank and the one from it.
pub struct Lora {
    pairs: BTreeMap<String, (Array, Array)>,
}

/// The files of an adapter, to be changed by a test.
#[derive(Clone)]
pub struct Files {
    pub config: Value,
    pub tensors: BTreeMap<String, Array>,
}

// === impl Lora ===

impl Lora {
    pub fn of(checkpoint: &Checkpoint) -> Lora {
        let blocks = [0, 2].into_iter();
        let modules = blocks.flat_map(|block| MODULES.map(|part| format!("model.layers.{block}.{part}")));
        let pair = |module: String| {
            let [rows, cols] = checkpoint.tensors[&format!("{module}.weight")].shape[..] else {
                panic!("a matrix")
            };
            let down = random(&format!("{module}.a"), &[RANK, cols], 0.3);
            let up = random(&format!("{module}.b"), &[rows, RANK], 0.3);
            (module, (down, up))
        };
        Lora { pairs: modules.map(pair).collect() }
    }

    pub fn peft(&self) -> Files {
        let tensors = self.pairs.iter().flat_map(|(module, (down, up))| {
            let name = |end: &str| format!("base_model.model.{module}.{end}.weight");
            [(name("lora_A"), down.clone()), (name("lora_B"), up.clone())]
        });
        let config = json!({"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "fan_in_fan_out": false});
        Files { config, tensors: tensors.collect() }
    }

    /// Which multiplies with a scale of its own.
    pub fn mlx(&self) -> Files {
        let tensors = self.pairs.iter().flat_map(|(module, (down, up))| {
            [(format!("{module}.lora_a"), transposed(down)), (format!("{module}.lora_b"), transposed(up))]
        });
        let parameters = json!({"rank": RANK, "scale": ALPHA / RANK as f32, "dropout": 0.0});
        let config = json!({"fine_tune_type": "lora", "lora_parameters": parameters});
        Files { config, tensors: tensors.collect() }
    }

    /// The checkpoint as training all of it would have made it.
    pub fn merged(&self, checkpoint: &Checkpoint) -> Checkpoint {
        let mut merged = checkpoint.clone();
        for (module, (down, up)) in &self.pairs {
            let weight = merged.tensors.get_mut(&format!("{module}.weight")).expect("it was made for it");
            let [rows, cols] = weight.shape[..] else { panic!("a matrix") };
            for row in 0..rows {
                for col in 0..cols {
                    let product =
                        (0..RANK).map(|at| up.values[row * RANK + at] * down.values[at * cols + col]);
                    weight.values[row * cols + col] += ALPHA / RANK as f32 * product.sum::<f32>();
                }
            }
        }
        merged
    }
}

// === impl Files ===

impl Files {
    pub fn write(&self, folder: &Path) -> Vec<Input> {
        let tensors: Vec<_> = self.tensors.iter().collect();
        let files = [
            ("adapter_config.json", self.config.to_string().into_bytes()),
            ("adapters.safetensors", safetensors(&tensors, "F32")),
        ];
        let write = |(name, bytes): (&str, Vec<u8>)| {
            let path = folder.join(name);
            fs::write(&path, bytes).unwrap();
            Input { name: name.to_owned(), path }
        };
        files.into_iter().map(write).collect()
    }

    /// As an adapter of that base.
    pub fn convert(&self, base: &Made) -> Result<Made, Error> {
        self.convert_changed(base, |_, _| {})
    }

    /// The same after `change` has had the bytes of each file.
    pub fn convert_changed(&self, base: &Made, change: impl Fn(&str, &mut Vec<u8>)) -> Result<Made, Error> {
        let folder = tempfile::tempdir().unwrap();
        let base = Input { name: "base.gguf".to_owned(), path: base.folder.path().join("made.gguf") };
        let files = self.write(folder.path());
        for input in &files {
            let mut content = fs::read(&input.path).unwrap();
            change(&input.name, &mut content);
            fs::write(&input.path, content).unwrap();
        }
        let job = Job { files, base: Some(base), quantization: None, threads: 2 };
        let statuses = run_job(&job, &folder.path().join("made.gguf"))?;
        Ok(Made { folder, statuses })
    }
}

fn transposed(array: &Array) -> Array {
    let [rows, cols] = array.shape[..] else { panic!("a matrix") };
    let values = (0..cols).flat_map(|col| (0..rows).map(move |row| array.values[row * cols + col]));
    Array { shape: vec![cols, rows], values: values.collect() }
}

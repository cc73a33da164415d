//! Checkpoints of eight bits are the ones that their numbers and scales stand for.

use std::collections::BTreeMap;
use std::fs;

use convert::{Error, Input};
use gguf::{File, Quantization};
use serde_json::{Map, Value, json};

use crate::fixture::{Array, Checkpoint, run};
use crate::reference::decoders;

const BLOCK: usize = 10;

/// What has one scale.
#[derive(Clone, Copy, Debug)]
enum Scaled {
    Blocks,
    Rows,
    All,
}

/// A checkpoint whose matrices have eight bits, as bytes, and what it stands for.
struct Small {
    tensors: BTreeMap<String, (&'static str, Vec<usize>, Vec<u8>)>,
    meant: Checkpoint,
}

fn number(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = if exponent == 0 { fraction / 512.0 } else { (8.0 + fraction) * 2f32.powi(exponent - 10) };
    if byte < 128 { size } else { -size }
}

impl Small {
    fn new(scaled: Scaled) -> Small {
        let mut small = Small { tensors: BTreeMap::new(), meant: decoders()[0].checkpoint() };
        let all = small.meant.tensors.clone();
        for (name, array) in all {
            if array.shape.len() == 2 && name.contains("layers") {
                small.squeeze(&name, &array, scaled);
            } else {
                let bytes = array.values.iter().flat_map(|value| value.to_le_bytes()).collect();
                small.tensors.insert(name, ("F32", array.shape, bytes));
            }
        }
        let sizes = json!({"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]});
        small.meant.config["quantization_config"] = sizes;
        small
    }

    /// Arbitrary bytes and scales, whatever the weights were.
    fn squeeze(&mut self, name: &str, array: &Array, scaled: Scaled) {
        let [rows, cols] = array.shape[..] else { panic!("a matrix") };
        let (block, shape, end) = match scaled {
            Scaled::Blocks => {
                ((BLOCK, BLOCK), vec![rows.div_ceil(BLOCK), cols.div_ceil(BLOCK)], "_scale_inv")
            }
            Scaled::Rows => ((1, cols), vec![rows, 1], "_scale"),
            Scaled::All => ((rows, cols), vec![], "_scale"),
        };
        let count = shape.iter().product::<usize>();
        let scales: Vec<f32> = (0..count).map(|at| 0.001 * (1.0 + at as f32)).collect();
        let bytes: Vec<u8> = (0..rows * cols).map(|at| (at * 37 % 251) as u8).map(|byte| byte & !1).collect();
        let across = cols.div_ceil(block.1);
        let value =
            |at: usize| number(bytes[at]) * scales[at / cols / block.0 * across + at % cols / block.1];
        let values = (0..rows * cols).map(value).collect();
        self.meant.tensors.insert(name.to_owned(), Array { shape: array.shape.clone(), values });
        let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        self.tensors.insert(format!("{name}{end}"), ("F32", shape, scales));
        self.tensors.insert(name.to_owned(), ("F8_E4M3", array.shape.clone(), bytes));
        if name.ends_with("q_proj.weight") {
            let name = name.replace("weight", "input_scale");
            self.tensors.insert(name, ("F32", vec![], 1f32.to_le_bytes().to_vec()));
        }
    }

    fn convert(&self, quantization: Option<Quantization>) -> Result<File, Error> {
        let folder = tempfile::tempdir().unwrap();
        let mut files: Vec<Input> = self.meant.write(folder.path(), 1);
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, (dtype, shape, bytes)) in &self.tensors {
            let start = data.len();
            data.extend(bytes);
            header.insert(
                name.clone(),
                json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}),
            );
        }
        let header = Value::Object(header).to_string();
        let weights = files.iter_mut().find(|input| input.name == "model.safetensors").unwrap();
        let parts = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data];
        fs::write(&weights.path, parts.concat()).unwrap();
        let made = folder.path().join("made.gguf");
        run(files, quantization, &made)?;
        Ok(File::open(&made).unwrap())
    }
}

#[test]
fn bytes_and_scales_become_the_numbers_that_they_stand_for() {
    for scaled in [Scaled::Blocks, Scaled::Rows, Scaled::All] {
        let small = Small::new(scaled);
        let found = small.convert(Some(Quantization::F32)).unwrap();
        let meant = small.meant.convert(Some(Quantization::F32)).unwrap().open();
        assert_eq!(found.header().tensors.len(), meant.header().tensors.len());
        for tensor in &meant.header().tensors {
            let same = found.header().tensor(&tensor.name).unwrap();
            assert!(found.data(same) == meant.data(tensor), "{} of {scaled:?}", tensor.name);
        }
    }
}

#[test]
fn what_has_eight_bits_becomes_no_larger_by_itself() {
    let made = Small::new(Scaled::Blocks).convert(None).unwrap();
    assert_eq!(made.header().file_type(), "Q8_0");
    assert_eq!(made.header().tensor("blk.1.attn_v.weight").unwrap().kind.name(), "Q8_0");
}

#[test]
fn scales_that_fit_nothing_are_refused() {
    let refused = |edit: &dyn Fn(&mut Small)| {
        let mut small = Small::new(Scaled::Blocks);
        edit(&mut small);
        small.convert(None).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let name = "model.layers.1.mlp.up_proj.weight";
    let scales = format!("{name}_scale_inv");
    for (text, expected) in [
        (
            refused(&|small| drop(small.tensors.remove(&scales))),
            format!("tensor `{name}` needs its scales, `{scales}` or `{name}_scale`"),
        ),
        (
            refused(&|small| drop(small.tensors.insert(scales.clone(), ("F32", vec![2], vec![0; 8])))),
            format!("tensor `{name}` has scales of shape [2], they must be one, 48 or [5, 4]"),
        ),
        (
            refused(&|small| drop(small.tensors.insert(scales.clone(), ("I32", vec![5, 4], vec![0; 80])))),
            format!("tensor `{name}` has scales of I32, they must be floats"),
        ),
        (
            refused(&|small| small.tensors.get_mut(name).unwrap().2[7] = 0x7f),
            "tensor `blk.1.ffn_up.weight` has the value NaN, which is not a finite number".to_owned(),
        ),
        (
            refused(&|small| small.meant.config["quantization_config"]["weight_block_size"] = json!([0, 1])),
            "config.json: `quantization_config.weight_block_size` must be two integers above 0".to_owned(),
        ),
        (
            refused(&|small| {
                let norm = "model.norm.weight".to_owned();
                small.tensors.insert(norm, ("F8_E4M3", vec![32], vec![0; 32]));
            }),
            "tensor `model.norm.weight` of F8_E4M3 must be a matrix, got [32]".to_owned(),
        ),
    ] {
        assert_eq!(text, expected);
    }
}

//! A real model to quantize: SmolLM2, whose published file is quantized, with its numbers as halves. What it lost before
//! is its own matter; from here on it is a model like those that are published in half precision.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use gguf::{TensorType, Writer};
use half::f16;

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// Of both types that it has.
const BLOCK: usize = 32;

/// The published file, in the folder that `CARAVAN_TEST_MODELS` names.
pub fn published() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|root| root.join("Makefile").exists());
    let usual = || root.expect("a crate of the workspace").join("target/models");
    let path = std::env::var_os("CARAVAN_TEST_MODELS").map_or_else(usual, PathBuf::from).join(SMOLLM2);
    assert!(path.is_file(), "{} is missing; fetch it with: make models", path.display());
    path
}

/// Writes the model in half precision.
pub fn write(target: &Path) {
    let source = gguf::File::open(&published()).expect("open the model");
    let header = source.header();
    let mut writer = Writer::new();
    for (key, value) in header.metadata.iter() {
        match key {
            "general.quantization_version" => {}
            "general.file_type" => drop(writer.metadata(key, 1u32).expect("a new key")),
            _ => drop(writer.metadata(key, value.clone()).expect("a new key")),
        }
    }
    for tensor in &header.tensors {
        let kind = if tensor.kind == TensorType::F32 { TensorType::F32 } else { TensorType::F16 };
        writer.declare(tensor.name.clone(), &tensor.shape, kind).expect("a new tensor");
    }
    let out = BufWriter::new(File::create(target).expect("create the file"));
    let written = writer.write_with(out, |at, out| -> Result<(), gguf::Error> {
        let tensor = &header.tensors[at];
        out.write_all(&halves(tensor.kind, source.data(tensor))).map_err(gguf::Error::Write)
    });
    written.expect("write the model");
}

/// Written for speed, because a test build does not optimise it.
fn halves(kind: TensorType, bytes: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8], at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32();
    let mut made = Vec::new();
    match kind {
        TensorType::F32 => made.extend(bytes),
        // A scale, the least value, and sixteen bytes: the low halves are the first sixteen numbers.
        TensorType::Q4_1 => {
            for block in bytes.chunks_exact(4 + BLOCK / 2) {
                let (scale, least) = (number(block, 0), number(block, 2));
                let values: [[u8; 2]; 16] =
                    std::array::from_fn(|step| f16::from_f32(scale * step as f32 + least).to_le_bytes());
                for byte in &block[4..] {
                    made.extend_from_slice(&values[usize::from(byte & 15)]);
                }
                for byte in &block[4..] {
                    made.extend_from_slice(&values[usize::from(byte >> 4)]);
                }
            }
        }
        TensorType::Q8_0 => {
            for block in bytes.chunks_exact(2 + BLOCK) {
                let scale = number(block, 0);
                for byte in &block[2..] {
                    made.extend_from_slice(&f16::from_f32(scale * f32::from(*byte as i8)).to_le_bytes());
                }
            }
        }
        other => panic!("the published file has no {other}"),
    }
    made
}

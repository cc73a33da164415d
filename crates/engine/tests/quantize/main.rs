//! Quantizing, held to what llama.cpp makes of the same files: the same types, and no larger errors.

#![allow(clippy::unwrap_used, reason = "tests may, and their helpers are tests too")]

mod models;
#[path = "../architectures/synthetic.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of the architectures use what this does not")]
mod synthetic;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QTensor};
use engine::quantize::{Mix, Outline, quantize, widen};
use gguf::{Gguf, Quantization, TensorType};
use serde::Deserialize;

/// How much larger an error may be. Roundings fall otherwise, and a tensor of few blocks is mostly luck.
const SLACK: f64 = 1.02;

/// What `make_golden.py` wrote.
#[derive(Deserialize)]
struct Golden {
    model: String,
    quantization: String,
    types: Vec<String>,
    /// In millionths.
    rms: Vec<f64>,
}

fn golden() -> Vec<Golden> {
    serde_json::from_str(include_str!("golden.json")).expect("golden figures")
}

fn types(gguf: &Gguf, quantization: Quantization) -> Vec<TensorType> {
    let number = |key: &str| gguf.metadata.arch_u64(key).unwrap().unwrap_or(0);
    let mix = Mix {
        quantization,
        architecture: gguf.architecture().unwrap(),
        blocks: number("block_count"),
        experts: number("expert_count"),
        shares_heads: number("attention.head_count_kv") < number("attention.head_count"),
    };
    let outlines: Vec<Outline<'_>> =
        gguf.tensors.iter().map(|tensor| Outline { name: &tensor.name, shape: &tensor.shape }).collect();
    let chosen = mix.types(&outlines);
    gguf.tensors.iter().zip(chosen).map(|(tensor, chosen)| chosen.unwrap_or(tensor.kind)).collect()
}

/// What candle reads back.
fn restored(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    let mut values = Vec::new();
    if widen(kind, bytes, &mut values).is_some() {
        return values;
    }
    let dtype = match kind {
        TensorType::Q4_0 => GgmlDType::Q4_0,
        TensorType::Q5_0 => GgmlDType::Q5_0,
        TensorType::Q5_1 => GgmlDType::Q5_1,
        TensorType::Q8_0 => GgmlDType::Q8_0,
        TensorType::Q4K => GgmlDType::Q4K,
        TensorType::Q5K => GgmlDType::Q5K,
        TensorType::Q6K => GgmlDType::Q6K,
        other => panic!("{other} is not made here"),
    };
    let count = bytes.len() / dtype.type_size() * dtype.block_size();
    let storage =
        candle_core::quantized::QStorage::from_data(bytes.to_vec().into(), &Device::Cpu, dtype).unwrap();
    let tensor = QTensor::new(storage, count).unwrap();
    tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap()
}

fn rms(before: &[f32], after: &[f32]) -> f64 {
    assert_eq!(before.len(), after.len());
    let squares = before.iter().zip(after).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / before.len() as f64).sqrt()
}

#[test]
fn every_tensor_gets_the_type_that_llama_cpp_gives_it() {
    let golden = golden();
    assert_eq!(golden.len(), models::models().len() * 8);
    for model in models::models() {
        let bytes = model.bytes(GgmlDType::F32);
        let gguf = Gguf::parse(&bytes).unwrap();
        for row in golden.iter().filter(|row| row.model == model.name) {
            let found = types(&gguf, Quantization::parse(&row.quantization).unwrap());
            for ((tensor, found), expected) in gguf.tensors.iter().zip(found).zip(&row.types) {
                assert_eq!(found.name(), expected, "{} as {}: {}", row.model, row.quantization, tensor.name);
            }
        }
    }
}

#[test]
fn no_error_is_larger_than_llama_cpps() {
    let mut worst = (0.0f64, String::new());
    // Whole blocks and the types that rows of none fall back to; a few blocks of each say as much as all.
    for model in models::models().into_iter().filter(|model| ["mix", "mix-odd"].contains(&model.name)) {
        let bytes = model.bytes(GgmlDType::F32);
        let gguf = Gguf::parse(&bytes).unwrap();
        for row in golden().into_iter().filter(|row| row.model == model.name) {
            for ((tensor, kind), expected) in gguf.tensors.iter().zip(&row.types).zip(&row.rms) {
                if !["blk.0.", "blk.6.", "output."].iter().any(|part| tensor.name.starts_with(part)) {
                    continue;
                }
                let kind = TensorType::all().find(|known| known.name() == kind).unwrap();
                let start = (gguf.data_offset + tensor.offset) as usize;
                let (mut before, mut made) = (Vec::new(), Vec::new());
                widen(tensor.kind, &bytes[start..start + tensor.bytes as usize], &mut before).unwrap();
                quantize(kind, &before, &mut made).unwrap();
                assert_eq!(made.len() as u64, kind.tensor_bytes(&tensor.shape).unwrap());
                let found = rms(&before, &restored(kind, &made)) * 1e6;
                let ratio = if found < 0.6 { 0.0 } else { found / expected.max(0.5) };
                if ratio > worst.0 {
                    worst = (
                        ratio,
                        format!("{} of {} as {kind}: {found}, not {expected}", tensor.name, row.model),
                    );
                }
            }
        }
    }
    println!("furthest from llama.cpp: {} {}", worst.0, worst.1);
    assert!(worst.0 <= SLACK, "{}", worst.1);
}

#[test]
fn blocks_of_one_value_are_kept() {
    for kind in [TensorType::Q4_0, TensorType::Q8_0, TensorType::Q4K, TensorType::Q5K, TensorType::Q6K] {
        for value in [0.0f32, -3.25, 7.5, 1e-30, 60000.0] {
            let row = [value; 512];
            let mut made = Vec::new();
            quantize(kind, &row, &mut made).unwrap();
            let furthest =
                restored(kind, &made).iter().map(|found| (found - value).abs()).fold(0f32, f32::max);
            assert!(furthest <= value.abs() * 0.02 + 1e-6, "{kind} of {value}: off by {furthest}");
        }
    }
}

#[test]
fn half_of_a_block_is_refused() {
    for kind in [TensorType::Q8_0, TensorType::Q4K, TensorType::Q6K] {
        let error = quantize(kind, &[1.0; 16], &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("16 values"), "{error}");
    }
}

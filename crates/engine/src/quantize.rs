//! Quantizing: which tensor gets which type ([`mix`]), and rows of numbers as blocks of that type.
//!
//! It knows neither files nor progress; who makes a file takes tensors apart into rows and asks here. Candle's
//! quantizers do the types whose blocks have one scale; where a block has several ours search longer than candle's, which
//! leave errors that are 5 to 10 % larger than llama.cpp's.

mod mix;
mod scaled;
mod signed;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use gguf::TensorType;
use half::{bf16, f16};

pub use mix::{Mix, Outline};

/// The largest value that a half-precision number, or a scale of one, can hold.
const HALF_MAX: f32 = 65504.0;

/// Why rows cannot be quantized. Who knows the tensor's name adds it.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    #[error("has the value {value}, which is not a finite number")]
    NotFinite { value: f32 },
    #[error("has the value {value}, {kind} holds ±{HALF_MAX} at most")]
    TooLarge { value: f32, kind: TensorType },
    #[error("has {count} values where {kind} has blocks of {}", kind.block_elements())]
    Blocks { count: usize, kind: TensorType },
    #[error("cannot be made {kind}")]
    Kind { kind: TensorType },
}

/// Adds the bytes of `values` as `kind` to `out`. They are whole rows of a tensor, or at least whole blocks.
///
/// # Errors
/// When a value is not finite or beyond what the type can hold, or this type is never written.
pub fn quantize(kind: TensorType, values: &[f32], out: &mut Vec<u8>) -> Result<(), QuantizeError> {
    check(kind, values)?;
    if !(values.len() as u64).is_multiple_of(kind.block_elements()) {
        return Err(QuantizeError::Blocks { count: values.len(), kind });
    }
    match kind {
        TensorType::F32 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        TensorType::F16 => out.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes())),
        TensorType::BF16 => out.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes())),
        TensorType::Q4K => scaled::quantize::<4>(values, out),
        TensorType::Q5K => scaled::quantize::<5>(values, out),
        TensorType::Q6K => signed::quantize(values, out),
        _ => {
            let dtype = candle_type(kind).ok_or(QuantizeError::Kind { kind })?;
            let failed = |_| QuantizeError::Kind { kind };
            let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).map_err(failed)?;
            let quantized = QTensor::quantize(&tensor, dtype).map_err(failed)?;
            out.extend_from_slice(&quantized.data().map_err(failed)?);
        }
    }
    Ok(())
}

/// Numbers of a plain type as floats, added to `out`. `None` for a type that is quantized.
pub fn widen(kind: TensorType, bytes: &[u8], out: &mut Vec<f32>) -> Option<()> {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match kind {
        TensorType::F32 => {
            out.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)))
        }
        TensorType::F16 => out.extend(halves().map(|bytes| f16::from_le_bytes(bytes).to_f32())),
        TensorType::BF16 => out.extend(halves().map(|bytes| bf16::from_le_bytes(bytes).to_f32())),
        _ => return None,
    }
    Some(())
}

/// Whether a model may be quantized from tensors of this type: whoever quantizes twice loses twice.
pub fn is_plain(kind: TensorType) -> bool {
    matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16)
}

fn check(kind: TensorType, values: &[f32]) -> Result<(), QuantizeError> {
    let bound = if matches!(kind, TensorType::F32 | TensorType::BF16) { f32::MAX } else { HALF_MAX };
    match values.iter().find(|value| value.is_nan() || value.abs() > bound) {
        None => Ok(()),
        Some(&value) if value.is_finite() => Err(QuantizeError::TooLarge { value, kind }),
        Some(&value) => Err(QuantizeError::NotFinite { value }),
    }
}

fn candle_type(kind: TensorType) -> Option<GgmlDType> {
    Some(match kind {
        TensorType::Q4_0 => GgmlDType::Q4_0,
        TensorType::Q5_0 => GgmlDType::Q5_0,
        TensorType::Q5_1 => GgmlDType::Q5_1,
        TensorType::Q8_0 => GgmlDType::Q8_0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_types_hold_what_they_are_given() {
        let values = [1.0f32, -2.5, 0.0, 65504.0];
        for kind in [TensorType::F32, TensorType::F16, TensorType::BF16] {
            let (mut bytes, mut again) = (Vec::new(), Vec::new());
            quantize(kind, &values[..3], &mut bytes).unwrap();
            assert!(is_plain(kind) && widen(kind, &bytes, &mut again).is_some());
            assert_eq!(again, values[..3]);
        }
        assert_eq!(widen(TensorType::Q4K, &[0; 144], &mut Vec::new()), None);
    }

    #[test]
    fn what_no_type_can_hold_is_refused() {
        let mut row = vec![0.5f32; 256];
        for kind in [TensorType::F32, TensorType::F16, TensorType::Q4_0, TensorType::Q4K, TensorType::Q6K] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                row[77] = value;
                let error = quantize(kind, &row, &mut Vec::new()).unwrap_err();
                assert!(error.to_string().contains("not a finite number"), "{error}");
            }
        }
        row[77] = 1e6;
        let error = quantize(TensorType::Q8_0, &row, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "has the value 1000000, Q8_0 holds ±65504 at most");
        assert!(quantize(TensorType::F32, &row, &mut Vec::new()).is_ok());
        row[77] = 0.5;
        let error = quantize(TensorType::IQ2_S, &row, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "cannot be made IQ2_S");
    }
}

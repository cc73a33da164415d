//! Maps and norms as tensors on a device.

use std::sync::Arc;

use candle_core::{
    D, DType, Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};

use super::Result;
use crate::{
    Error,
    compute::Compute,
    kernels::packed::Packed,
    spec::NormKind,
    transformer,
    weights::{Backend, RowBytes},
};

/// More than the alignment of any block that candle reads.
const ALIGNMENT: usize = 8;

/// A device, and the host that feeds it.
pub struct Placement {
    pub compute: Compute,
    pub device: Device,
}

#[derive(Clone)]
pub enum Matrix {
    /// Stays quantized; candle's kernels quantize what it is multiplied with.
    Quantized(QMatMul),
    /// Floats of the type that the file has: [rows, cols].
    Plain(Tensor),
}

pub struct Linear {
    weights: Matrix,
    /// [rows].
    bias: Option<Tensor>,
}

pub struct Norm {
    kind: NormKind,
    /// [dim], or of each head its own, [heads, dim].
    weight: Tensor,
    /// [dim].
    bias: Option<Tensor>,
    epsilon: f64,
}

impl Backend for Placement {
    type Matrix = Matrix;
    type Linear = Linear;
    type Norm = Norm;

    fn host(&self) -> &Compute {
        &self.compute
    }

    fn matrix(&self, source: RowBytes<'_>) -> Result<Matrix, Error> {
        let shape = (source.rows, source.cols);
        let plain = match source.kind {
            GgmlDType::F32 => DType::F32,
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::BF16,
            kind => {
                let mut room = Vec::new();
                let bytes = aligned(source.bytes, &mut room);
                let storage = QStorage::from_data(bytes.into(), &self.device, kind)?;
                let tensor = QTensor::new(storage, shape)?;
                return Ok(Matrix::Quantized(QMatMul::QTensor(Arc::new(tensor))));
            }
        };
        let shape = [source.rows, source.cols];
        Ok(Matrix::Plain(Tensor::from_raw_buffer(source.bytes, plain, &shape, &self.device)?))
    }

    fn tied(&self, _embedding: &Arc<Packed>) -> Option<Matrix> {
        None
    }

    fn linear(&self, weights: Matrix, bias: Option<Vec<f32>>) -> Result<Linear, Error> {
        let bias = bias.map(|bias| Tensor::new(bias, &self.device)).transpose()?;
        Ok(Linear { weights, bias })
    }

    fn norm(&self, norm: transformer::Norm) -> Result<Norm, Error> {
        let transformer::Norm { kind, dim, weight, bias, epsilon } = norm;
        let kinds = weight.len() / dim;
        let shape = if kinds == 1 { vec![dim] } else { vec![kinds, dim] };
        let bias = (!bias.is_empty()).then(|| Tensor::new(bias, &self.device)).transpose()?;
        let weight = Tensor::from_vec(weight, shape, &self.device)?;
        Ok(Norm { kind, weight, bias, epsilon: epsilon.into() })
    }
}

// === impl Linear ===

impl Linear {
    /// `input`: [n, cols] to [n, rows].
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let product = match &self.weights {
            Matrix::Quantized(weights) => weights.forward(input)?,
            // The product is of the weights' type on the way: one that is too large for it becomes infinite, and is found.
            Matrix::Plain(weights) => {
                input.to_dtype(weights.dtype())?.matmul(&weights.t()?)?.to_dtype(DType::F32)?
            }
        };
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

// === impl Norm ===

impl Norm {
    /// `rows`: [.., dim], or [n, heads, dim].
    pub fn apply(&self, rows: &Tensor) -> Result<Tensor> {
        let rows = match self.kind {
            NormKind::RootMeanSquare => rows.clone(),
            NormKind::Layer => rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?,
        };
        let deviation = (rows.sqr()?.mean_keepdim(D::Minus1)? + self.epsilon)?.sqrt()?; // [.., 1]
        let rows = rows.broadcast_div(&deviation)?.broadcast_mul(&self.weight)?;
        match &self.bias {
            Some(bias) => rows.broadcast_add(bias),
            None => Ok(rows),
        }
    }
}

/// Candle reads blocks where they lie; a file may put them anywhere.
fn aligned<'a>(bytes: &'a [u8], room: &'a mut Vec<u8>) -> &'a [u8] {
    if bytes.as_ptr().align_offset(ALIGNMENT) == 0 {
        return bytes;
    }
    room.resize(bytes.len() + ALIGNMENT, 0);
    let start = room.as_ptr().align_offset(ALIGNMENT);
    let place = &mut room[start..start + bytes.len()];
    place.copy_from_slice(bytes);
    place
}

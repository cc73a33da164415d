//! The tensors of a file, taken out by name with the shape that the spec demands. Each is packed, or copied to a
//! device, once, so the file may go away afterwards.

use std::{
    collections::HashSet,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use candle_core::quantized::GgmlDType;
use gguf::{File, Tensor, TensorType};

use crate::{
    Error,
    compute::Compute,
    kernels::packed::{Form, Packed, Refusal, widen_floats},
    linear::Linear,
    transformer::Norm,
};

const SUPPORTED_TYPES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K";
/// A file may carry these for parts of a model that are not loaded: image towers and their projectors.
const OTHER_PARTS: [&str; 2] = ["v.", "mm."];
/// Old files store what every loader computes.
const REDUNDANT: [&str; 2] = ["attn_rot_embd", "rotary_emb.inv_freq"];

/// What the rows of a tensor become, where they are multiplied with.
pub(crate) trait Backend {
    type Matrix;
    type Linear;
    type Norm;

    /// What the host computes with: tokens are embedded there, whoever does the rest.
    fn host(&self) -> &Compute;

    fn matrix(&self, rows: RowBytes<'_>) -> Result<Self::Matrix, Error>;

    /// The head of a file that has none; `None` = the embedding is loaded once more for it.
    fn tied(&self, embedding: &Arc<Packed>) -> Option<Self::Matrix>;

    /// `bias` has one value for each row of `weights`.
    fn linear(&self, weights: Self::Matrix, bias: Option<Vec<f32>>) -> Result<Self::Linear, Error>;

    fn norm(&self, norm: Norm) -> Result<Self::Norm, Error>;
}

/// Some rows of a tensor, as the file has them.
#[derive(Clone, Copy)]
pub(crate) struct RowBytes<'a> {
    /// Of the tensor.
    pub name: &'a str,
    pub kind: GgmlDType,
    pub bytes: &'a [u8],
    pub rows: usize,
    pub cols: usize,
}

pub(crate) struct Weights<'a, B> {
    file: &'a File,
    backend: &'a B,
    taken: HashSet<String>,
    total_bytes: u64,
    taken_bytes: u64,
    progress: &'a mut dyn FnMut(f32) -> ControlFlow<()>,
}

// === impl Weights ===

impl<'a, B: Backend> Weights<'a, B> {
    pub fn new(
        file: &'a File,
        backend: &'a B,
        progress: &'a mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Weights<'a, B> {
        let total_bytes = total_bytes(file.header());
        Weights { file, backend, taken: HashSet::new(), total_bytes, taken_bytes: 0, progress }
    }

    pub fn backend(&self) -> &'a B {
        self.backend
    }

    pub fn has(&self, name: &str) -> bool {
        self.file.header().tensor(name).is_some()
    }

    /// The shape of a tensor as ggml writes it, if the file has it.
    pub fn shape(&self, name: &str) -> Option<&'a [u64]> {
        self.file.header().tensor(name).map(|tensor| tensor.shape.as_slice())
    }

    /// A vector of floats, if the file has it.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        self.floats(name, &[len])
    }

    /// A table of floats of ggml's `shape`, if the file has it.
    pub fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, Error> {
        let Some(tensor) = self.take(name, shape)? else { return Ok(None) };
        let mut values = vec![0.0; shape.iter().product()];
        let kind = dtype(tensor.kind).filter(|&kind| widen_floats(kind, self.file.data(tensor), &mut values));
        kind.ok_or_else(|| unsupported(tensor, "F32, F16, BF16"))?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite { what: format!("tensor `{name}`") });
        }
        Ok(Some(values))
    }

    /// A table or vector that must be there.
    pub fn expect_floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        self.floats(name, shape)?.ok_or_else(|| missing(name))
    }

    /// A matrix of `rows` by `cols`, if the file has it.
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Option<B::Matrix>, Error> {
        let Some(tensor) = self.take(name, &[cols, rows])? else { return Ok(None) };
        self.backend.matrix(self.rows(tensor, 0..rows, cols)?).map(Some)
    }

    /// A matrix that must be there.
    pub fn expect_matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<B::Matrix, Error> {
        self.matrix(name, rows, cols)?.ok_or_else(|| missing(name))
    }

    /// A matrix that must be there, for the host.
    pub fn expect_packed(&mut self, name: &str, rows: usize, cols: usize) -> Result<Arc<Packed>, Error> {
        let tensor = self.take(name, &[cols, rows])?.ok_or_else(|| missing(name))?;
        self.backend.host().matrix(self.rows(tensor, 0..rows, cols)?)
    }

    /// The map `name`, with its bias if it has one.
    pub fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<B::Linear, Error> {
        let weight = self.expect_matrix(&format!("{name}.weight"), rows, cols)?;
        self.backend.linear(weight, self.vector(&format!("{name}.bias"), rows)?)
    }

    /// The map `name` for the host, of as many rows as it has, with its bias if it has one; `None` = the file lacks it.
    pub fn host_linear(&mut self, name: &str, cols: usize) -> Result<Option<Linear>, Error> {
        let weight = format!("{name}.weight");
        let Some(shape) = self.shape(&weight) else { return Ok(None) };
        // A single row may be written as a vector; there is always one.
        let rows = shape.get(1).copied().unwrap_or(1).max(1) as usize;
        let shape = if shape.len() == 1 { vec![cols] } else { vec![cols, rows] };
        let tensor = self.take(&weight, &shape)?.ok_or_else(|| missing(&weight))?;
        let weights = self.backend.host().matrix(self.rows(tensor, 0..rows, cols)?)?;
        Ok(Some(Linear::new(weights, self.vector(&format!("{name}.bias"), rows)?)))
    }

    /// The maps that the tensor `name` holds one below another, `parts` rows each.
    pub fn fused<const N: usize>(
        &mut self,
        name: &str,
        parts: [usize; N],
        cols: usize,
    ) -> Result<[B::Linear; N], Error> {
        let rows = parts.iter().sum();
        let weight = format!("{name}.weight");
        let tensor = self.take(&weight, &[cols, rows])?.ok_or_else(|| missing(&weight))?;
        let bias = self.vector(&format!("{name}.bias"), rows)?;
        let mut first = 0;
        let mut maps = Vec::with_capacity(N);
        for rows in parts {
            let range = first..first + rows;
            let bias = bias.as_ref().map(|bias| bias[range.clone()].to_vec());
            let weight = self.backend.matrix(self.rows(tensor, range.clone(), cols)?)?;
            maps.push(self.backend.linear(weight, bias)?);
            first = range.end;
        }
        maps.try_into().map_err(|_| Error::Compute("a fused tensor has lost a part".to_owned()))
    }

    /// One map for each of `count` experts: the tensor `name` holds them one behind another.
    pub fn experts(
        &mut self,
        name: &str,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<B::Linear>, Error> {
        let name = format!("{name}.weight");
        let tensor = self.take(&name, &[cols, rows, count])?.ok_or_else(|| missing(&name))?;
        let matrix = |at: usize| self.backend.matrix(self.rows(tensor, at * rows..(at + 1) * rows, cols)?);
        (0..count).map(|at| self.backend.linear(matrix(at)?, None)).collect()
    }

    fn rows(&self, tensor: &'a Tensor, rows: Range<usize>, cols: usize) -> Result<RowBytes<'a>, Error> {
        let kind = dtype(tensor.kind)
            .filter(|&kind| Form::of(kind).is_some())
            .ok_or_else(|| unsupported(tensor, SUPPORTED_TYPES))?;
        let stride = cols / kind.block_size() * kind.type_size();
        let bytes = &self.file.data(tensor)[rows.start * stride..rows.end * stride];
        Ok(RowBytes { name: &tensor.name, kind, bytes, rows: rows.len(), cols })
    }

    /// Fails if the file has a tensor that nobody took: a model that is half understood would talk nonsense.
    pub fn finish(self) -> Result<(), Error> {
        let header = self.file.header();
        match header.tensors.iter().find(|tensor| is_ours(tensor) && !self.taken.contains(&tensor.name)) {
            None => Ok(()),
            Some(tensor) => Err(Error::UnknownTensor {
                name: tensor.name.clone(),
                architecture: header.architecture()?.to_owned(),
            }),
        }
    }

    /// `shape` is ggml's: the contiguous dimension first.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<&'a Tensor>, Error> {
        let Some(tensor) = self.file.header().tensor(name) else { return Ok(None) };
        let expected: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        if tensor.shape != expected {
            return Err(Error::WrongShape { name: name.to_owned(), expected, found: tensor.shape.clone() });
        }
        if self.taken.insert(name.to_owned()) {
            self.taken_bytes += tensor.bytes;
            let fraction = self.taken_bytes as f32 / self.total_bytes.max(1) as f32;
            if (self.progress)(fraction).is_break() {
                return Err(Error::GivenUp);
            }
        }
        Ok(Some(tensor))
    }
}

impl Backend for Compute {
    type Matrix = Arc<Packed>;
    type Linear = Linear;
    type Norm = Norm;

    fn host(&self) -> &Compute {
        self
    }

    fn matrix(&self, rows: RowBytes<'_>) -> Result<Arc<Packed>, Error> {
        match Packed::pack(&self.pool, rows.kind, rows.bytes, (rows.rows, rows.cols)) {
            Ok(packed) => Ok(Arc::new(packed)),
            Err(Refusal::NotFinite) => Err(Error::NotFinite { what: format!("tensor `{}`", rows.name) }),
            Err(Refusal::OutOfMemory { needed }) => Err(Error::OutOfMemory { what: "the weights", needed }),
        }
    }

    fn tied(&self, embedding: &Arc<Packed>) -> Option<Arc<Packed>> {
        Some(embedding.clone())
    }

    fn linear(&self, weights: Arc<Packed>, bias: Option<Vec<f32>>) -> Result<Linear, Error> {
        Ok(Linear::new(weights, bias))
    }

    fn norm(&self, norm: Norm) -> Result<Norm, Error> {
        Ok(norm)
    }
}

/// The bytes of all tensors that a model of this file loads.
pub(crate) fn total_bytes(gguf: &gguf::Gguf) -> u64 {
    gguf.tensors.iter().filter(|tensor| is_ours(tensor)).map(|tensor| tensor.bytes).sum()
}

/// The bytes that they take when they are packed.
pub(crate) fn packed_bytes(gguf: &gguf::Gguf) -> u64 {
    let bytes = |tensor: &Tensor| {
        let sizes: Vec<usize> = tensor.shape.iter().map(|&size| size as usize).collect();
        match (sizes.as_slice(), dtype(tensor.kind).and_then(Form::of)) {
            ([cols, rows], Some(form)) => form.bytes(*rows, *cols),
            ([cols, rows, experts], Some(form)) => experts * form.bytes(*rows, *cols),
            _ => sizes.iter().product::<usize>() * size_of::<f32>(),
        }
    };
    gguf.tensors.iter().filter(|tensor| is_ours(tensor)).map(|tensor| bytes(tensor) as u64).sum()
}

fn is_ours(tensor: &Tensor) -> bool {
    !OTHER_PARTS.iter().any(|part| tensor.name.starts_with(part))
        && !REDUNDANT.iter().any(|part| tensor.name.contains(part))
}

fn missing(name: &str) -> Error {
    Error::MissingTensor { name: name.to_owned() }
}

fn unsupported(tensor: &Tensor, supported: &'static str) -> Error {
    Error::UnsupportedType { name: tensor.name.clone(), found: tensor.kind.to_string(), supported }
}

fn dtype(kind: TensorType) -> Option<GgmlDType> {
    Some(match kind {
        TensorType::F32 => GgmlDType::F32,
        TensorType::F16 => GgmlDType::F16,
        TensorType::BF16 => GgmlDType::BF16,
        TensorType::Q4_0 => GgmlDType::Q4_0,
        TensorType::Q4_1 => GgmlDType::Q4_1,
        TensorType::Q5_0 => GgmlDType::Q5_0,
        TensorType::Q5_1 => GgmlDType::Q5_1,
        TensorType::Q8_0 => GgmlDType::Q8_0,
        TensorType::Q2K => GgmlDType::Q2K,
        TensorType::Q3K => GgmlDType::Q3K,
        TensorType::Q4K => GgmlDType::Q4K,
        TensorType::Q5K => GgmlDType::Q5K,
        TensorType::Q6K => GgmlDType::Q6K,
        _ => return None,
    })
}

//! One conversion from its files to its bytes.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use engine::quantize::{Mix, Outline, is_plain};
use gguf::{Quantization, TensorType, Value};

use crate::plan::{Plan, Planned};
use crate::{Error, adapter, checkpoint, shards, write};

/// What version 2 of ggml's block layouts is called in a file.
const QUANTIZATION_VERSION: u32 = 2;

/// A file and what the person who uploaded it called it: a relative path.
#[derive(Clone, Debug)]
pub struct Input {
    pub name: String,
    pub path: PathBuf,
}

/// What to make of what.
#[derive(Clone, Debug)]
pub struct Job {
    /// A checkpoint or an adapter with all that belongs to it, or a GGUF, or all parts of one.
    pub files: Vec<Input>,
    /// The GGUF of the model that an adapter changes; `None` = the files are no adapter.
    pub base: Option<Input>,
    /// `None` = half precision for a checkpoint, Q8_0 for one of eight bits, and a GGUF as it is. An adapter is never quantized.
    pub quantization: Option<Quantization>,
    pub threads: usize,
}

/// What is told before and after every piece. A break gives the work up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub status: String,
    /// Bytes of the source; 0 where there is nothing to count.
    pub total: u64,
    pub completed: u64,
}

/// Writes one GGUF. Whatever fails, `out` has had an arbitrary part of it.
pub fn convert(
    job: &Job,
    out: &mut dyn Write,
    tell: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<(), Error> {
    let is_checkpoint = job.files.iter().any(|input| input.name.ends_with(".safetensors"));
    let begun = match job.base {
        Some(_) => "converting adapter",
        None if is_checkpoint => "converting model",
        None => "parsing GGUF",
    };
    if tell(Step { status: begun.to_owned(), total: 0, completed: 0 }).is_break() {
        return Err(Error::Canceled);
    }
    if let Some(base) = &job.base {
        let plan = adapter::read(&job.files, base)?;
        // Narrow, and the smallest of its numbers matter: it keeps all of them.
        let types = vec![TensorType::F32; plan.tensors.len()];
        return put(&plan, &types, (job, begun), out, tell);
    }
    let mut plan = if is_checkpoint { checkpoint::read(&job.files)? } else { shards::read(&job.files)? };
    let from = main_type(&plan);
    // What has eight bits is not made larger unasked.
    let has_eight_bits = plan.tensors.iter().any(|tensor| tensor.data.has_eight_bits());
    let usual = if has_eight_bits { Quantization::Q8_0 } else { Quantization::F16 };
    let quantization = job.quantization.or(is_checkpoint.then_some(usual));
    let types = match quantization {
        Some(quantization) => types(&mut plan, quantization, is_checkpoint)?,
        None => plan.tensors.iter().map(|tensor| tensor.kind).collect(),
    };
    let status = match job.quantization {
        Some(to) => format!("quantizing {from} model to {to}"),
        None if is_checkpoint => "converting model".to_owned(),
        None => "validating GGUF model".to_owned(),
    };
    put(&plan, &types, (job, &status), out, tell)
}

/// Writes the plan, and tells of it under `status`.
fn put(
    plan: &Plan,
    types: &[TensorType],
    (job, status): (&Job, &str),
    out: &mut dyn Write,
    tell: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<(), Error> {
    let total = plan.tensors.iter().map(source_bytes).sum();
    write::write(plan, types, job.threads, out, &mut |completed| {
        tell(Step { status: status.to_owned(), total, completed })
    })
}

/// Chooses the types, and says in the metadata what the file has become.
fn types(plan: &mut Plan, quantization: Quantization, is_checkpoint: bool) -> Result<Vec<TensorType>, Error> {
    if plan.tensors.iter().any(|tensor| tensor.kind.block_elements() > 1) {
        return Err(Error::Quantized);
    }
    plan.replace("general.file_type", quantization.file_type());
    if quantization.main_type().block_elements() > 1 {
        plan.replace("general.quantization_version", QUANTIZATION_VERSION);
    }
    let architecture =
        plan.get("general.architecture").and_then(Value::as_str).unwrap_or_default().to_owned();
    let number =
        |key: &str| plan.get(&format!("{architecture}.{key}")).and_then(Value::as_u64).unwrap_or_default();
    let mix = Mix {
        quantization,
        architecture: &architecture,
        blocks: number("block_count"),
        experts: number("expert_count"),
        shares_heads: number("attention.head_count_kv") < number("attention.head_count"),
    };
    let outlines: Vec<Outline<'_>> =
        plan.tensors.iter().map(|tensor| Outline { name: &tensor.name, shape: &tensor.shape }).collect();
    let chosen = mix.types(&outlines);
    // What is not quantized keeps its type in a GGUF. A checkpoint's vectors are floats, as everybody writes them.
    let other = |tensor: &Planned| if is_checkpoint { TensorType::F32 } else { tensor.kind };
    let types = plan.tensors.iter().zip(chosen).map(|(tensor, chosen)| match chosen {
        Some(chosen) if is_plain(tensor.kind) => chosen,
        _ => other(tensor),
    });
    Ok(types.collect())
}

fn source_bytes(tensor: &Planned) -> u64 {
    tensor.kind.tensor_bytes(&tensor.shape).unwrap_or_default()
}

/// The type that most of the matrices' bytes have.
fn main_type(plan: &Plan) -> TensorType {
    let bytes = |kind: TensorType| {
        let of_kind = plan.tensors.iter().filter(|tensor| tensor.kind == kind && tensor.shape.len() > 1);
        of_kind.map(source_bytes).sum::<u64>()
    };
    TensorType::all().max_by_key(|&kind| bytes(kind)).unwrap_or(TensorType::F32)
}

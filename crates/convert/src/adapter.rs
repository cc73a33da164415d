//! Adapters of the LoRA kind, as PEFT and MLX save them: for some matrices of a base, two narrow ones whose product is
//! added to them. What they change is known from the base alone, so it is read beside them.

use std::collections::BTreeMap;

use gguf::{Gguf, TensorType, Value};

use crate::Error;
use crate::checkpoint::{MAX_CONFIG, find, is_weights};
use crate::job::Input;
use crate::json::Json;
use crate::plan::{Change, Data, Plan, Planned};
use crate::safetensors::{self, Stored};

const CONFIG: &str = "adapter_config.json";
/// Architectures whose modules have the names below, and whether their queries and keys change places; see
/// [`Change::Interleave`].
const ARCHITECTURES: [(&str, bool); 6] = [
    ("llama", true),
    ("gemma", false),
    ("gemma2", false),
    ("gemma3", false),
    ("qwen2", false),
    ("qwen3", false),
];
/// Within a block, there and here.
const MODULES: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
/// How names end. MLX has its matrices the other way round.
const ENDS: [(&str, Half, Library); 6] = [
    (".lora_A.weight", Half::Down, Library::Peft),
    (".lora_A.default.weight", Half::Down, Library::Peft),
    (".lora_B.weight", Half::Up, Library::Peft),
    (".lora_B.default.weight", Half::Up, Library::Peft),
    (".lora_a", Half::Down, Library::Mlx),
    (".lora_b", Half::Up, Library::Mlx),
];

/// Which of the two matrices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    /// From the base's width to the rank.
    Down,
    /// From the rank to the base's width.
    Up,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Library {
    Peft,
    Mlx,
}

/// One of the two, as it is stored.
struct Found {
    name: String,
    stored: Stored,
    library: Library,
}

/// Both for one matrix of the base.
#[derive(Default)]
struct Pair {
    down: Option<Found>,
    up: Option<Found>,
}

/// From the files to what is to be written.
pub(crate) fn read(files: &[Input], base: &Input) -> Result<Plan, Error> {
    let wrong = |source| Error::Gguf { file: base.name.clone(), source };
    let base = gguf::File::open(&base.path).map_err(wrong)?;
    let base = base.header();
    let architecture = base.architecture().map_err(wrong)?;
    let known = ARCHITECTURES.iter().find(|(name, _)| *name == architecture);
    let (_, interleaves) = *known.ok_or_else(|| Error::Architecture(architecture.to_owned()))?;
    let config =
        find(files, CONFIG).ok_or_else(|| Error::file(CONFIG, "it is missing, an adapter needs it"))?;
    let config = Json::read(CONFIG, &config.path, MAX_CONFIG)?;
    let pairs = pairs(files)?;
    let mut plan = Plan::default();
    let mut ranks = Vec::new();
    for (weight, pair) in pairs {
        let head_rows = match weight.as_str() {
            name if interleaves && (name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight")) => {
                Some(head_rows(base, architecture)?)
            }
            _ => None,
        };
        let tensor = base.tensor(&weight);
        let (down, up) = pair.planned(&weight, tensor.map(|tensor| tensor.shape.as_slice()), head_rows)?;
        ranks.push(down.rows());
        plan.tensors.extend([down, up]);
    }
    if plan.tensors.is_empty() {
        return Err(Error::NoFiles);
    }
    let alpha = alpha(&config, &ranks)?;
    plan.put("general.architecture", architecture);
    plan.put("general.type", "adapter");
    plan.put("adapter.type", "lora");
    plan.put("adapter.lora.alpha", alpha);
    for key in ["attention.head_count", "attention.head_count_kv"] {
        let key = format!("{architecture}.{key}");
        if let Some(value) = base.metadata.get(&key) {
            plan.put(key, value.clone());
        }
    }
    Ok(plan)
}

/// All matrices of all files, under the names of what they change.
fn pairs(files: &[Input]) -> Result<BTreeMap<String, Pair>, Error> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for input in files.iter().filter(|input| is_weights(&input.name)) {
        for (name, stored) in safetensors::read(&input.name, &input.path)? {
            let (weight, half, library) = target(&name).ok_or_else(|| {
                Error::tensor(&name, "is unknown in an adapter; without it the adapter would be wrong")
            })?;
            let pair = pairs.entry(weight).or_default();
            let place = match half {
                Half::Down => &mut pair.down,
                Half::Up => &mut pair.up,
            };
            if place.is_some() {
                return Err(Error::tensor(&name, "is there twice"));
            }
            *place = Some(Found { name, stored, library });
        }
    }
    Ok(pairs)
}

/// `base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight` changes `blk.3.attn_q.weight`.
fn target(name: &str) -> Option<(String, Half, Library)> {
    let (module, (_, half, library)) = ENDS.iter().find_map(|end| Some((name.strip_suffix(end.0)?, end)))?;
    let (_, place) = module.split_once("model.layers.").filter(|(before, _)| !before.contains("vision"))?;
    let (block, module) = place.split_once('.')?;
    let block: u32 = block.parse().ok()?;
    let (_, part) = MODULES.iter().find(|(there, _)| *there == module)?;
    Some((format!("blk.{block}.{part}.weight"), *half, *library))
}

/// The length of a head of queries and keys.
fn head_rows(base: &Gguf, architecture: &str) -> Result<u64, Error> {
    let number = |key: &str| base.metadata.get(&format!("{architecture}.{key}")).and_then(Value::as_u64);
    let said = number("attention.key_length").or_else(|| {
        let (width, heads) = (number("embedding_length")?, number("attention.head_count")?);
        width.checked_div(heads)
    });
    said.filter(|rows| *rows > 0 && rows.is_multiple_of(2)).ok_or_else(|| {
        Error::file(
            "the base",
            format!("`{architecture}.attention.head_count` is missing or no divisor of the width"),
        )
    })
}

/// What the product is multiplied with, times the rank: whoever applies an adapter divides by the rank of each pair.
fn alpha(config: &Json, ranks: &[u64]) -> Result<f32, Error> {
    for key in ["use_dora", "fan_in_fan_out"] {
        if config.flag(key)?.unwrap_or(false) {
            return Err(config.wrong(key, "must be false, other kinds of adapters are not supported"));
        }
    }
    if let Some(kind) = config.text("fine_tune_type")?.filter(|kind| *kind != "lora") {
        return Err(config.wrong("fine_tune_type", &format!("must be \"lora\", got {kind:?}")));
    }
    let first = ranks.first().copied().unwrap_or(1);
    let one_rank = |key: &str| match ranks.iter().find(|rank| **rank != first) {
        None => Ok(first as f32),
        Some(other) => {
            Err(config.wrong(key, &format!("needs one rank for all matrices, there are {first} and {other}")))
        }
    };
    let alpha = match config.object("lora_parameters")? {
        Some(mlx) => match (mlx.float("alpha")?, mlx.float("scale")?) {
            (Some(alpha), _) if alpha != 0.0 => alpha,
            (_, Some(scale)) => scale * one_rank("lora_parameters")?,
            _ => return Err(mlx.missing("scale")),
        },
        None => {
            let alpha = config.float("lora_alpha")?.ok_or_else(|| config.missing("lora_alpha"))?;
            match config.flag("use_rslora")?.unwrap_or(false) {
                // It divides by the root of the rank.
                true => alpha * one_rank("use_rslora")?.sqrt(),
                false => alpha,
            }
        }
    };
    match alpha.is_finite() && alpha > 0.0 {
        true => Ok(alpha),
        false => Err(config.wrong("lora_alpha", &format!("must be above 0, got {alpha}"))),
    }
}

// === impl Pair ===

impl Pair {
    /// Both as they are written. `base` is the shape of what they change, in ggml's order.
    fn planned(
        self,
        weight: &str,
        base: Option<&[u64]>,
        head_rows: Option<u64>,
    ) -> Result<(Planned, Planned), Error> {
        let (down, up) = match (self.down, self.up) {
            (Some(down), Some(up)) => (down, up),
            (Some(alone), None) | (None, Some(alone)) => {
                return Err(Error::tensor(
                    &alone.name,
                    "has no other half; there must be a `lora_A` and a `lora_B`",
                ));
            }
            (None, None) => return Err(Error::NoFiles),
        };
        let &[cols, rows] = base.unwrap_or_default() else {
            return Err(Error::tensor(
                &down.name,
                format!("changes `{weight}`, which is no matrix of the base"),
            ));
        };
        let rank = down.rank()?;
        let change = head_rows.map_or(Change::Nothing, |head_rows| Change::Interleave { head_rows });
        Ok((
            down.planned(format!("{weight}.lora_a"), [cols, rank], Change::Nothing)?,
            up.planned(format!("{weight}.lora_b"), [rank, rows], change)?,
        ))
    }
}

// === impl Found ===

impl Found {
    /// Of a matrix that leads to the rank.
    fn rank(&self) -> Result<u64, Error> {
        match (self.stored.shape.as_slice(), self.library) {
            (&[rank, _], Library::Peft) | (&[_, rank], Library::Mlx) if rank > 0 => Ok(rank),
            (shape, _) => Err(Error::tensor(&self.name, format!("must be a matrix, its shape is {shape:?}"))),
        }
    }

    fn planned(self, name: String, shape: [u64; 2], change: Change) -> Result<Planned, Error> {
        let is_transposed = self.library == Library::Mlx;
        let [cols, rows] = shape;
        let expected = if is_transposed { [cols, rows] } else { [rows, cols] };
        if self.stored.shape != expected {
            let problem =
                format!("must have shape {expected:?} by the base and the rank, got {:?}", self.stored.shape);
            return Err(Error::tensor(&self.name, problem));
        }
        let kind = self.stored.kind;
        if !matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16) {
            return Err(Error::tensor(&self.name, format!("must be F32, F16 or BF16, got {kind}")));
        }
        let data = Data::Stored(self.stored.span);
        Ok(Planned { name, shape: shape.to_vec(), kind, data, is_transposed, change })
    }
}

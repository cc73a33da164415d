//! Small models with seeded random weights, one or more per row of the arch table: every kind of tensor and key that a
//! row may meet, at sizes that run in milliseconds.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use gguf::{TensorType, Value, Writer};

// With paths, because an example includes this file, too.
#[path = "synthetic/rows.rs"]
mod rows;
#[path = "synthetic/tensors.rs"]
mod tensors;
#[path = "synthetic/vocabulary.rs"]
mod vocabulary;

pub use rows::{embedders, models, rerankers};

pub const VOCAB: usize = 288;
pub const CONTEXT: u32 = 64;

/// What a model has beside the plain attention and gated unit of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A language head of its own.
    Output,
    QkvBias,
    QkNorm,
    PostNorms,
    FusedQkv,
    FusedGateUp,
    RopeFreqs,
    /// The two sets of longrope.
    RopeFactors,
    /// A body that every row goes through, beside the experts.
    SharedExpert,
    /// Norms that take the mean away, with biases.
    LayerNorm,
    /// No norm before the feed-forward body, which takes in what attention takes in.
    Parallel,
    /// No gate in the feed-forward body.
    Ungated,
    /// Of the maps out of attention, and into and out of the feed-forward body.
    Biases,
    FusedBias,
    OutputBias,
    /// A query and key norm for each head.
    HeadNorms,
    /// The norms of an embedder.
    NormsAfter,
    Positions,
    TokenTypes,
    /// The head of a reranker: a map, ...
    Classifier,
    /// ... one to a single label, ...
    Label,
    /// ... or the rows of yes and no.
    YesNo,
}

/// A model in a few words.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: &'static str,
    pub arch: &'static str,
    pub blocks: usize,
    pub width: usize,
    pub inner: usize,
    /// 0 = one feed-forward body, of no router.
    pub experts: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub parts: Vec<Part>,
    /// Without the architecture before them.
    pub keys: Vec<(&'static str, Value)>,
}

/// Tokens that look like nothing in particular.
pub fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32).map(|at| 3 + (at * 37 + at * at * 5 + 11) % (VOCAB as u32 - 3)).collect()
}

// === impl Model ===

impl Model {
    /// The whole file. Matrices of `kind` where their rows allow it, else F32; vectors always F32.
    pub fn bytes(&self, kind: GgmlDType) -> Vec<u8> {
        self.writer(kind).to_bytes().expect("write to memory")
    }

    /// The same, open for changes.
    pub fn writer(&self, kind: GgmlDType) -> Writer {
        let mut writer = Writer::new();
        self.write_keys(&mut writer);
        vocabulary::write(&mut writer);
        if self.has(Part::TokenTypes) {
            writer.metadata("tokenizer.ggml.token_type_count", 2u32).expect("keys are unique");
        }
        let mut random = Random(
            self.name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into())),
        );
        for (name, shape) in tensors::of(self) {
            let values = random.values(&name, &shape);
            // Nobody quantizes these two tables.
            let is_plain = name.starts_with("token_types") || name.starts_with("position_embd");
            let (kind, data) = encode(&values, &shape, if is_plain { GgmlDType::F32 } else { kind });
            writer.tensor(name, &shape, kind, data).expect("shape and bytes agree");
        }
        writer
    }

    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    fn rope_dims(&self) -> u64 {
        let dims = self.keys.iter().find(|(key, _)| *key == "rope.dimension_count");
        dims.map_or(self.head_dim as u64, |(_, dims)| dims.as_u64().expect("a number"))
    }

    fn write_keys(&self, writer: &mut Writer) {
        let mut put = |key: &str, value: Value| {
            writer.metadata(format!("{}.{key}", self.arch), value).expect("keys are unique");
        };
        put("block_count", (self.blocks as u32).into());
        put("context_length", CONTEXT.into());
        put("embedding_length", (self.width as u32).into());
        put("feed_forward_length", (self.inner as u32).into());
        put("attention.head_count", (self.heads as u32).into());
        put("attention.head_count_kv", (self.kv_heads as u32).into());
        if self.experts > 0 {
            put("expert_count", (self.experts as u32).into());
            put("expert_used_count", 3u32.into());
        }
        let epsilon = if self.has(Part::LayerNorm) { "layer_norm_epsilon" } else { "layer_norm_rms_epsilon" };
        put(&format!("attention.{epsilon}"), 1e-5f32.into());
        if self.head_dim * self.heads != self.width {
            put("attention.key_length", (self.head_dim as u32).into());
            put("attention.value_length", (self.head_dim as u32).into());
        }
        for (key, value) in &self.keys {
            put(key, value.clone());
        }
        writer.metadata("general.architecture", self.arch).expect("keys are unique");
    }
}

fn encode(values: &[f32], shape: &[u64], kind: GgmlDType) -> (TensorType, Vec<u8>) {
    let plain = || values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let [cols, rows @ ..] = shape else { return (TensorType::F32, plain()) };
    let (cols, rows) = (*cols, rows.iter().product::<u64>());
    if shape.len() == 1 || kind == GgmlDType::F32 || !cols.is_multiple_of(kind.block_size() as u64) {
        return (TensorType::F32, plain());
    }
    let tensor =
        Tensor::from_slice(values, (rows as usize, cols as usize), &Device::Cpu).expect("sizes agree");
    let quantized = QTensor::quantize(&tensor, kind).expect("whole blocks");
    let name =
        TensorType::all().find(|known| known.name().replace('_', "") == format!("{kind:?}").replace('_', ""));
    (name.expect("candle's types are ggml's"), quantized.data().expect("on the CPU").into_owned())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// In -1..1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Of a size that keeps every row of a block around one.
    fn values(&mut self, name: &str, shape: &[u64]) -> Vec<f32> {
        let count = shape.iter().product::<u64>() as usize;
        let (centre, spread) = match shape {
            _ if name.starts_with("rope_") => (2.5, 1.5),
            _ if name.ends_with("norm.weight") => (1.0, 0.3),
            [_] => (0.0, 0.4),
            _ if name.starts_with("token_") || name.starts_with("position_") => (0.0, 0.8),
            [cols, ..] => (0.0, 2.5 / (*cols as f32).sqrt()),
            [] => (0.0, 1.0),
        };
        (0..count).map(|_| centre + spread * self.next()).collect()
    }
}

//! Small models with seeded random weights, one or more per row of the arch table: every kind of tensor and key that a
//! row may meet, at sizes that run in milliseconds.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use gguf::{TensorType, Value, Writer};

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
}

/// A model in a few words.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: &'static str,
    pub arch: &'static str,
    pub blocks: usize,
    pub width: usize,
    pub inner: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub parts: Vec<Part>,
    /// Without the architecture before them.
    pub keys: Vec<(&'static str, Value)>,
}

/// All of them.
pub fn models() -> Vec<Model> {
    use Part::*;
    let llama = Model {
        name: "llama",
        arch: "llama",
        blocks: 2,
        width: 64,
        inner: 96,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        parts: vec![Output, RopeFreqs],
        keys: vec![("rope.freq_base", 500_000f32.into())],
    };
    let linear = vec![("rope.scaling.type", "linear".into()), ("rope.scaling.factor", 4f32.into())];
    let yarn = vec![
        ("rope.scaling.type", "yarn".into()),
        ("rope.scaling.factor", 4f32.into()),
        ("rope.scaling.original_context_length", 16u32.into()),
    ];
    let longrope = vec![
        ("rope.scaling.type", "longrope".into()),
        ("rope.scaling.attn_factor", 1.19f32.into()),
        ("rope.scaling.original_context_length", 32u32.into()),
        ("rope.dimension_count", 16u32.into()),
    ];
    let window = |tokens: u32| ("attention.sliding_window", tokens.into());
    let caps =
        vec![("attn_logit_softcapping", 5f32.into()), ("final_logit_softcapping", 6f32.into()), window(8)];
    let gemma3 = vec![
        window(8),
        ("rope.freq_base", 1_000_000f32.into()),
        ("rope.scaling.type", "linear".into()),
        ("rope.scaling.factor", 8f32.into()),
    ];
    let with = |name, arch, parts, keys| Model { name, arch, parts, keys, ..llama.clone() };
    let wide = |model: Model| Model { head_dim: 32, ..model };
    vec![
        llama.clone(),
        with("llama-linear", "llama", vec![QkvBias], linear),
        Model { kv_heads: 4, ..with("llama-plain", "llama", vec![], vec![]) },
        with("qwen2", "qwen2", vec![QkvBias, Output], vec![]),
        with("qwen2-yarn", "qwen2", vec![QkvBias], yarn),
        wide(with("qwen3", "qwen3", vec![QkNorm], vec![("rope.freq_base", 1_000_000f32.into())])),
        with("phi3", "phi3", vec![FusedQkv, FusedGateUp, RopeFactors, Output], longrope),
        wide(with("gemma", "gemma", vec![], vec![])),
        wide(with("gemma2", "gemma2", vec![PostNorms], caps)),
        Model { blocks: 7, ..wide(with("gemma3", "gemma3", vec![PostNorms, QkNorm], gemma3)) },
    ]
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
        write_vocabulary(&mut writer);
        let mut random = Random(self.name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte)));
        for (name, shape) in self.tensors() {
            let values = random.values(&name, &shape);
            let (kind, data) = encode(&values, &shape, kind);
            writer.tensor(name, &shape, kind, data).expect("shape and bytes agree");
        }
        writer
    }

    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
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
        put("attention.layer_norm_rms_epsilon", 1e-5f32.into());
        if self.head_dim * self.heads != self.width {
            put("attention.key_length", (self.head_dim as u32).into());
            put("attention.value_length", (self.head_dim as u32).into());
        }
        for (key, value) in &self.keys {
            put(key, value.clone());
        }
        writer.metadata("general.architecture", self.arch).expect("keys are unique");
    }

    /// Names and shapes, in ggml's order of dimensions.
    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let size = |size: usize| size as u64;
        let (width, inner, head_dim) = (size(self.width), size(self.inner), size(self.head_dim));
        let (query, key) = (size(self.heads) * head_dim, size(self.kv_heads) * head_dim);
        let mut all = vec![
            ("token_embd.weight".to_owned(), vec![width, size(VOCAB)]),
            ("output_norm.weight".to_owned(), vec![width]),
        ];
        let mut put_if = |part: Part, name: &str, shape: &[u64]| {
            if self.has(part) {
                all.push((name.to_owned(), shape.to_vec()));
            }
        };
        put_if(Part::Output, "output.weight", &[width, size(VOCAB)]);
        put_if(Part::RopeFreqs, "rope_freqs.weight", &[head_dim / 2]);
        put_if(Part::RopeFactors, "rope_factors_long.weight", &[head_dim / 2]);
        put_if(Part::RopeFactors, "rope_factors_short.weight", &[head_dim / 2]);
        for block in 0..self.blocks {
            let mut put =
                |name: &str, shape: &[u64]| all.push((format!("blk.{block}.{name}"), shape.to_vec()));
            put("attn_norm.weight", &[width]);
            put("ffn_norm.weight", &[width]);
            put("attn_output.weight", &[query, width]);
            put("ffn_down.weight", &[inner, width]);
            match self.has(Part::FusedQkv) {
                true => put("attn_qkv.weight", &[width, query + 2 * key]),
                false => {
                    put("attn_q.weight", &[width, query]);
                    put("attn_k.weight", &[width, key]);
                    put("attn_v.weight", &[width, key]);
                }
            }
            match self.has(Part::FusedGateUp) {
                true => put("ffn_up.weight", &[width, 2 * inner]),
                false => {
                    put("ffn_gate.weight", &[width, inner]);
                    put("ffn_up.weight", &[width, inner]);
                }
            }
            if self.has(Part::QkvBias) {
                put("attn_q.bias", &[query]);
                put("attn_k.bias", &[key]);
                put("attn_v.bias", &[key]);
            }
            if self.has(Part::QkNorm) {
                put("attn_q_norm.weight", &[head_dim]);
                put("attn_k_norm.weight", &[head_dim]);
            }
            if self.has(Part::PostNorms) {
                put("post_attention_norm.weight", &[width]);
                put("post_ffw_norm.weight", &[width]);
            }
        }
        all
    }
}

/// A SentencePiece vocabulary: three control tokens, the bytes, and a few pieces.
fn write_vocabulary(writer: &mut Writer) {
    let mut tokens: Vec<(String, i32)> =
        [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| (text.to_owned(), kind)).into();
    tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    tokens.push(("\u{2581}".to_owned(), 1));
    tokens.extend(('a'..='z').map(|letter| (letter.to_string(), 1)));
    tokens.extend([("\u{2581}a".to_owned(), 1), ("ab".to_owned(), 1)]);
    assert_eq!(tokens.len(), VOCAB);
    let scores: Vec<f32> = (0..VOCAB).map(|at| -(at as f32)).collect();
    let kinds: Vec<i32> = tokens.iter().map(|(_, kind)| *kind).collect();
    let texts: Vec<String> = tokens.into_iter().map(|(text, _)| text).collect();
    let entries: [(&str, Value); 6] = [
        ("tokenizer.ggml.model", "llama".into()),
        ("tokenizer.ggml.tokens", texts.into()),
        ("tokenizer.ggml.scores", scores.into()),
        ("tokenizer.ggml.token_type", kinds.into()),
        ("tokenizer.ggml.bos_token_id", 1u32.into()),
        ("tokenizer.ggml.eos_token_id", 2u32.into()),
    ];
    for (key, value) in entries {
        writer.metadata(key, value).expect("keys are unique");
    }
}

fn encode(values: &[f32], shape: &[u64], kind: GgmlDType) -> (TensorType, Vec<u8>) {
    let plain = || values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let &[cols, rows] = shape else { return (TensorType::F32, plain()) };
    if kind == GgmlDType::F32 || !cols.is_multiple_of(kind.block_size() as u64) {
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
            _ if name.contains("norm") => (1.0, 0.3),
            [_] => (0.0, 0.4),
            _ if name.starts_with("token_embd") => (0.0, 0.8),
            [cols, ..] => (0.0, 2.5 / (*cols as f32).sqrt()),
            [] => (0.0, 1.0),
        };
        (0..count).map(|_| centre + spread * self.next()).collect()
    }
}

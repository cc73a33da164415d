//! Models of the shape of a real one with seeded random weights, and a real tokenizer: what they say is noise, how fast
//! they say it is not. Blocks are drawn at random instead of being quantized, which is as good for speed and takes
//! seconds; their scales keep every activation of an ordinary size.

use std::io::{self, Write};

use gguf::{Error, Metadata, TensorType, Writer};
use half::f16;

/// In file names: a change here, or of what is written, makes new files.
const VERSION: u32 = 1;
/// Spread of the weights, as of a fresh model.
const SPREAD: f32 = 0.02;
/// What is drawn at once: whole blocks of every type.
const BUFFER_BLOCKS: u64 = 512;

pub struct Shape {
    pub width: u64,
    pub blocks: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub inner: u64,
}

/// Llama 3.2 1B.
pub const ONE_B: Shape = Shape { width: 2048, blocks: 16, heads: 32, kv_heads: 8, inner: 8192 };

/// Which types the matrices have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    Q4_0,
    /// What llama-quantize makes of a model with a tied head.
    Q4KM,
    Q8_0,
    F16,
}

/// SplitMix64.
pub struct Random(pub u64);

// === impl Mix ===

impl Mix {
    pub fn from_name(name: &str) -> Option<Mix> {
        [Mix::Q4_0, Mix::Q4KM, Mix::Q8_0, Mix::F16].into_iter().find(|mix| mix.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Mix::Q4_0 => "Q4_0",
            Mix::Q4KM => "Q4_K_M",
            Mix::Q8_0 => "Q8_0",
            Mix::F16 => "F16",
        }
    }

    /// `general.file_type`.
    fn file_type(self) -> u32 {
        match self {
            Mix::F16 => 1,
            Mix::Q4_0 => 2,
            Mix::Q8_0 => 7,
            Mix::Q4KM => 15,
        }
    }

    /// Of the matrix `name` in `block`, if it is in one.
    fn tensor_type(self, name: &str, block: Option<u64>, shape: &Shape) -> TensorType {
        // More bits where errors hurt most: the first and last eighth of the blocks, and every third between them.
        let eighth = shape.blocks / 8;
        let has_more_bits =
            |block: u64| block < eighth || block >= 7 * shape.blocks / 8 || (block - eighth) % 3 == 2;
        match (self, block) {
            (Mix::Q4_0, _) => TensorType::Q4_0,
            (Mix::Q8_0, _) => TensorType::Q8_0,
            (Mix::F16, _) => TensorType::F16,
            (Mix::Q4KM, None) => TensorType::Q6K,
            (Mix::Q4KM, Some(block)) if ["attn_v", "ffn_down"].contains(&name) && has_more_bits(block) => {
                TensorType::Q6K
            }
            (Mix::Q4KM, Some(_)) => TensorType::Q4K,
        }
    }
}

pub fn file_name(mix: Mix) -> String {
    format!("1b-v{VERSION}-{}.gguf", mix.name())
}

/// The model, to be written: its weights are drawn while it is. `tokenizer` is the metadata of a model that has one.
pub fn writer(shape: &Shape, mix: Mix, tokenizer: &Metadata) -> Result<Writer, Error> {
    let mut writer = Writer::new();
    let mut vocab_size = 0;
    writer.metadata("general.architecture", "llama")?;
    writer.metadata("general.name", format!("random-{}x{}", shape.width, shape.blocks))?;
    writer.metadata("general.file_type", mix.file_type())?;
    for (key, value) in tokenizer.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        if key == "tokenizer.ggml.tokens" {
            vocab_size = value.as_array().map_or(0, gguf::Array::len) as u64;
        }
        writer.metadata(key, value.clone())?;
    }
    let head_dim = shape.width / shape.heads;
    let numbers = [
        ("context_length", 8192),
        ("embedding_length", shape.width),
        ("block_count", shape.blocks),
        ("feed_forward_length", shape.inner),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("rope.dimension_count", head_dim),
        ("vocab_size", vocab_size),
    ];
    for (key, number) in numbers {
        writer.metadata(format!("llama.{key}"), number as u32)?;
    }
    writer.metadata("llama.rope.freq_base", 500_000f32)?;
    writer.metadata("llama.attention.layer_norm_rms_epsilon", 1e-5f32)?;

    matrix(&mut writer, "token_embd", None, [shape.width, vocab_size], (shape, mix))?;
    ones(&mut writer, "output_norm.weight".to_owned(), shape.width)?;
    let kv_width = shape.kv_heads * head_dim;
    for block in 0..shape.blocks {
        ones(&mut writer, format!("blk.{block}.attn_norm.weight"), shape.width)?;
        ones(&mut writer, format!("blk.{block}.ffn_norm.weight"), shape.width)?;
        let matrices = [
            ("attn_q", [shape.width, shape.width]),
            ("attn_k", [shape.width, kv_width]),
            ("attn_v", [shape.width, kv_width]),
            ("attn_output", [shape.width, shape.width]),
            ("ffn_gate", [shape.width, shape.inner]),
            ("ffn_up", [shape.width, shape.inner]),
            ("ffn_down", [shape.inner, shape.width]),
        ];
        for (name, size) in matrices {
            matrix(&mut writer, name, Some(block), size, (shape, mix))?;
        }
    }
    Ok(writer)
}

fn ones(writer: &mut Writer, name: String, len: u64) -> Result<(), Error> {
    let bytes = (0..len).flat_map(|_| 1f32.to_le_bytes()).collect();
    writer.tensor(name, &[len], TensorType::F32, bytes).map(drop)
}

fn matrix(
    writer: &mut Writer,
    name: &str,
    block: Option<u64>,
    size: [u64; 2],
    (shape, mix): (&Shape, Mix),
) -> Result<(), Error> {
    let kind = mix.tensor_type(name, block, shape);
    // What is added to the stream by every block is small, so that it does not grow with depth.
    let is_output = ["attn_output", "ffn_down"].contains(&name);
    let spread = if is_output { SPREAD / (2.0 * shape.blocks as f32).sqrt() } else { SPREAD };
    let full_name = match block {
        None => format!("{name}.weight"),
        Some(block) => format!("blk.{block}.{name}.weight"),
    };
    let seed = full_name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let blocks = size[0] * size[1] / kind.block_elements();
    let produce = move |out: &mut dyn Write| draw(kind, blocks, spread, &mut Random(seed), out);
    writer.tensor_stream(full_name, &size, kind, produce).map(drop)
}

/// Writes so many random blocks.
fn draw(
    kind: TensorType,
    blocks: u64,
    spread: f32,
    random: &mut Random,
    out: &mut dyn Write,
) -> io::Result<()> {
    let block_bytes = kind.block_bytes() as usize;
    let mut buffer = vec![0; BUFFER_BLOCKS as usize * block_bytes];
    let mut left = blocks;
    while left > 0 {
        let some = &mut buffer[..left.min(BUFFER_BLOCKS) as usize * block_bytes];
        random.fill(some);
        some.chunks_exact_mut(block_bytes).for_each(|block| make_sane(kind, block, spread, random));
        out.write_all(some)?;
        left -= left.min(BUFFER_BLOCKS);
    }
    Ok(())
}

/// Turns random bytes into a block whose weights have about this spread. Layouts: ggml's `block_*`.
fn make_sane(kind: TensorType, block: &mut [u8], spread: f32, random: &mut Random) {
    // Blocks differ, and no type prefers a sign.
    let spread = spread * (0.75 + 0.5 * random.fraction());
    let signed = if random.bits() & 1 == 0 { spread } else { -spread };
    let put = |block: &mut [u8], value: f32| block.copy_from_slice(&f16::from_f32(value).to_le_bytes());
    match kind {
        // Even, between the bounds of the same spread.
        TensorType::F16 => put(block, SPREAD_TO_BOUND * spread * (2.0 * random.fraction() - 1.0)),
        // `scale * (code - 8)`
        TensorType::Q4_0 => put(&mut block[..2], signed / 4.6),
        // `scale * code`; no quantizer makes a -128.
        TensorType::Q8_0 => {
            put(&mut block[..2], signed / 73.0);
            block[2..].iter_mut().filter(|code| **code == 0x80).for_each(|code| *code = 0x81);
        }
        // `scale * sub * (code - 7.5)` with eight sub-scales of 6 bits, which serve as the minimums, too.
        TensorType::Q4K => {
            let sub: [u8; 8] = std::array::from_fn(|at| 16 + block[4 + at] % 48);
            for at in 0..4 {
                let (low, high) = (sub[at], sub[at + 4]);
                block[4 + at] = low | (high >> 4) << 6;
                block[8 + at] = low | (high >> 4) << 6;
                block[12 + at] = (high & 15) | (high & 15) << 4;
            }
            let scale = spread / (4.6 * 42.0);
            put(&mut block[..2], scale);
            put(&mut block[2..4], 7.5 * scale);
        }
        // `scale * sub * (code - 32)` with sixteen signed sub-scales.
        TensorType::Q6K => {
            for sub in &mut block[192..208] {
                let size = 64 + (*sub & 63) as i8 / 2;
                *sub = if *sub & 0x80 == 0 { size } else { -size } as u8;
            }
            put(&mut block[208..], signed / (18.5 * 80.0));
        }
        _ => unreachable!("no mix has {kind}"),
    }
}

/// An even distribution reaches this much further than its spread.
const SPREAD_TO_BOUND: f32 = 1.732;

// === impl Random ===

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// In 0..1.
    fn fraction(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

//! A model file of one block with arbitrary weights and a vocabulary of bytes: small enough to be made anew by each
//! test, and a real transformer all the same.

use gguf::{Array, TensorType, Writer};

const WIDTH: u64 = 32;
const VOCAB: u64 = 3 + 256;
pub const TRAIN_CONTEXT_LENGTH: usize = 512;

/// The bytes of the file.
pub fn gguf() -> Vec<u8> {
    writer().to_bytes().unwrap()
}

/// The same with a Jinja template.
pub fn with_template(template: &str) -> Vec<u8> {
    let mut writer = writer();
    writer.metadata("tokenizer.chat_template", template).unwrap();
    writer.to_bytes().unwrap()
}

/// The same as a reranker that answers yes or no.
pub fn reranker() -> Vec<u8> {
    let mut writer = writer();
    writer.metadata("llama.pooling_type", 4u32).unwrap();
    writer.metadata("tokenizer.chat_template.rerank", "<s>{query}|{document}</s>").unwrap();
    let mut noise = Noise(2);
    add(&mut writer, "cls.output", &[WIDTH, 2], &std::array::from_fn::<_, 64, _>(|_| noise.next()));
    writer.to_bytes().unwrap()
}

/// The same as an embedder.
pub fn embedder() -> Vec<u8> {
    let mut writer = writer();
    writer.metadata("llama.pooling_type", 1u32).unwrap();
    writer.to_bytes().unwrap()
}

fn writer() -> Writer {
    let mut writer = Writer::new();
    metadata(&mut writer);
    tokenizer(&mut writer);
    tensors(&mut writer);
    writer
}

fn metadata(writer: &mut Writer) {
    writer.metadata("general.architecture", "llama").unwrap();
    let numbers = [
        ("block_count", 1u32),
        ("embedding_length", WIDTH as u32),
        ("context_length", TRAIN_CONTEXT_LENGTH as u32),
        ("feed_forward_length", WIDTH as u32),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ];
    for (key, value) in numbers {
        writer.metadata(format!("llama.{key}"), value).unwrap();
    }
}

/// SentencePiece with nothing but bytes.
fn tokenizer(writer: &mut Writer) {
    let special = ["<unk>", "<s>", "</s>"].map(String::from).into_iter();
    let tokens: Vec<String> = special.chain((0..=255).map(|byte| format!("<0x{byte:02X}>"))).collect();
    // Unknown, two of control, and bytes, in llama.cpp's numbers.
    let kinds: Vec<i32> = [2, 3, 3].into_iter().chain(std::iter::repeat_n(6, 256)).collect();
    writer.metadata("tokenizer.ggml.model", "llama").unwrap();
    writer.metadata("tokenizer.ggml.tokens", Array::String(tokens)).unwrap();
    writer.metadata("tokenizer.ggml.token_type", Array::I32(kinds)).unwrap();
    writer.metadata("tokenizer.ggml.scores", Array::F32(vec![0.0; VOCAB as usize])).unwrap();
}

fn tensors(writer: &mut Writer) {
    let matrices = [
        ("token_embd", [WIDTH, VOCAB]),
        ("output", [WIDTH, VOCAB]),
        ("blk.0.attn_q", [WIDTH, WIDTH]),
        ("blk.0.attn_k", [WIDTH, WIDTH / 2]),
        ("blk.0.attn_v", [WIDTH, WIDTH / 2]),
        ("blk.0.attn_output", [WIDTH, WIDTH]),
        ("blk.0.ffn_gate", [WIDTH, WIDTH]),
        ("blk.0.ffn_up", [WIDTH, WIDTH]),
        ("blk.0.ffn_down", [WIDTH, WIDTH]),
    ];
    let mut noise = Noise(1);
    for (name, shape) in matrices {
        let values = (0..shape[0] * shape[1]).map(|_| noise.next()).collect::<Vec<_>>();
        add(writer, name, &shape, &values);
    }
    for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
        add(writer, name, &[WIDTH], &[1.0; WIDTH as usize]);
    }
}

fn add(writer: &mut Writer, name: &str, shape: &[u64], values: &[f32]) {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    writer.tensor(format!("{name}.weight"), shape, TensorType::F32, bytes).unwrap();
}

/// A fixed sequence of numbers between -0.5 and 0.5.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        // Knuth's MMIX constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5
    }
}

//! BERT, as sentence-transformers publishes it: an encoder and how its rows become one vector.

use super::{Model, Row, Size, Sizes, Table, may, must};
use crate::Error;
use crate::checkpoint::{Checkpoint, Entries, MAX_CONFIG};
use crate::json::Json;

use Size::{Inner, Positions, Types, Vocab, Width};

const TABLE: Table = Table {
    whole: &[
        must("embeddings.word_embeddings.weight", "token_embd.weight", &[Vocab, Width]),
        must("embeddings.position_embeddings.weight", "position_embd.weight", &[Positions, Width]),
        must("embeddings.token_type_embeddings.weight", "token_types.weight", &[Types, Width]),
        must("embeddings.LayerNorm.weight", "token_embd_norm.weight", &[Width]),
        must("embeddings.LayerNorm.bias", "token_embd_norm.bias", &[Width]),
    ],
    blocks: "encoder.layer.",
    block: &[
        must("attention.self.query.weight", "attn_q.weight", &[Width, Width]),
        bias("attention.self.query.bias", "attn_q.bias", &[Width]),
        must("attention.self.key.weight", "attn_k.weight", &[Width, Width]),
        bias("attention.self.key.bias", "attn_k.bias", &[Width]),
        must("attention.self.value.weight", "attn_v.weight", &[Width, Width]),
        bias("attention.self.value.bias", "attn_v.bias", &[Width]),
        must("attention.output.dense.weight", "attn_output.weight", &[Width, Width]),
        bias("attention.output.dense.bias", "attn_output.bias", &[Width]),
        must("attention.output.LayerNorm.weight", "attn_output_norm.weight", &[Width]),
        must("attention.output.LayerNorm.bias", "attn_output_norm.bias", &[Width]),
        must("intermediate.dense.weight", "ffn_up.weight", &[Inner, Width]),
        bias("intermediate.dense.bias", "ffn_up.bias", &[Inner]),
        must("output.dense.weight", "ffn_down.weight", &[Width, Inner]),
        bias("output.dense.bias", "ffn_down.bias", &[Width]),
        must("output.LayerNorm.weight", "layer_output_norm.weight", &[Width]),
        must("output.LayerNorm.bias", "layer_output_norm.bias", &[Width]),
    ],
    experts: &[],
    before_expert: "",
    // The table of positions counts to 512, and the pooler was only trained to compare sentences.
    ignored: &["embeddings.position_ids", "pooler.", "cls."],
};

const fn bias(name: &'static str, gguf: &'static str, shape: &'static [Size]) -> Row {
    may(name, gguf, shape)
}

pub(super) fn read(checkpoint: &Checkpoint<'_>) -> Result<Model, Error> {
    let config = &checkpoint.config;
    let activation = config.text("hidden_act")?.unwrap_or("gelu");
    if activation != "gelu" {
        return Err(config.wrong("hidden_act", &format!("must be \"gelu\", got {activation:?}")));
    }
    let (width, heads) = (config.expect_count("hidden_size")?, config.expect_count("num_attention_heads")?);
    if !width.is_multiple_of(heads) {
        return Err(
            config.wrong("num_attention_heads", &format!("must divide the width {width}, got {heads}"))
        );
    }
    let sizes = Sizes {
        blocks: config.expect_count("num_hidden_layers")?,
        width,
        inner: config.expect_count("intermediate_size")?,
        heads,
        kv_heads: heads,
        head: width / heads,
        vocab: config.expect_count("vocab_size")?,
        positions: config.expect_count("max_position_embeddings")?,
        types: config.count("type_vocab_size")?.unwrap_or(2),
        experts: 0,
        expert_inner: 0,
    };
    let prefix = if checkpoint.tensors.keys().any(|name| name.starts_with("bert.")) { "bert." } else { "" };
    let tensors = TABLE.tensors(checkpoint, prefix, &sizes)?;
    let count = |value: u64| (value as u32).into();
    let keys: Entries = vec![
        ("block_count".to_owned(), count(sizes.blocks)),
        ("context_length".to_owned(), count(sizes.positions)),
        ("embedding_length".to_owned(), count(sizes.width)),
        ("feed_forward_length".to_owned(), count(sizes.inner)),
        ("attention.head_count".to_owned(), count(sizes.heads)),
        ("attention.layer_norm_epsilon".to_owned(), config.float("layer_norm_eps")?.unwrap_or(1e-12).into()),
        ("attention.causal".to_owned(), false.into()),
        ("pooling_type".to_owned(), pooling(checkpoint)?.into()),
    ];
    let tokenizer_keys = vec![("ggml.token_type_count".to_owned(), count(sizes.types))];
    Ok(Model { architecture: "bert", keys, tokenizer_keys, tensors, vocab: sizes.vocab })
}

/// 1 = the mean of all rows, 2 = the first row. Without a word about it, the mean: what most encoders are trained for.
fn pooling(checkpoint: &Checkpoint<'_>) -> Result<u32, Error> {
    let Some(pooling) = checkpoint.json("1_Pooling/config.json", MAX_CONFIG)? else { return Ok(1) };
    let is = |json: &Json, key: &str| json.flag(key).map(|flag| flag.unwrap_or(false));
    match (is(&pooling, "pooling_mode_mean_tokens")?, is(&pooling, "pooling_mode_cls_token")?) {
        (true, false) => Ok(1),
        (false, true) => Ok(2),
        _ => Err(pooling
            .wrong("pooling_mode_mean_tokens", "or `pooling_mode_cls_token` must be true, and nothing else")),
    }
}

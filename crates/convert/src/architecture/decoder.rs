//! Language models of one shape: a row of [`FAMILIES`] each.

use gguf::Value;

use super::mixture::{self, MIXTRAL, Mixture, QWEN3};
use super::{How, Model, Need, Row, Size, Sizes, Table, gemma, may, must, rope};
use crate::Error;
use crate::checkpoint::{Checkpoint, Entries};
use crate::json::Json;

use Size::{Experts, Head, Inner, Keys, Queries, QueriesKeysValues, TwiceInner, Vocab, Width};

/// Architectures that differ in tables and defaults only.
struct Family {
    /// What `architectures` says.
    classes: &'static [&'static str],
    architecture: &'static str,
    tied: &'static [Row],
    /// With a head of its own.
    untied: &'static [Row],
    block: &'static [Row],
    mixture: Option<Mixture>,
    activation: &'static str,
    /// Where config.json says it; the first that is there counts.
    activation_keys: &'static [&'static str],
    /// Whether the head is the embedding where config.json does not say.
    is_tied: bool,
    rope_base: f32,
    epsilon: f32,
    /// Whether heads may turn in part, and by factors for short and for long texts.
    has_long_rope: bool,
    defaults: Defaults,
    keys: fn(&Json, &Sizes) -> Result<Entries, Error>,
}

/// What the libraries take for granted when config.json does not say.
struct Defaults {
    heads: Option<u64>,
    kv_heads: Option<u64>,
    head: Option<u64>,
    positions: Option<u64>,
}

const NONE: Defaults = Defaults { heads: None, kv_heads: None, head: None, positions: None };

const EMBEDDING: Row = must("embed_tokens.weight", "token_embd.weight", &[Vocab, Width]);
const NORM: Row = must("norm.weight", "output_norm.weight", &[Width]);
const HEAD: Row = must("lm_head.weight", "output.weight", &[Vocab, Width]);

const fn interleaved(row: Row) -> Row {
    Row { how: How::Interleaved, ..row }
}

/// A norm that is stored as its distance from one.
const fn from_one(name: &'static str, gguf: &'static str, shape: &'static [Size]) -> Row {
    Row { name, gguf, shape, need: Need::Must, how: How::AddOne }
}

const Q: Row = must("self_attn.q_proj.weight", "attn_q.weight", &[Queries, Width]);
const K: Row = must("self_attn.k_proj.weight", "attn_k.weight", &[Keys, Width]);
const V: Row = must("self_attn.v_proj.weight", "attn_v.weight", &[Keys, Width]);
const O: Row = must("self_attn.o_proj.weight", "attn_output.weight", &[Width, Queries]);
const Q_BIAS: Row = may("self_attn.q_proj.bias", "attn_q.bias", &[Queries]);
const K_BIAS: Row = may("self_attn.k_proj.bias", "attn_k.bias", &[Keys]);
const V_BIAS: Row = may("self_attn.v_proj.bias", "attn_v.bias", &[Keys]);
const O_BIAS: Row = may("self_attn.o_proj.bias", "attn_output.bias", &[Width]);
const GATE: Row = must("mlp.gate_proj.weight", "ffn_gate.weight", &[Inner, Width]);
const UP: Row = must("mlp.up_proj.weight", "ffn_up.weight", &[Inner, Width]);
const DOWN: Row = must("mlp.down_proj.weight", "ffn_down.weight", &[Width, Inner]);
const BEFORE: Row = must("input_layernorm.weight", "attn_norm.weight", &[Width]);
const BETWEEN: Row = must("post_attention_layernorm.weight", "ffn_norm.weight", &[Width]);

const LLAMA: Family = Family {
    classes: &["LlamaForCausalLM", "MistralForCausalLM"],
    architecture: "llama",
    tied: &[EMBEDDING, NORM],
    untied: &[EMBEDDING, NORM, HEAD],
    block: &[
        BEFORE,
        interleaved(Q),
        interleaved(Q_BIAS),
        interleaved(K),
        interleaved(K_BIAS),
        V,
        V_BIAS,
        O,
        O_BIAS,
        BETWEEN,
        GATE,
        UP,
        DOWN,
    ],
    mixture: None,
    activation: "silu",
    activation_keys: &["hidden_act"],
    is_tied: false,
    rope_base: 10_000.0,
    epsilon: 1e-6,
    has_long_rope: false,
    defaults: NONE,
    keys: |_, sizes| Ok(vec![("rope.dimension_count".to_owned(), (sizes.head as u32).into())]),
};

const GEMMA: Family = Family {
    classes: &["GemmaForCausalLM"],
    architecture: "gemma",
    tied: &[EMBEDDING, from_one("norm.weight", "output_norm.weight", &[Width])],
    untied: &[EMBEDDING, from_one("norm.weight", "output_norm.weight", &[Width]), HEAD],
    block: &[
        from_one("input_layernorm.weight", "attn_norm.weight", &[Width]),
        Q,
        K,
        V,
        O,
        from_one("post_attention_layernorm.weight", "ffn_norm.weight", &[Width]),
        GATE,
        UP,
        DOWN,
    ],
    activation: "gelu_pytorch_tanh",
    // `hidden_act` says "gelu" in the first models, which the library takes for a mistake.
    activation_keys: &["hidden_activation"],
    is_tied: true,
    defaults: Defaults { heads: Some(16), kv_heads: Some(16), head: Some(256), positions: Some(8192) },
    keys: |_, _| Ok(Vec::new()),
    ..LLAMA
};

const FAMILIES: [Family; 9] = [
    LLAMA,
    Family {
        classes: &["Qwen2ForCausalLM"],
        architecture: "qwen2",
        block: &[BEFORE, Q, Q_BIAS, K, K_BIAS, V, V_BIAS, O, BETWEEN, GATE, UP, DOWN],
        keys: |_, _| Ok(Vec::new()),
        ..LLAMA
    },
    Family {
        classes: &["Qwen3ForCausalLM"],
        architecture: "qwen3",
        block: &[
            BEFORE,
            Q,
            K,
            V,
            O,
            must("self_attn.q_norm.weight", "attn_q_norm.weight", &[Head]),
            must("self_attn.k_norm.weight", "attn_k_norm.weight", &[Head]),
            BETWEEN,
            GATE,
            UP,
            DOWN,
        ],
        defaults: Defaults { head: Some(128), ..NONE },
        keys: |_, _| Ok(Vec::new()),
        ..LLAMA
    },
    Family {
        classes: &["MixtralForCausalLM"],
        block: &[
            BEFORE,
            interleaved(Q),
            interleaved(K),
            V,
            O,
            BETWEEN,
            must("block_sparse_moe.gate.weight", "ffn_gate_inp.weight", &[Experts, Width]),
        ],
        mixture: Some(MIXTRAL),
        rope_base: 1_000_000.0,
        epsilon: 1e-5,
        ..LLAMA
    },
    Family {
        classes: &["Qwen3MoeForCausalLM"],
        architecture: "qwen3moe",
        block: &[
            BEFORE,
            Q,
            K,
            V,
            O,
            must("self_attn.q_norm.weight", "attn_q_norm.weight", &[Head]),
            must("self_attn.k_norm.weight", "attn_k_norm.weight", &[Head]),
            BETWEEN,
            must("mlp.gate.weight", "ffn_gate_inp.weight", &[Experts, Width]),
        ],
        mixture: Some(QWEN3),
        keys: mixture::qwen3_keys,
        ..LLAMA
    },
    Family {
        classes: &["Phi3ForCausalLM"],
        architecture: "phi3",
        block: &[
            BEFORE,
            must("self_attn.qkv_proj.weight", "attn_qkv.weight", &[QueriesKeysValues, Width]),
            O,
            BETWEEN,
            must("mlp.gate_up_proj.weight", "ffn_up.weight", &[TwiceInner, Width]),
            DOWN,
        ],
        epsilon: 1e-5,
        has_long_rope: true,
        keys: |config, _| {
            let window = config.count("sliding_window")?.map(|window| Value::from(window as u32));
            Ok(window.map(|window| ("attention.sliding_window".to_owned(), window)).into_iter().collect())
        },
        ..LLAMA
    },
    GEMMA,
    Family {
        classes: &["Gemma2ForCausalLM"],
        architecture: "gemma2",
        block: &[
            from_one("input_layernorm.weight", "attn_norm.weight", &[Width]),
            Q,
            K,
            V,
            O,
            from_one("post_attention_layernorm.weight", "post_attention_norm.weight", &[Width]),
            from_one("pre_feedforward_layernorm.weight", "ffn_norm.weight", &[Width]),
            GATE,
            UP,
            DOWN,
            from_one("post_feedforward_layernorm.weight", "post_ffw_norm.weight", &[Width]),
        ],
        defaults: Defaults { heads: Some(8), kv_heads: Some(4), ..GEMMA.defaults },
        keys: gemma::gemma2_keys,
        ..GEMMA
    },
    Family {
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        architecture: "gemma3",
        block: &[
            from_one("input_layernorm.weight", "attn_norm.weight", &[Width]),
            Q,
            K,
            V,
            O,
            from_one("self_attn.q_norm.weight", "attn_q_norm.weight", &[Head]),
            from_one("self_attn.k_norm.weight", "attn_k_norm.weight", &[Head]),
            from_one("post_attention_layernorm.weight", "post_attention_norm.weight", &[Width]),
            from_one("pre_feedforward_layernorm.weight", "ffn_norm.weight", &[Width]),
            GATE,
            UP,
            DOWN,
            from_one("post_feedforward_layernorm.weight", "post_ffw_norm.weight", &[Width]),
        ],
        activation_keys: &["hidden_activation", "hidden_act"],
        rope_base: 1_000_000.0,
        defaults: Defaults { heads: Some(8), kv_heads: Some(4), head: Some(256), positions: Some(131_072) },
        keys: gemma::gemma3_keys,
        ..GEMMA
    },
];

/// What makes pictures into tokens is not converted: the model answers texts.
const IGNORED: [&str; 6] = [
    "lm_head.",
    "language_model.lm_head.",
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
];

pub(super) fn read(checkpoint: &Checkpoint<'_>, class: &str) -> Result<Model, Error> {
    let unsupported = || Error::Architecture(class.to_owned());
    let family = FAMILIES.iter().find(|family| family.classes.contains(&class)).ok_or_else(unsupported)?;
    let text = checkpoint.config.object("text_config")?;
    let config = text.as_ref().unwrap_or(&checkpoint.config);
    let prefix = prefix(checkpoint)?;
    let sizes = family.sizes(config, checkpoint, &prefix)?;
    family.check_activation(config)?;
    // The root says it, also where the text has a config of its own.
    let tied = checkpoint.config.flag("tie_word_embeddings")?.or(config.flag("tie_word_embeddings")?);
    let whole = if tied.unwrap_or(family.is_tied) { family.tied } else { family.untied };
    let (experts, before_expert) =
        family.mixture.as_ref().map_or((&[] as &[Row], ""), |mixture| (mixture.rows, mixture.before_expert));
    let table =
        Table { whole, blocks: "layers.", block: family.block, experts, before_expert, ignored: &IGNORED };
    let mut tensors = table.tensors(checkpoint, &prefix, &sizes)?;
    let mut keys = family.keys(config, &sizes)?;
    let rope = match family.has_long_rope {
        true => rope::read_long(config, family.rope_base, (sizes.head, sizes.positions))?,
        false => rope::read(config, family.rope_base, sizes.head)?,
    };
    keys.extend(rope.keys);
    tensors.extend(rope.factors);
    Ok(Model {
        architecture: family.architecture,
        keys,
        tokenizer_keys: Vec::new(),
        tensors,
        vocab: sizes.vocab,
    })
}

/// What is before the embedding's name is before all others.
fn prefix(checkpoint: &Checkpoint<'_>) -> Result<String, Error> {
    let found = checkpoint.tensors.keys().find_map(|name| name.strip_suffix(EMBEDDING.name));
    found.map(str::to_owned).ok_or_else(|| Error::tensor("model.embed_tokens.weight", "is missing"))
}

// === impl Family ===

impl Family {
    fn sizes(&self, config: &Json, checkpoint: &Checkpoint<'_>, prefix: &str) -> Result<Sizes, Error> {
        let or = |key: &str, default: Option<u64>| -> Result<u64, Error> {
            config.count(key)?.or(default).ok_or_else(|| config.missing(key))
        };
        let width = config.expect_count("hidden_size")?;
        let heads = or("num_attention_heads", self.defaults.heads)?;
        let head = match config.count("head_dim")?.or(self.defaults.head) {
            Some(head) => head,
            None if width.is_multiple_of(heads) => width / heads,
            None => {
                let problem =
                    format!("must divide the width {width} where there is no `head_dim`, got {heads}");
                return Err(config.wrong("num_attention_heads", &problem));
            }
        };
        if !head.is_multiple_of(2) {
            return Err(config.wrong("head_dim", &format!("must be even, got {head}")));
        }
        let kv_heads = or("num_key_value_heads", self.defaults.kv_heads.or(Some(heads)))?;
        if !heads.is_multiple_of(kv_heads) {
            let problem = format!("must divide the {heads} heads, got {kv_heads}");
            return Err(config.wrong("num_key_value_heads", &problem));
        }
        let embedding = checkpoint.tensors.get(&format!("{prefix}{}", EMBEDDING.name));
        let rows = embedding.and_then(|embedding| embedding.shape.first().copied());
        Ok(Sizes {
            blocks: config.expect_count("num_hidden_layers")?,
            width,
            inner: config.expect_count("intermediate_size")?,
            heads,
            kv_heads,
            head,
            vocab: or("vocab_size", rows)?,
            positions: or("max_position_embeddings", self.defaults.positions)?,
            types: 0,
            experts: self.mixture.as_ref().map_or(Ok(0), |mixture| config.expect_count(mixture.count_key))?,
            expert_inner: match &self.mixture {
                Some(mixture) => config.expect_count(mixture.inner_key)?,
                None => 0,
            },
        })
    }

    fn check_activation(&self, config: &Json) -> Result<(), Error> {
        for key in self.activation_keys {
            if let Some(found) = config.text(key)? {
                let problem = format!("must be {:?}, got {found:?}", self.activation);
                return if found == self.activation { Ok(()) } else { Err(config.wrong(key, &problem)) };
            }
        }
        Ok(())
    }

    fn keys(&self, config: &Json, sizes: &Sizes) -> Result<Entries, Error> {
        let count = |value: u64| Value::from(value as u32);
        let mut keys: Entries = vec![
            ("block_count".to_owned(), count(sizes.blocks)),
            ("context_length".to_owned(), count(sizes.positions)),
            ("embedding_length".to_owned(), count(sizes.width)),
            ("feed_forward_length".to_owned(), count(sizes.inner)),
            ("attention.head_count".to_owned(), count(sizes.heads)),
            ("attention.head_count_kv".to_owned(), count(sizes.kv_heads)),
            ("attention.key_length".to_owned(), count(sizes.head)),
            ("attention.value_length".to_owned(), count(sizes.head)),
            ("vocab_size".to_owned(), count(sizes.vocab)),
        ];
        if self.mixture.is_some() {
            let used = config.expect_count("num_experts_per_tok")?;
            if used > sizes.experts {
                let problem = format!("must be at most the number of experts, {}, got {used}", sizes.experts);
                return Err(config.wrong("num_experts_per_tok", &problem));
            }
            keys.push(("expert_count".to_owned(), count(sizes.experts)));
            keys.push(("expert_used_count".to_owned(), count(used)));
        }
        let epsilon = config.float("rms_norm_eps")?.unwrap_or(self.epsilon);
        keys.push(("attention.layer_norm_rms_epsilon".to_owned(), epsilon.into()));
        keys.extend((self.keys)(config, sizes)?);
        Ok(keys)
    }
}

//! What the libraries that save such checkpoints compute, written down as plainly as possible, in double precision.

use serde_json::{Value, json};

use crate::fixture::{Array, Checkpoint, INNER, VOCAB, WIDTH, random};

/// A decoder in a few words.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub class: &'static str,
    pub model_type: &'static str,
    pub head: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub has_bias: bool,
    pub has_qk_norm: bool,
    pub is_tied: bool,
    /// Gemma's norms, scaled embedding and activation.
    pub is_gemma: bool,
    /// Every other block has a window, and norms after its branches.
    pub has_windows: bool,
    pub extra: Value,
}

pub const BLOCKS: usize = 3;
const POSITIONS: usize = 512;
const EPSILON: f64 = 1e-5;
const THETA: f64 = 500_000.0;
const LOCAL_THETA: f64 = 10_000.0;
pub const WINDOW: usize = 4;

pub fn decoders() -> Vec<Decoder> {
    let llama = Decoder {
        class: "LlamaForCausalLM",
        model_type: "llama",
        head: 8,
        heads: 4,
        kv_heads: 2,
        has_bias: false,
        has_qk_norm: false,
        is_tied: false,
        is_gemma: false,
        has_windows: false,
        extra: json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    };
    let gemma3 = Decoder {
        class: "Gemma3ForCausalLM",
        model_type: "gemma3_text",
        head: 16,
        has_qk_norm: true,
        is_tied: true,
        is_gemma: true,
        has_windows: true,
        extra: json!({"sliding_window": WINDOW, "rope_local_base_freq": LOCAL_THETA, "sliding_window_pattern": 2,
            "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16}),
        ..llama.clone()
    };
    vec![
        llama.clone(),
        Decoder {
            class: "Qwen2ForCausalLM",
            model_type: "qwen2",
            has_bias: true,
            is_tied: true,
            extra: json!({}),
            ..llama.clone()
        },
        Decoder {
            class: "Qwen3ForCausalLM",
            model_type: "qwen3",
            head: 16,
            has_qk_norm: true,
            extra: json!({}),
            ..llama.clone()
        },
        gemma3.clone(),
        Decoder {
            class: "Gemma2ForCausalLM",
            model_type: "gemma2",
            has_qk_norm: false,
            extra: json!({"sliding_window": WINDOW, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16,
                "attn_logit_softcapping": 2.5, "final_logit_softcapping": 4.0}),
            ..gemma3.clone()
        },
        Decoder {
            class: "GemmaForCausalLM",
            model_type: "gemma",
            has_qk_norm: false,
            has_windows: false,
            extra: json!({"hidden_act": "gelu"}),
            ..gemma3
        },
    ]
}

// === impl Decoder ===

impl Decoder {
    pub fn checkpoint(&self) -> Checkpoint {
        let mut config = json!({
            "architectures": [self.class], "model_type": self.model_type, "hidden_size": WIDTH,
            "intermediate_size": INNER, "num_hidden_layers": BLOCKS, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head, "vocab_size": VOCAB,
            "max_position_embeddings": POSITIONS, "rms_norm_eps": EPSILON, "rope_theta": THETA,
            "tie_word_embeddings": self.is_tied, "torch_dtype": "float32",
        });
        config.as_object_mut().unwrap().extend(self.extra.as_object().unwrap().clone());
        let norm = |name: &str, size: usize| {
            let mut array = random(name, &[size], 0.3);
            if !self.is_gemma {
                array.values.iter_mut().for_each(|value| *value += 1.0);
            }
            (name.to_owned(), array)
        };
        let matrix = |name: &str, rows: usize, cols: usize| {
            (name.to_owned(), random(name, &[rows, cols], 2.0 / (cols as f32).sqrt()))
        };
        let mut tensors =
            vec![matrix("model.embed_tokens.weight", VOCAB, WIDTH), norm("model.norm.weight", WIDTH)];
        if !self.is_tied {
            tensors.push(matrix("lm_head.weight", VOCAB, WIDTH));
        }
        for block in 0..BLOCKS {
            let name = |part: &str| format!("model.layers.{block}.{part}.weight");
            let (queries, keys) = (self.heads * self.head, self.kv_heads * self.head);
            for (part, rows, cols) in [
                ("self_attn.q_proj", queries, WIDTH),
                ("self_attn.k_proj", keys, WIDTH),
                ("self_attn.v_proj", keys, WIDTH),
                ("self_attn.o_proj", WIDTH, queries),
                ("mlp.gate_proj", INNER, WIDTH),
                ("mlp.up_proj", INNER, WIDTH),
                ("mlp.down_proj", WIDTH, INNER),
            ] {
                tensors.push(matrix(&name(part), rows, cols));
                if self.has_bias && ["q_proj", "k_proj", "v_proj"].iter().any(|end| part.ends_with(end)) {
                    let bias = format!("model.layers.{block}.{part}.bias");
                    tensors.push((bias.clone(), random(&bias, &[rows], 0.4)));
                }
            }
            let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
            if self.has_windows {
                norms.extend(["pre_feedforward_layernorm", "post_feedforward_layernorm"]);
            }
            tensors.extend(norms.into_iter().map(|part| norm(&name(part), WIDTH)));
            if self.has_qk_norm {
                tensors.extend(
                    ["self_attn.q_norm", "self_attn.k_norm"].map(|part| norm(&name(part), self.head)),
                );
            }
        }
        Checkpoint::new(config, tensors.into_iter().collect())
    }

    /// The logits after each token.
    pub fn logits(&self, checkpoint: &Checkpoint, tokens: &[u32]) -> Vec<Vec<f64>> {
        let get = |name: &str| &checkpoint.tensors[name];
        let embedding = get("model.embed_tokens.weight");
        let scale = if self.is_gemma { (WIDTH as f64).sqrt() } else { 1.0 };
        let mut stream: Vec<Vec<f64>> = tokens
            .iter()
            .map(|&token| row(embedding, token as usize).map(|value| value * scale).collect())
            .collect();
        for block in 0..BLOCKS {
            let part = |part: &str| get(&format!("model.layers.{block}.{part}.weight"));
            let update = self.attention(checkpoint, block, &stream);
            let after = self.has_windows.then(|| part("post_attention_layernorm"));
            self.add(&mut stream, update, after);
            let before =
                part(if self.has_windows { "pre_feedforward_layernorm" } else { "post_attention_layernorm" });
            let update = stream.iter().map(|x| {
                let x = self.norm(x, before);
                let gate = apply(part("mlp.gate_proj"), &x).into_iter().map(|value| self.activate(value));
                let inner: Vec<f64> =
                    gate.zip(apply(part("mlp.up_proj"), &x)).map(|(gate, up)| gate * up).collect();
                apply(part("mlp.down_proj"), &inner)
            });
            let update = update.collect();
            let after = self.has_windows.then(|| part("post_feedforward_layernorm"));
            self.add(&mut stream, update, after);
        }
        let head = if self.is_tied { embedding } else { get("lm_head.weight") };
        let rows = stream.iter().map(|x| apply(head, &self.norm(x, get("model.norm.weight"))));
        rows.map(|row| row.into_iter().map(|logit| self.capped("final_logit_softcapping", logit)).collect())
            .collect()
    }

    fn attention(&self, checkpoint: &Checkpoint, block: usize, stream: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let part = |part: &str| &checkpoint.tensors[&format!("model.layers.{block}.{part}.weight")];
        let is_local = self.has_windows && block.is_multiple_of(2);
        let project = |name: &str, x: &[f64]| {
            let mut out = apply(part(name), x);
            if let Some(bias) = checkpoint.tensors.get(&format!("model.layers.{block}.{name}.bias")) {
                out.iter_mut().zip(&bias.values).for_each(|(out, bias)| *out += f64::from(*bias));
            }
            out
        };
        let heads = |name: &str, norm: &str, x: &[f64], position: usize| -> Vec<Vec<f64>> {
            let all = project(name, x);
            let head = |head: &[f64]| {
                let head = if self.has_qk_norm { self.norm(head, part(norm)) } else { head.to_vec() };
                self.turn(&head, position, is_local)
            };
            all.chunks(self.head).map(head).collect()
        };
        let inputs: Vec<Vec<f64>> = stream.iter().map(|x| self.norm(x, part("input_layernorm"))).collect();
        let each = |name: &str, norm: &str| -> Vec<Vec<Vec<f64>>> {
            inputs.iter().enumerate().map(|(at, x)| heads(name, norm, x, at)).collect()
        };
        let (queries, keys) =
            (each("self_attn.q_proj", "self_attn.q_norm"), each("self_attn.k_proj", "self_attn.k_norm"));
        let values: Vec<Vec<f64>> = inputs.iter().map(|x| project("self_attn.v_proj", x)).collect();
        let mut updates = Vec::new();
        for (at, queries) in queries.iter().enumerate() {
            let first = if is_local { (at + 1).saturating_sub(WINDOW) } else { 0 };
            let mut out = Vec::new();
            for (head, query) in queries.iter().enumerate() {
                let shared = head / (self.heads / self.kv_heads);
                let dot = |key: &[f64]| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
                let score = |other: usize| dot(&keys[other][shared]) / (self.head as f64).sqrt();
                let scores: Vec<f64> =
                    (first..=at).map(|other| self.capped("attn_logit_softcapping", score(other))).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..self.head).map(|dim| {
                    let value = |other: usize| values[other][shared * self.head + dim];
                    weights
                        .iter()
                        .zip(first..=at)
                        .map(|(weight, other)| weight / sum * value(other))
                        .sum::<f64>()
                }));
            }
            updates.push(apply(part("self_attn.o_proj"), &out));
        }
        updates
    }

    /// The first half of a head turns with the second.
    fn turn(&self, head: &[f64], position: usize, is_local: bool) -> Vec<f64> {
        let half = self.head / 2;
        let is_other = is_local && self.extra.get("rope_local_base_freq").is_some();
        let theta = if is_other { LOCAL_THETA } else { THETA };
        let mut turned = head.to_vec();
        for pair in 0..half {
            let frequency = theta.powf(-2.0 * pair as f64 / self.head as f64);
            let (sin, cos) = (position as f64 * self.stretched(pair, frequency)).sin_cos();
            let (sin, cos) = (sin * self.magnitude(), cos * self.magnitude());
            turned[pair] = head[pair] * cos - head[half + pair] * sin;
            turned[half + pair] = head[half + pair] * cos + head[pair] * sin;
        }
        turned
    }

    /// As Meta's code for Llama 3.1 has it.
    fn stretched(&self, pair: usize, frequency: f64) -> f64 {
        let Some(scaling) = self.extra.get("rope_scaling") else { return frequency };
        if let Some(factors) = scaling.get("long_factor") {
            return frequency / factors[pair].as_f64().unwrap();
        }
        let number = |key: &str| scaling[key].as_f64().unwrap();
        let original = number("original_max_position_embeddings");
        let (factor, low, high) = (number("factor"), number("low_freq_factor"), number("high_freq_factor"));
        let wavelength = std::f64::consts::TAU / frequency;
        if wavelength < original / high {
            frequency
        } else if wavelength > original / low {
            frequency / factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }

    /// What LongRoPE multiplies queries and keys with.
    fn magnitude(&self) -> f64 {
        let Some(original) = self.extra.get("original_max_position_embeddings").and_then(Value::as_f64)
        else {
            return 1.0;
        };
        (1.0 + (POSITIONS as f64 / original).ln() / original.ln()).sqrt()
    }

    /// Never above what the config says under that key.
    fn capped(&self, key: &str, value: f64) -> f64 {
        self.extra.get(key).and_then(Value::as_f64).map_or(value, |cap| cap * (value / cap).tanh())
    }

    fn norm(&self, x: &[f64], weight: &Array) -> Vec<f64> {
        let mean = x.iter().map(|value| value * value).sum::<f64>() / x.len() as f64;
        let offset = if self.is_gemma { 1.0 } else { 0.0 };
        let scaled =
            |(value, weight): (&f64, &f32)| value / (mean + EPSILON).sqrt() * (f64::from(*weight) + offset);
        x.iter().zip(&weight.values).map(scaled).collect()
    }

    fn add(&self, stream: &mut [Vec<f64>], update: Vec<Vec<f64>>, after: Option<&Array>) {
        for (x, update) in stream.iter_mut().zip(update) {
            let update = after.map_or(update.clone(), |weight| self.norm(&update, weight));
            x.iter_mut().zip(update).for_each(|(x, update)| *x += update);
        }
    }

    fn activate(&self, x: f64) -> f64 {
        match self.is_gemma {
            true => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            }
            false => x / (1.0 + (-x).exp()),
        }
    }
}

pub fn row(array: &Array, at: usize) -> impl Iterator<Item = f64> + '_ {
    let cols = array.shape[1];
    array.values[at * cols..(at + 1) * cols].iter().map(|&value| f64::from(value))
}

/// The matrix times a column.
pub fn apply(matrix: &Array, x: &[f64]) -> Vec<f64> {
    assert_eq!(matrix.shape[1], x.len());
    (0..matrix.shape[0]).map(|at| row(matrix, at).zip(x).map(|(weight, x)| weight * x).sum()).collect()
}

//! Mixtures of experts. What they compute is held to llama.cpp; here, what is refused.

use serde_json::{Value, json};

use crate::fixture::{Checkpoint, INNER, WIDTH, random};
use crate::reference::{BLOCKS, decoders};

const EXPERTS: usize = 4;

/// Names for the golden figures, and checkpoints.
pub fn mixtures() -> Vec<(&'static str, Checkpoint)> {
    let mixtral = mixture(0, "block_sparse_moe", ["w1", "w2", "w3"], INNER);
    let qwen = mixture(2, "mlp", ["gate_proj", "down_proj", "up_proj"], INNER / 2);
    let with = |mut checkpoint: Checkpoint, config: Value| {
        let known = checkpoint.config.as_object_mut().unwrap();
        known.extend(config.as_object().unwrap().clone());
        checkpoint
    };
    let mixtral = with(
        mixtral,
        json!({"architectures": ["MixtralForCausalLM"], "num_local_experts": EXPERTS, "num_experts_per_tok": 2}),
    );
    let qwen = with(
        qwen,
        json!({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": EXPERTS, "num_experts_per_tok": 2,
            "moe_intermediate_size": INNER / 2, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": []}),
    );
    vec![("mixtral", mixtral), ("qwen3moe", qwen)]
}

/// A decoder with experts in place of its widenings. The names are of gate, down and up.
fn mixture(decoder: usize, module: &str, [gate, down, up]: [&str; 3], inner: usize) -> Checkpoint {
    let mut checkpoint = decoders().remove(decoder).checkpoint();
    checkpoint.tensors.retain(|name, _| !name.contains(".mlp."));
    for block in 0..BLOCKS {
        let place = format!("model.layers.{block}.{module}");
        let mut put = |name: String, rows: usize, cols: usize| {
            let array = random(&name, &[rows, cols], 2.0 / (cols as f32).sqrt());
            checkpoint.tensors.insert(name, array);
        };
        put(format!("{place}.gate.weight"), EXPERTS, WIDTH);
        for expert in 0..EXPERTS {
            let name = |part: &str| format!("{place}.experts.{expert}.{part}.weight");
            put(name(gate), inner, WIDTH);
            put(name(down), WIDTH, inner);
            put(name(up), inner, WIDTH);
        }
    }
    checkpoint
}

#[test]
fn experts_lie_one_after_the_other() {
    for (name, checkpoint) in mixtures() {
        let made = checkpoint.convert(Some(gguf::Quantization::F32)).unwrap().open();
        let tensor = made.header().tensor("blk.1.ffn_down_exps.weight").unwrap();
        let inner = tensor.shape[0];
        assert_eq!(tensor.shape, [inner, WIDTH as u64, EXPERTS as u64], "{name}");
        let third = &made.data(tensor)[2 * 4 * inner as usize * WIDTH..][..4];
        let stored = checkpoint.tensors.iter().find(|(name, array)| {
            name.contains("layers.1.") && name.contains("experts.2.") && array.shape[0] == WIDTH
        });
        assert_eq!(third, stored.unwrap().1.values[0].to_le_bytes(), "{name}");
        assert_eq!(made.header().metadata.arch_u64("expert_used_count").unwrap(), Some(2));
    }
}

#[test]
fn a_mixture_that_a_file_cannot_say_is_refused() {
    let refused = |which: usize, edit: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = mixtures().remove(which).1;
        edit(&mut checkpoint);
        checkpoint.refused()
    };
    let config = |which: usize, key: &'static str, value: Value| {
        refused(which, &move |checkpoint| checkpoint.config[key] = value.clone())
    };
    let missing = "model.layers.2.mlp.experts.3.up_proj.weight";
    for (text, expected) in [
        (config(0, "num_local_experts", json!(null)), "config.json: `num_local_experts` is missing"),
        (
            config(0, "num_local_experts", json!(3)),
            "tensor `model.layers.0.block_sparse_moe.gate.weight` must have shape [3, 32]",
        ),
        (config(0, "num_local_experts", json!(4_000_000_000u64)), "must have shape [4000000000, 32]"),
        (config(0, "num_experts_per_tok", json!(5)), "must be at most the number of experts, 4, got 5"),
        (config(1, "norm_topk_prob", json!(false)), "config.json: `norm_topk_prob` must be true"),
        (config(1, "decoder_sparse_step", json!(2)), "config.json: `decoder_sparse_step` must be 1, got 2"),
        (config(1, "mlp_only_layers", json!([1])), "config.json: `mlp_only_layers` must be empty"),
        (
            refused(1, &|checkpoint| drop(checkpoint.tensors.remove(missing))),
            "tensor `model.layers.2.mlp.experts.3.up_proj.weight` is missing",
        ),
    ] {
        assert!(text.contains(expected), "{text}: {expected}");
    }
}

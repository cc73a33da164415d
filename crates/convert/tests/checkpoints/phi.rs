//! Phi-3: a decoder whose queries, keys and values are one matrix, as are its gate and its widening, and whose heads turn by
//! factors.

use serde_json::json;

use crate::fixture::{Array, Checkpoint};
use crate::reference::{BLOCKS, Decoder, decoders};

/// Shorter than any context that is tried, so that the factors for long texts count.
const ORIGINAL: usize = 64;

/// What it computes.
pub fn decoder() -> Decoder {
    let long: Vec<f64> = (0..4).map(|pair| 1.0 + 0.5 * f64::from(pair)).collect();
    Decoder {
        class: "Phi3ForCausalLM",
        model_type: "phi3",
        extra: json!({
            "original_max_position_embeddings": ORIGINAL, "sliding_window": 512,
            "rope_scaling": {"type": "longrope", "long_factor": long, "short_factor": [1.0, 1.0, 1.0, 1.0]},
        }),
        ..decoders().remove(0)
    }
}

/// Its checkpoint with one matrix for each that it computes with, and as it is saved.
pub fn checkpoints() -> (Checkpoint, Checkpoint) {
    let plain = decoder().checkpoint();
    let mut fused = plain.clone();
    for block in 0..BLOCKS {
        for (parts, whole) in [
            (&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] as &[&str], "self_attn.qkv_proj"),
            (&["mlp.gate_proj", "mlp.up_proj"], "mlp.gate_up_proj"),
        ] {
            let name = |part: &str| format!("model.layers.{block}.{part}.weight");
            let parts: Vec<Array> =
                parts.iter().map(|part| fused.tensors.remove(&name(part)).unwrap()).collect();
            let shape = vec![parts.iter().map(|part| part.shape[0]).sum(), parts[0].shape[1]];
            let values = parts.into_iter().flat_map(|part| part.values).collect();
            fused.tensors.insert(name(whole), Array { shape, values });
        }
    }
    (plain, fused)
}

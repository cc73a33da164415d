//! What files of one family can get wrong: refusals that name the key or the tensor.

use gguf::Value;

use crate::engines::{load, options};
use crate::refusals::{changed, refused};
use crate::runs::named;
use crate::synthetic::tokens;

/// What a model says when `key` has another value, or none.
fn with_key(model: &str, key: &str, value: Option<Value>) -> String {
    refused(&changed(&named(model), &[(key, value)], |_, _| true))
}

#[test]
fn counts_of_experts_that_lie_are_named() {
    let cases: [(&str, &str, Option<Value>, &str); 9] = [
        ("llama-experts", "llama.expert_count", Some(2000u32.into()), "must be between 1 and 1024, got 2000"),
        ("llama-experts", "llama.expert_used_count", Some(6u32.into()), "must be between 1 and 5, got 6"),
        ("llama-experts", "llama.expert_used_count", Some(0u32.into()), "must be between 1 and 5, got 0"),
        ("llama-experts", "llama.expert_used_count", None, "is missing"),
        ("qwen3moe", "qwen3moe.expert_count", None, "is missing"),
        ("qwen2", "qwen2.expert_count", Some(8u32.into()), "are not known in this architecture, got 8"),
        (
            "qwen3moe",
            "qwen3moe.expert_group_count",
            Some(2u32.into()),
            "groups of experts are not supported, got 2",
        ),
        (
            "qwen3moe",
            "qwen3moe.expert_gating_func",
            Some(2u32.into()),
            "other than softmax are not supported, got 2",
        ),
        (
            "qwen3moe",
            "qwen3moe.expert_feed_forward_length",
            Some(0u32.into()),
            "between 1 and 1048576, got 0",
        ),
    ];
    for (model, key, value, problem) in cases {
        let text = with_key(model, key, value);
        assert!(text.contains(&format!("`{key}`")) && text.contains(problem), "{text}");
    }
}

#[test]
fn tensors_of_experts_that_are_missing_or_misshapen_are_named() {
    let without = |model: &str, name: &'static str| {
        refused(&changed(&named(model), &[], |tensor, _| tensor.name != name))
    };
    for (model, name) in [
        ("llama-experts", "blk.1.ffn_gate_inp.weight"),
        ("llama-experts", "blk.0.ffn_down_exps.weight"),
        ("qwen2moe", "blk.1.ffn_gate_shexp.weight"),
    ] {
        assert_eq!(without(model, name), format!("tensor `{name}` is missing"));
    }
    let text = with_key("llama-experts", "llama.expert_count", Some(4u32.into()));
    assert_eq!(text, "tensor `blk.0.ffn_gate_inp.weight` must have shape [64, 4], got [64, 5]");
    let text = with_key("qwen3moe", "qwen3moe.expert_feed_forward_length", Some(32u32.into()));
    assert_eq!(text, "tensor `blk.0.ffn_gate_exps.weight` must have shape [64, 32, 6], got [64, 96, 6]");
}

#[test]
fn a_router_of_nan_breaks_its_block_and_nothing_else() {
    let model = named("qwen3moe");
    let broken = changed(&model, &[], |tensor, data| {
        if tensor.name == "blk.1.ffn_gate_inp.weight" {
            data[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        true
    });
    let error = load(&broken, options(1, 16)).unwrap().logits(&tokens(5)).unwrap_err().to_string();
    assert!(error.starts_with("what block 1 (`blk.1`) computed is not a finite number"), "{error}");
}

#[test]
fn norms_that_take_the_mean_away_are_checked_like_any_other() {
    let without = |model: &str, name: &'static str| {
        refused(&changed(&named(model), &[], |tensor, _| tensor.name != name))
    };
    assert_eq!(without("phi2", "blk.1.attn_norm.weight"), "tensor `blk.1.attn_norm.weight` is missing");
    assert_eq!(without("stablelm", "output_norm.weight"), "tensor `output_norm.weight` is missing");
    let broken = changed(&named("phi2"), &[], |tensor, data| {
        if tensor.name == "output_norm.bias" {
            data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        }
        true
    });
    assert!(refused(&broken).starts_with("tensor `output_norm.bias` is not a finite number"));
    let text = with_key("phi2", "phi2.attention.layer_norm_epsilon", Some((-1f32).into()));
    assert!(text.contains("`phi2.attention.layer_norm_epsilon`: must be a finite number above 0, got -1"));
    // A norm of another kind has no bias; one that is there would be left out.
    let renamed = changed(&named("qwen2"), &[], |tensor, data| {
        if tensor.name == "blk.0.attn_q.bias" {
            tensor.name = "blk.0.attn_norm.bias".to_owned();
            data.truncate(64 * 4);
        }
        true
    });
    assert!(refused(&renamed).starts_with("tensor `blk.0.attn_norm.bias` is unknown in architecture"));
}

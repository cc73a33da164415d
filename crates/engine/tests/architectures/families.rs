//! What files of one family can get wrong, and what is refused of them: the key or the tensor is named.

use candle_core::quantized::GgmlDType;
use engine::{Engine, Error};
use gguf::{Gguf, Value};

use crate::engines::{greedy, load, options};
use crate::refusals::{changed, refused};
use crate::runs::named;
use crate::synthetic::tokens;

/// What a model says when `key` has another value, or none.
fn with_key(model: &str, key: &str, value: Option<Value>) -> String {
    refused(&changed(&named(model), &[(key, value)], |_, _| true))
}

/// What a model says when it lacks the tensor `name`.
fn without(model: &str, name: &str) -> String {
    refused(&changed(&named(model), &[], |tensor, _| tensor.name != name))
}

/// A model with all values of the tensor `name` as large as a float can be.
fn overflowing(model: &str, name: &str) -> Vec<u8> {
    changed(&named(model), &[], |tensor, data| {
        if tensor.name == name {
            data.as_chunks_mut().0.fill(f32::MAX.to_le_bytes());
        }
        true
    })
}

/// The file of a model with one value of the tensor `name` replaced.
fn poisoned(model: &str, name: &str, value: f32) -> Vec<u8> {
    changed(&named(model), &[], |tensor, data| {
        if tensor.name == name {
            data[40..44].copy_from_slice(&value.to_le_bytes());
        }
        true
    })
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
fn a_router_that_overflows_breaks_its_block_and_nothing_else() {
    let broken = overflowing("qwen3moe", "blk.1.ffn_gate_inp.weight");
    let error = load(&broken, options(1, 16)).unwrap().logits(&tokens(5)).unwrap_err().to_string();
    assert!(error.starts_with("what block 1 (`blk.1`) computed is not a finite number"), "{error}");
}

#[test]
fn patterns_of_windows_that_lie_are_named() {
    let cases: [(Value, &str); 4] = [
        (0u32.into(), "must be between 1 and 1024, got 0"),
        (vec![true; 6].into(), "must have an entry for each of the 7 blocks, got 6"),
        (vec![1u32; 7].into(), "must be a number or an array of bool, got one of"),
        ("all".into(), "integer"),
    ];
    for (pattern, problem) in cases {
        let text = with_key("gemma3", "gemma3.attention.sliding_window_pattern", Some(pattern));
        assert!(
            text.contains("`gemma3.attention.sliding_window_pattern`") && text.contains(problem),
            "{text}"
        );
    }
}

#[test]
fn norms_that_take_the_mean_away_are_checked_like_any_other() {
    assert_eq!(without("phi2", "blk.1.attn_norm.weight"), "tensor `blk.1.attn_norm.weight` is missing");
    assert_eq!(without("stablelm", "output_norm.weight"), "tensor `output_norm.weight` is missing");
    let broken = poisoned("phi2", "output_norm.bias", f32::INFINITY);
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

#[test]
fn what_an_embedder_lacks_is_named() {
    for name in [
        "position_embd.weight",
        "token_embd_norm.weight",
        "blk.0.attn_output_norm.weight",
        "blk.1.layer_output_norm.weight",
        "blk.1.ffn_up.weight",
    ] {
        assert_eq!(without("bert", name), format!("tensor `{name}` is missing"));
    }
    let text = with_key("bert", "bert.context_length", Some(80u32.into()));
    assert_eq!(text, "tensor `position_embd.weight` must have shape [64, 80], got [64, 64]");
    let text = with_key("bert", "bert.pooling_type", Some(5u32.into()));
    assert!(text.contains("`bert.pooling_type`: must be between 0 and 4, got 5"), "{text}");
    let text = with_key("bert", "bert.attention.causal", Some(1u32.into()));
    assert!(text.contains("`bert.attention.causal`"), "{text}");
    let text = with_key("gemma3", "gemma3.attention.causal", Some(false.into()));
    assert!(
        text.contains("`gemma3.attention.causal`: must be true in a model with sliding windows"),
        "{text}"
    );
    for name in ["token_types.weight", "position_embd.weight", "token_embd_norm.bias"] {
        let text = refused(&poisoned("bert", name, f32::NAN));
        assert!(text.starts_with(&format!("tensor `{name}` is not a finite number")), "{text}");
    }
}

#[test]
fn an_embedder_makes_vectors_of_what_it_can_see_at_once_and_nothing_else() {
    for name in ["bert", "nomic-bert", "qwen3-last"] {
        let mut engine = load(&named(name).bytes(GgmlDType::F32), options(2, 16)).unwrap();
        let error = engine.admit(greedy(1, tokens(5), 5)).unwrap_err();
        assert_eq!(error.to_string(), "this model cannot generate text, it makes embeddings");
        assert!(engine.is_idle() && engine.embed(&[tokens(64)]).is_ok());
        let error = Error::PromptTooLong { tokens: 65, context_length: 64 };
        assert_eq!(engine.embed(&[tokens(65)]), Err(error));
    }
    let mut bert = load(&named("bert").bytes(GgmlDType::F32), options(1, 16)).unwrap();
    assert_eq!(bert.logits(&tokens(3)), Err(Error::Unsupported { what: "score tokens" }));
}

#[test]
fn a_reranker_needs_its_head_and_others_rank_nothing() {
    assert_eq!(without("bert-dense", "cls.weight"), "tensor `cls.output.weight` is missing");
    let text = refused(&poisoned("bert-rank", "cls.weight", f32::NAN));
    assert!(text.starts_with("tensor `cls.weight` is not a finite number"), "{text}");
    for name in ["bert", "llama"] {
        let mut engine = load(&named(name).bytes(GgmlDType::F32), options(1, 16)).unwrap();
        let text = engine.rank(&[tokens(5)]).unwrap_err().to_string();
        assert_eq!(text, "this model cannot rank documents");
    }
    let mut engine = load(&named("bert-rank").bytes(GgmlDType::F32), options(1, 16)).unwrap();
    assert_eq!(engine.rank(&[]), Ok(vec![]));
    assert_eq!(engine.rank(&[tokens(5), vec![]]), Err(Error::EmptyPrompt));
    let error = Error::PromptTooLong { tokens: 65, context_length: 64 };
    assert_eq!(engine.rank(&[tokens(65)]), Err(error));
    let broken = overflowing("bert-rank", "cls.output.weight");
    let text = load(&broken, options(1, 16)).unwrap().rank(&[tokens(5)]).unwrap_err().to_string();
    assert!(text.starts_with("what the classification head (`cls`) computed is not a finite"), "{text}");
}

#[test]
fn a_classifier_of_many_labels_is_no_reranker() {
    let bytes = changed(&named("qwen3-rank"), &[("qwen3.pooling_type", Some(3u32.into()))], |_, _| true);
    assert_eq!(
        refused(&bytes),
        "tensor `cls.output.weight` is unknown in architecture \"qwen3\"; without it the model would be wrong"
    );
}

#[test]
fn an_embedder_that_overflows_names_the_block() {
    let broken = overflowing("nomic-bert", "blk.1.ffn_gate.weight");
    let error = load(&broken, options(1, 16)).unwrap().embed(&[tokens(5)]).unwrap_err().to_string();
    assert!(error.starts_with("what block 1 (`blk.1`) computed is not a finite number"), "{error}");
}

#[test]
fn the_memory_of_an_embedder_is_for_inputs_as_long_as_its_context() {
    let estimate = |name: &str, chunk| {
        let bytes = named(name).bytes(GgmlDType::F32);
        engine::estimate(&Gguf::parse(&bytes).unwrap(), &options(1, chunk)).unwrap().scratch_bytes
    };
    assert_eq!(estimate("bert", 1), estimate("bert", 64));
    assert!(estimate("llama", 1) < estimate("llama", 64));
    assert!(estimate("llama-experts", 64) > estimate("llama", 64));
}

//! What a GGUF header says, and what is refused about it.

use gguf::{TensorType, Value, Writer};

use super::*;

/// A file of `architecture` that says just enough, and what `keys` add or replace.
fn spec(architecture: &str, keys: &[(&str, Value)]) -> Spec {
    let mut all: Vec<(&str, Value)> = vec![
        ("block_count", 12u32.into()),
        ("context_length", 8192u32.into()),
        ("embedding_length", 128u32.into()),
        ("feed_forward_length", 256u32.into()),
        ("attention.head_count", 8u32.into()),
    ];
    all.retain(|(key, _)| keys.iter().all(|(other, _)| other != key));
    all.extend(keys.iter().cloned());
    let mut writer = Writer::new();
    writer.metadata("general.architecture", architecture).unwrap();
    for (key, value) in all {
        writer.metadata(format!("{architecture}.{key}"), value).unwrap();
    }
    writer.tensor("token_embd.weight", &[128, 3], TensorType::F16, vec![0; 768]).unwrap();
    Spec::read(&Gguf::parse(&writer.to_bytes().unwrap()).unwrap()).unwrap()
}

#[test]
fn what_a_file_leaves_out_is_derived() {
    let spec = spec("llama", &[]);
    assert_eq!((spec.heads.kv_count, spec.heads.key_dim, spec.heads.value_dim), (8, 16, 16));
    assert_eq!((spec.vocab_size, spec.rope.dims, spec.epsilon), (3, 16, 1e-5));
    assert_eq!((spec.heads.scale, spec.embedding_scale), (0.25, 1.0));
    assert_eq!(spec.original_context_length, 8192);
}

#[test]
fn the_last_block_of_each_period_sees_everything() {
    let window = ("attention.sliding_window", 512u32.into());
    let gemma3 = spec("gemma3", std::slice::from_ref(&window));
    let global: Vec<usize> = (0..12).filter(|&block| gemma3.heads(block).window.is_none()).collect();
    assert_eq!(global, [5, 11]);
    assert_eq!(gemma3.heads(0).window, Some(512));
    assert_eq!(gemma3.local_rope.unwrap().frequencies(None)[1], 10_000f32.powf(-0.125));
    let gemma2 = spec("gemma2", &[]);
    assert_eq!((gemma2.heads(0).window, gemma2.heads(1).window), (Some(4096), None));
    assert!(gemma2.local_rope.is_none());
    assert!(spec("gemma3", &[]).heads(0).window.is_none(), "no window, no local blocks");
    assert!(spec("phi3", &[window]).heads(0).window.is_none());
}

#[test]
fn a_file_may_say_how_windows_are_spread() {
    let window = ("attention.sliding_window", 512u32.into());
    let local = |pattern: Value| {
        let spec = spec("gemma3", &[window.clone(), ("attention.sliding_window_pattern", pattern)]);
        (0..12).filter(|&block| spec.is_local(block)).collect::<Vec<_>>()
    };
    assert_eq!(local(3u32.into()), [0, 1, 3, 4, 6, 7, 9, 10]);
    assert!(local(1u32.into()).is_empty());
    let listed: Vec<bool> = (0..12).map(|block| block == 7).collect();
    assert_eq!(local(listed.into()), [7]);
}

#[test]
fn the_widest_gemmas_scale_their_queries_by_the_width() {
    let keys = |blocks: u32| [("block_count", blocks.into()), ("attention.key_length", 64u32.into())];
    assert_eq!(spec("gemma3", &keys(34)).heads.scale, 1.0 / 8.0);
    assert_eq!(spec("gemma3", &keys(62)).heads.scale, 1.0 / 4.0);
    assert_eq!(spec("gemma2", &keys(46)).heads.scale, 1.0 / 4.0);
}

#[test]
fn soft_caps_come_from_the_file_or_the_row() {
    let gemma2 = spec("gemma2", &[("final_logit_softcapping", 20f32.into())]);
    assert_eq!((gemma2.heads.soft_cap, gemma2.output_soft_cap), (Some(50.0), Some(20.0)));
    let llama = spec("llama", &[]);
    assert_eq!((llama.heads.soft_cap, llama.output_soft_cap), (None, None));
}

#[test]
fn no_experts_and_no_pooling_are_written_as_zero() {
    let spec = spec("llama", &[("expert_count", 0u32.into()), ("pooling_type", 0u32.into())]);
    assert_eq!(spec.pooling, None);
}

//! Files and options that no engine can be loaded with: each refusal names what is wrong, its bound and its value.

use candle_core::quantized::GgmlDType;
use engine::{CandleEngine, Engine, Error, Event, LoadOptions, Tier, estimate, is_supported};
use gguf::{Gguf, Tensor, TensorType, Value, Writer};
use proptest::prelude::*;

use crate::engines::{greedy, load, options};
use crate::runs::named;
use crate::synthetic::{Model, embedders, models, tokens};

fn llama() -> Model {
    models().remove(0)
}

/// The file of `model` with keys set or, where there is no value, taken out, and each tensor changed or dropped.
pub fn changed(
    model: &Model,
    keys: &[(&str, Option<Value>)],
    tensor: impl Fn(&mut Tensor, &mut Vec<u8>) -> bool,
) -> Vec<u8> {
    let bytes = model.bytes(GgmlDType::F32);
    let gguf = Gguf::parse(&bytes).expect("a valid file");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata.iter().filter(|(key, _)| keys.iter().all(|(name, _)| name != key)) {
        writer.metadata(key, value.clone()).expect("keys are unique");
    }
    for (key, value) in keys {
        if let Some(value) = value {
            writer.metadata(*key, value.clone()).expect("keys are unique");
        }
    }
    for found in &gguf.tensors {
        let start = (gguf.data_offset + found.offset) as usize;
        let mut data = bytes[start..start + found.bytes as usize].to_vec();
        let mut found = found.clone();
        if tensor(&mut found, &mut data) {
            writer.tensor(found.name, &found.shape, found.kind, data).expect("bytes fit");
        }
    }
    writer.to_bytes().expect("write to memory")
}

pub fn refused(bytes: &[u8]) -> String {
    load(bytes, options(1, 16)).err().expect("it is refused").to_string()
}

fn with_key(key: &str, value: impl Into<Value>) -> String {
    refused(&changed(&llama(), &[(key, Some(value.into()))], |_, _| true))
}

#[test]
fn an_unknown_architecture_is_named_with_the_known_ones() {
    let text = with_key("general.architecture", "mamba");
    assert!(text.starts_with("unsupported architecture \"mamba\"; supported: llama, "), "{text}");
    assert!(is_supported("gemma3") && !is_supported("mamba"));
}

#[test]
fn keys_that_lie_are_named_with_their_bound_and_value() {
    let cases = [
        ("llama.block_count", 0u32, "between 1 and 1024, got 0"),
        ("llama.block_count", 4_000_000_000, "between 1 and 1024, got 4000000000"),
        ("llama.embedding_length", 0, "between 1 and 1048576, got 0"),
        ("llama.context_length", 0, "between 1 and"),
        ("llama.feed_forward_length", u32::MAX, "got 4294967295"),
        ("llama.attention.head_count", 0, "between 1 and 64, got 0"),
        ("llama.attention.head_count", 7, "must divide"),
        ("llama.attention.head_count_kv", 3, "must divide the 4 heads, got 3"),
        ("llama.attention.head_count_kv", 5, "between 1 and 4, got 5"),
        ("llama.rope.dimension_count", 7, "must be even, got 7"),
        ("llama.rope.dimension_count", 18, "between 1 and 16, got 18"),
        ("llama.expert_count", 2000, "between 1 and 1024, got 2000"),
        ("llama.pooling_type", 5, "between 0 and 4, got 5"),
    ];
    for (key, value, problem) in cases {
        let text = with_key(key, value);
        assert!(text.contains(key) && text.contains(problem), "{key} = {value}: {text}");
    }
    let epsilon = with_key("llama.attention.layer_norm_rms_epsilon", f32::NAN);
    assert!(epsilon.contains("must be a finite number above 0, got NaN"), "{epsilon}");
    let scaling = with_key("llama.rope.scaling.type", "su");
    assert!(
        scaling.contains("`llama.rope.scaling.type`: must be none, linear, yarn or longrope, got \"su\"")
    );
    let missing = refused(&changed(&llama(), &[("llama.block_count", None)], |_, _| true));
    assert_eq!(missing, "model key `llama.block_count`: is missing");
    let kind = with_key("llama.block_count", "two");
    assert!(kind.contains("`llama.block_count`") && kind.contains("integer"), "{kind}");
}

#[test]
fn tensors_that_are_missing_misshapen_or_unknown_are_named() {
    let without = |name: &'static str| refused(&changed(&llama(), &[], |tensor, _| tensor.name != name));
    for name in [
        "token_embd.weight",
        "blk.1.attn_k.weight",
        "blk.0.ffn_down.weight",
        "blk.1.attn_norm.weight",
        "blk.0.ffn_norm.weight",
        "output_norm.weight",
    ] {
        assert_eq!(without(name), format!("tensor `{name}` is missing"));
    }
    let mut wide = llama();
    wide.inner = 128;
    let keys = [("llama.feed_forward_length", Some(96u32.into()))];
    let text = refused(&changed(&wide, &keys, |_, _| true));
    assert_eq!(text, "tensor `blk.0.ffn_gate.weight` must have shape [64, 96], got [64, 128]");
    let renamed = changed(&named("gemma2"), &[], |tensor, _| {
        if tensor.name == "blk.0.post_ffw_norm.weight" {
            tensor.name = "blk.0.post_ffw_norm.weird".to_owned();
        }
        true
    });
    let unknown = "tensor `blk.0.post_ffw_norm.weird` is unknown in architecture \"gemma2\"";
    assert!(refused(&renamed).starts_with(unknown));
}

#[test]
fn types_without_a_kernel_are_named_with_those_that_have_one() {
    let exotic = changed(&llama(), &[], |tensor, data| {
        if tensor.name == "blk.1.ffn_up.weight" {
            tensor.kind = TensorType::IQ4_NL;
            *data = vec![0; 64 * 96 / 32 * 18];
        }
        true
    });
    let text = refused(&exotic);
    assert!(text.starts_with("tensor `blk.1.ffn_up.weight` has type IQ4_NL, supported: F32, "), "{text}");
    let quantized_norm = changed(&llama(), &[], |tensor, data| {
        if tensor.name == "blk.1.ffn_norm.weight" {
            tensor.kind = TensorType::Q8_0;
            *data = vec![0; 64 / 32 * 34];
        }
        true
    });
    assert!(refused(&quantized_norm).ends_with("has type Q8_0, supported: F32, F16, BF16"));
}

#[test]
fn a_vocabulary_of_another_size_than_the_embedding_is_refused() {
    let keys = [("tokenizer.ggml.tokens", Some(vec!["a".to_owned(); 3].into()))];
    let keys = [
        &keys[..],
        &[
            ("tokenizer.ggml.scores", Some(vec![0f32; 3].into())),
            ("tokenizer.ggml.token_type", Some(vec![1i32; 3].into())),
        ],
    ]
    .concat();
    let text = refused(&changed(&llama(), &keys, |_, _| true));
    assert_eq!(text, "tensor `token_embd.weight` must have shape [64, 3], got [64, 288]");
}

/// The model with one value of `name` replaced.
fn poisoned(name: &str, value: f32) -> Vec<u8> {
    changed(&llama(), &[], |tensor, data| {
        if tensor.name == name {
            data[20..24].copy_from_slice(&value.to_le_bytes());
        }
        true
    })
}

/// The model with all values of `name` as large as a float can be.
fn overflowing(name: &str) -> Vec<u8> {
    changed(&llama(), &[], |tensor, data| {
        if tensor.name == name {
            data.as_chunks_mut().0.fill(f32::MAX.to_le_bytes());
        }
        true
    })
}

#[test]
fn a_norm_that_is_not_finite_is_found_at_load() {
    let text = refused(&poisoned("blk.0.attn_norm.weight", f32::NAN));
    assert!(text.starts_with("tensor `blk.0.attn_norm.weight` is not a finite number"), "{text}");
    let factors = refused(&poisoned("rope_freqs.weight", f32::INFINITY));
    assert!(factors.starts_with("tensor `rope_freqs.weight`"), "{factors}");
}

#[test]
fn a_weight_that_is_not_finite_is_found_at_load() {
    for name in ["blk.1.ffn_down.weight", "blk.0.attn_v.weight", "output.weight", "token_embd.weight"] {
        let text = refused(&poisoned(name, f32::NAN));
        assert!(text.starts_with(&format!("tensor `{name}` is not a finite number")), "{text}");
    }
}

#[test]
fn numbers_that_break_in_a_step_end_the_sequence_and_name_the_block() {
    for (name, what) in [
        ("blk.1.ffn_norm.weight", "what block 1 (`blk.1`) computed"),
        ("blk.0.attn_norm.weight", "what block 0 (`blk.0`) computed"),
        ("output_norm.weight", "what the language head (`output`) computed"),
    ] {
        let mut engine = load(&overflowing(name), options(1, 4)).unwrap();
        engine.admit(greedy(1, tokens(10), 5)).unwrap();
        let mut events = Vec::new();
        while !engine.is_idle() {
            events.extend(engine.step().unwrap());
        }
        let error = Error::NotFinite { what: what.to_owned() };
        assert_eq!(events.last(), Some(&Event::Failed { id: 1, error: error.clone() }), "{name}");
        assert_eq!(engine.logits(&tokens(3)), Err(error));
        engine.admit(greedy(2, tokens(10), 5)).unwrap();
    }
}

#[test]
fn options_out_of_bounds_are_named() {
    let bytes = llama().bytes(GgmlDType::F32);
    let cases = [
        (LoadOptions { slots: 0, ..options(1, 16) }, "`slots` must be between 1 and 1024, got 0"),
        (LoadOptions { slots: 2000, ..options(1, 16) }, "`slots` must be between 1 and 1024, got 2000"),
        (
            LoadOptions { context_length: 0, ..options(1, 16) },
            "`context_length` must be between 1 and 67108864, got 0",
        ),
        (LoadOptions { threads: 0, ..options(1, 16) }, "`threads` must be between 1 and 1024, got 0"),
        (
            LoadOptions { prefill_chunk: 0, ..options(1, 16) },
            "`prefill_chunk` must be between 1 and 16384, got 0",
        ),
    ];
    for (options, text) in cases {
        let error = load(&bytes, options.clone()).err().expect("it is refused");
        assert_eq!(error.to_string(), text);
        assert_eq!(estimate(&Gguf::parse(&bytes).unwrap(), &options), Err(error));
    }
    if let Some(tier) = Tier::ALL.into_iter().find(|tier| !tier.is_available()) {
        let error =
            load(&bytes, LoadOptions { tier: Some(tier), ..options(1, 16) }).err().expect("it is refused");
        assert_eq!(error.to_string(), format!("compute: this processor has no {} instructions", tier.name()));
    }
}

#[test]
fn inputs_that_cannot_be_embedded_are_refused() {
    let mut engine = load(&llama().bytes(GgmlDType::F32), options(1, 16)).unwrap();
    assert_eq!(engine.embed(&[vec![1], vec![]]), Err(Error::EmptyPrompt));
    assert_eq!(engine.embed(&[vec![288]]), Err(Error::TokenOutOfRange { token: 288, vocab_size: 288 }));
    let error = Error::PromptTooLong { tokens: 65, context_length: 64 };
    assert_eq!(engine.embed(&[vec![1; 65]]), Err(error));
    assert_eq!(engine.embed(&[]), Ok(vec![]));
}

#[test]
fn a_load_can_be_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, llama().bytes(GgmlDType::F32)).unwrap();
    let file = gguf::File::open(&path).unwrap();
    let mut seen = Vec::new();
    let result = CandleEngine::load(&file, options(1, 16), &mut |fraction| {
        seen.push(fraction);
        if fraction > 0.5 { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
    });
    assert_eq!(result.err(), Some(Error::GivenUp));
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    assert!(seen.iter().filter(|&&fraction| fraction > 0.5).count() == 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn a_damaged_file_is_refused_or_runs_but_never_panics(
        at in 0.0f64..1.0, bytes in prop::collection::vec(any::<u8>(), 1..9), header in any::<bool>(),
        model in prop::sample::select(models().into_iter().chain(embedders()).collect::<Vec<_>>()),
    ) {
        let mut file = model.bytes(GgmlDType::Q4_0);
        let end = if header { Gguf::parse(&file).unwrap().data_offset as usize } else { file.len() };
        let at = (at * (end - bytes.len()) as f64) as usize;
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        if let Ok(mut engine) = load(&file, LoadOptions { threads: 1, ..options(1, 16) }) {
            let _ = engine.logits(&tokens(5));
            let _ = engine.embed(&[tokens(5)]);
        }
    }
}

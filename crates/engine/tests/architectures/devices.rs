//! The transformer where candle computes, run on candle's own back-end for processors, because a GPU is not at hand:
//! near the figures of our own kernels, alone and together, whole and in chunks. Not the same bits.

use candle_core::quantized::GgmlDType as Kind;
use engine::{CandleEngine, Device, Engine, Error, Event, KvType, LoadOptions, Pooling, Sequence, estimate};
use gguf::Gguf;
use proptest::prelude::*;

use crate::engines::{drain, greedy, load, options};
use crate::refusals::changed;
use crate::runs::{KINDS, distance, named};
use crate::synthetic::{Model, embedders, models, tokens};

/// Logits go to ±8 here. What differs is the order of sums, and then, rarely, how a key or value is rounded.
const TOLERANCE: f32 = 0.005;

fn device(slots: usize, prefill_chunk: usize) -> LoadOptions {
    LoadOptions { device: Device::CandleCpu, ..options(slots, prefill_chunk) }
}

fn logits(bytes: &[u8], options: LoadOptions) -> Vec<Vec<f32>> {
    load(bytes, options).expect("a model").logits(&tokens(48)).expect("logits")
}

fn furthest(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |furthest, next| if next > furthest { next } else { furthest })
}

#[test]
fn a_prompt_gives_nearly_the_same_whole_and_in_chunks() {
    for model in models() {
        let bytes = model.bytes(Kind::F32);
        let whole = logits(&bytes, device(1, 64));
        assert!(whole.iter().flatten().all(|value| value.is_finite()));
        for chunk in [1, 7, 33] {
            let off = furthest(&whole, &logits(&bytes, device(1, chunk)));
            assert!(off < TOLERANCE, "{} in chunks of {chunk}: {off}", model.name);
        }
    }
}

#[test]
fn sequences_say_the_same_alone_and_together_as_on_the_processor() {
    for model in models() {
        let bytes = model.bytes(Kind::F32);
        let prompts: Vec<Vec<u32>> = (0..5).map(|at| tokens(40)[at * 3..at * 7 + 2].to_vec()).collect();
        let admit = |engine: &mut CandleEngine| {
            for (id, prompt) in prompts.iter().enumerate() {
                engine.admit(greedy(id as u64, prompt.clone(), 12)).unwrap();
            }
        };
        let mut together = load(&bytes, device(5, 8)).unwrap();
        let mut ours = load(&bytes, options(5, 8)).unwrap();
        admit(&mut together);
        admit(&mut ours);
        let (told, expected) = (drain(&mut together), drain(&mut ours));
        assert_eq!(told, expected, "{}", model.name);
        let mut alone = load(&bytes, device(1, 64)).unwrap();
        alone.admit(greedy(3, prompts[3].clone(), 12)).unwrap();
        assert_eq!(drain(&mut alone)[&3], told[&3], "{}", model.name);
    }
}

#[test]
fn every_type_of_weights_is_near_our_own_kernels() {
    let model = Model { blocks: 1, width: 256, inner: 256, head_dim: 64, ..named("llama") };
    for kind in KINDS {
        let bytes = model.bytes(kind);
        let ours = logits(&bytes, options(1, 64));
        let spread = distance(&ours, &vec![vec![0.0; ours[0].len()]; ours.len()]);
        let off = distance(&ours, &logits(&bytes, device(1, 64))) / spread;
        // Both quantize what they multiply with, each in its own way; some of candle's by 256 values, ours by 32.
        assert!(off < 0.06, "{kind:?} is {off} off");
    }
}

#[test]
fn a_sequence_that_breaks_ends_alone_and_names_the_block() {
    // As large as is finite until it is scaled.
    let broken = changed(&named("gemma"), &[], |tensor, data| {
        if tensor.name == "token_embd.weight" {
            data[100 * 64 * 4..][..4].copy_from_slice(&1e38f32.to_le_bytes());
        }
        true
    });
    for options in [device(2, 64), options(2, 64)] {
        let mut engine = load(&broken, options).unwrap();
        engine.admit(greedy(1, vec![5, 6, 100, 7], 5)).unwrap();
        engine.admit(greedy(2, vec![5, 6, 101, 7], 1)).unwrap();
        let mut events = Vec::new();
        while !engine.is_idle() {
            events.extend(engine.step().unwrap());
        }
        let what = "what block 0 (`blk.0`) computed".to_owned();
        assert!(events.contains(&Event::Failed { id: 1, error: Error::NotFinite { what } }), "{events:?}");
        assert!(events.iter().any(|event| matches!(event, Event::Token { id: 2, .. })), "{events:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::Failed { id: 2, .. })), "{events:?}");
    }
}

#[test]
fn sequences_are_shifted_and_computed_again_as_on_the_processor() {
    let bytes = named("gemma3").bytes(Kind::F32);
    let run = |options: LoadOptions| {
        // Pages for one and a half: the younger one is computed again.
        let full = estimate(&Gguf::parse(&bytes).unwrap(), &options).unwrap().kv_bytes;
        let mut engine = load(&bytes, LoadOptions { kv_bytes: Some(full / 4 * 3), ..options }).unwrap();
        for id in 0..2 {
            engine
                .admit(Sequence {
                    shift: true,
                    keep: 4,
                    ..greedy(id, tokens(50)[id as usize..].to_vec(), 40)
                })
                .unwrap();
        }
        drain(&mut engine)
    };
    assert_eq!(run(device(2, 16)), run(options(2, 16)));
}

#[test]
fn a_language_model_makes_embeddings() {
    let mut model = named("qwen3");
    model.keys.push(("pooling_type", 3u32.into()));
    let bytes = model.bytes(Kind::F32);
    let inputs = [tokens(20), tokens(1)];
    let mut engine = load(&bytes, device(1, 16)).unwrap();
    assert_eq!(engine.info().pooling, Some(Pooling::Last));
    let ours = load(&bytes, options(1, 16)).unwrap().embed(&inputs).unwrap();
    let off = furthest(&engine.embed(&inputs).unwrap(), &ours);
    assert!(off < TOLERANCE, "{off}");
}

#[test]
fn what_a_device_cannot_do_is_said() {
    let bytes = named("llama").bytes(Kind::F32);
    let refused = |options| load(&bytes, options).err().expect("it is refused").to_string();
    let text = refused(LoadOptions { kv_type: KvType::Q8_0, ..device(1, 16) });
    assert_eq!(text, "this model cannot keep its KV cache as bytes on a GPU yet");
    let text = refused(LoadOptions { device: Device::Cuda(4_000), ..options(1, 16) });
    let expected = match Device::HAS_CUDA {
        false => "`device` must be cpu, this build has no CUDA, got cuda:4000",
        true => "`device` must be a GPU that is there, got cuda:4000",
    };
    assert_eq!(text, expected);
}

#[test]
fn weights_stay_as_they_are_on_a_device() {
    let bytes = named("llama").bytes(Kind::Q4_0);
    let gguf = Gguf::parse(&bytes).unwrap();
    let found = estimate(&gguf, &device(2, 16)).unwrap();
    assert_eq!(found.weights_bytes, gguf.tensors.iter().map(|tensor| tensor.bytes).sum::<u64>());
    // 2 slots of 2 pages of 32 positions; 2 blocks of 2 heads of 16 keys and as many values, in 2 bytes each.
    assert_eq!(found.kv_bytes, 2 * 2 * 32 * 2 * 2 * (16 + 16) * 2);
    assert_eq!(load(&bytes, device(2, 16)).unwrap().info().size_bytes, found.total_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_damaged_file_is_refused_or_runs_but_never_panics_on_a_device(
        at in 0.0f64..1.0, bytes in prop::collection::vec(any::<u8>(), 1..9), header in any::<bool>(),
        model in prop::sample::select(models().into_iter().chain(embedders()).collect::<Vec<_>>()),
    ) {
        let mut file = model.bytes(Kind::Q4_0);
        let end = if header { Gguf::parse(&file).unwrap().data_offset as usize } else { file.len() };
        let at = (at * (end - bytes.len()) as f64) as usize;
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        if let Ok(mut engine) = load(&file, device(1, 16)) {
            let _ = engine.logits(&tokens(5));
            let _ = engine.embed(&[tokens(5)]);
        }
    }
}

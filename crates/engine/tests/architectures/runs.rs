//! The same sequences alone and together, whole and in chunks, on every tier and for every type of weights: the same
//! tokens, and for logits the same bits.

use candle_core::quantized::GgmlDType as Kind;
use engine::{Engine, KvType, LoadOptions, Sampling, Sequence, Tier};

use crate::engines::{drain, greedy, load, options};
use crate::synthetic::{Model, embedders, models, rerankers, tokens};

pub const KINDS: [Kind; 13] = [
    Kind::F32,
    Kind::F16,
    Kind::BF16,
    Kind::Q4_0,
    Kind::Q4_1,
    Kind::Q5_0,
    Kind::Q5_1,
    Kind::Q8_0,
    Kind::Q2K,
    Kind::Q3K,
    Kind::Q4K,
    Kind::Q5K,
    Kind::Q6K,
];

pub fn named(name: &str) -> Model {
    [models(), embedders(), rerankers()]
        .concat()
        .into_iter()
        .find(|model| model.name == name)
        .expect("a model of that name")
}

#[test]
fn a_prompt_gives_the_same_bits_whole_and_in_chunks() {
    for model in models() {
        let bytes = model.bytes(Kind::Q4_1);
        let whole = load(&bytes, options(1, 64)).unwrap().logits(&tokens(48)).unwrap();
        assert!(whole.iter().flatten().all(|value| value.is_finite()));
        for chunk in [1, 7, 32] {
            let pieces = load(&bytes, options(1, chunk)).unwrap().logits(&tokens(48)).unwrap();
            assert!(pieces == whole, "{} in chunks of {chunk}", model.name);
        }
    }
}

#[test]
fn sequences_say_the_same_alone_and_together() {
    for model in models() {
        let bytes = model.bytes(Kind::Q8_0);
        let prompts: Vec<Vec<u32>> = (0..5).map(|at| tokens(40)[at * 3..at * 7 + 2].to_vec()).collect();
        let mut together = load(&bytes, options(5, 8)).unwrap();
        for (id, prompt) in prompts.iter().enumerate() {
            together.admit(greedy(id as u64, prompt.clone(), 20)).unwrap();
            together.step().unwrap();
        }
        let mut one = load(&bytes, options(1, 64)).unwrap();
        let mut alone = Vec::new();
        for (id, prompt) in prompts.into_iter().enumerate() {
            one.admit(greedy(id as u64, prompt, 20)).unwrap();
            alone.extend(drain(&mut one));
        }
        let told = drain(&mut together);
        for (id, alone) in alone {
            let together = &told[&id];
            assert!(alone.ends_with(together) && together.len() >= 15, "{} sequence {id}", model.name);
        }
    }
}

#[test]
fn every_type_of_weights_gives_the_same_bits_on_every_tier() {
    for name in ["llama", "llama-experts"] {
        let model = Model { blocks: 1, width: 256, inner: 256, head_dim: 64, ..named(name) };
        for kind in KINDS {
            check_tiers(&model, kind);
        }
    }
}

#[test]
fn every_row_gives_the_same_bits_on_every_tier() {
    for model in models() {
        check_tiers(&model, Kind::Q5_1);
    }
}

/// The logits of nine tokens on a tier, or on the best one.
fn run(model: &Model, kind: Kind, tier: Option<Tier>) -> Vec<Vec<f32>> {
    let mut engine =
        load(&model.bytes(kind), LoadOptions { tier, ..options(1, 64) }).expect("load the model");
    engine.logits(&tokens(9)).expect("run the tokens")
}

fn check_tiers(model: &Model, kind: Kind) {
    let scalar = run(model, kind, Some(Tier::Scalar));
    for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
        assert!(run(model, kind, Some(tier)) == scalar, "{} of {kind:?} on {tier:?}", model.name);
    }
}

#[test]
fn quantized_weights_stay_near_the_plain_ones() {
    check_nearness("llama");
    check_nearness("llama-experts");
}

fn check_nearness(name: &str) {
    let model = Model { blocks: 1, width: 256, inner: 256, head_dim: 64, ..named(name) };
    let logits = |kind| run(&model, kind, None);
    let plain = logits(Kind::F32);
    let spread = distance(&plain, &vec![vec![0.0; plain[0].len()]; plain.len()]);
    for (kind, bound) in
        [(Kind::F16, 0.01), (Kind::BF16, 0.01), (Kind::Q8_0, 0.02), (Kind::Q6K, 0.06), (Kind::Q4K, 0.25)]
    {
        let found = distance(&plain, &logits(kind)) / spread;
        assert!(found < bound, "{name} {kind:?} is {found} off");
    }
}

#[test]
fn bytes_in_the_kv_cache_stay_near_halves_and_are_the_same_on_every_tier() {
    let bytes = named("llama").bytes(Kind::F32);
    let logits = |kv_type, tier| {
        let options = LoadOptions { kv_type, tier: Some(tier), ..options(1, 64) };
        load(&bytes, options).unwrap().logits(&tokens(60)).unwrap()
    };
    let halves = logits(KvType::F16, Tier::Scalar);
    let scalar = logits(KvType::Q8_0, Tier::Scalar);
    for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
        assert!(logits(KvType::Q8_0, tier) == scalar, "{tier:?}");
    }
    let spread = distance(&halves, &vec![vec![0.0; halves[0].len()]; halves.len()]);
    let found = distance(&halves, &scalar) / spread;
    assert!(found > 0.0 && found < 0.02, "{found} off");
    let cost = |kv_type| {
        let options = LoadOptions { kv_type, ..options(2, 64) };
        engine::estimate(&gguf::Gguf::parse(&bytes).unwrap(), &options).unwrap().kv_bytes
    };
    assert!(cost(KvType::Q8_0) * 3 < cost(KvType::F16) * 2);
}

/// The root mean square of what is between them.
pub fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = || a.iter().flatten().zip(b.iter().flatten());
    (pairs().map(|(a, b)| (a - b).powi(2)).sum::<f32>() / pairs().count() as f32).sqrt()
}

#[test]
fn a_shifted_sequence_says_what_its_window_alone_would_say() {
    let mut engine = load(&named("llama").bytes(Kind::Q4_0), options(1, 16)).unwrap();
    engine.admit(Sequence { shift: true, keep: 4, ..greedy(1, tokens(30), 80) }).unwrap();
    let told = drain(&mut engine).remove(&1).unwrap();
    assert_eq!(told.len(), 80);
    // 30 + 35 tokens are one too many for 64 positions: 4 stay, 30 go.
    let window = [&tokens(30)[..4], &told[4..35]].concat();
    engine.admit(greedy(2, window, 29)).unwrap();
    assert_eq!(drain(&mut engine)[&2], told[35..64]);
}

#[test]
fn a_resumed_sequence_goes_on_in_another_engine() {
    let bytes = named("gemma3").bytes(Kind::Q4_1);
    let sampling = Sampling { temperature: 1.0, top_k: 40, seed: 5, ..Sampling::default() };
    let start = |prompt, len| Sequence { sampling: sampling.clone(), ..greedy(1, prompt, len) };
    let run = |slots, chunk, sequence| {
        let mut engine = load(&bytes, options(slots, chunk)).unwrap();
        engine.admit(sequence).unwrap();
        drain(&mut engine).remove(&1).unwrap()
    };
    let whole = run(1, 64, start(tokens(20), 30));
    let replayed = [&tokens(20)[..], &whole[..11]].concat();
    assert_eq!(run(3, 5, Sequence { resume_at: 11, ..start(replayed, 19) }), whole[11..]);
}

#[test]
fn embeddings_are_the_mean_of_the_final_rows_and_need_no_slot() {
    let mut engine = load(&named("qwen3").bytes(Kind::F32), options(1, 16)).unwrap();
    engine.admit(greedy(1, tokens(5), 3)).unwrap();
    let inputs = [tokens(20), tokens(1), tokens(20)];
    let rows = engine.embed(&inputs).unwrap();
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [64; 3]);
    assert_eq!(rows[0], rows[2]);
    assert!(rows[0] != rows[1] && rows.iter().flatten().all(|value| value.is_finite()));
    // The final norm leaves a row with a mean square near one; a mean of many is shorter.
    let square = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>() / row.len() as f32;
    assert!((0.7..1.5).contains(&square(&rows[1])) && square(&rows[0]) < square(&rows[1]));
    assert_eq!(drain(&mut engine)[&1].len(), 3);
}

#[test]
fn embedders_give_the_same_bits_on_every_tier_and_number_of_threads() {
    let inputs = [tokens(33), tokens(1), tokens(64)];
    for model in embedders() {
        let bytes = model.bytes(Kind::Q8_0);
        let on = |tier, threads| {
            let options = LoadOptions { tier: Some(tier), threads, ..options(1, 7) };
            load(&bytes, options).unwrap().embed(&inputs).unwrap()
        };
        let scalar = on(Tier::Scalar, 1);
        assert!(scalar.iter().flatten().all(|value| value.is_finite()));
        for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
            assert!(on(tier, 3) == scalar, "{} on {tier:?}", model.name);
        }
    }
}

#[test]
fn inputs_that_share_a_pass_give_the_same_bits_as_alone() {
    let inputs: Vec<Vec<u32>> =
        [3, 1, 33, 64, 9, 2, 31, 8, 5].map(|len| tokens(64)[64 - len..].to_vec()).into();
    for model in [embedders(), rerankers()].concat() {
        let mut engine = load(&model.bytes(Kind::Q8_0), options(3, 40)).unwrap();
        let together = engine.embed(&inputs).unwrap();
        for (input, row) in inputs.iter().zip(&together) {
            assert!(engine.embed(std::slice::from_ref(input)).unwrap()[0] == *row, "{}", model.name);
        }
        if engine.info().reranker.is_some() {
            let together = engine.rank(&inputs).unwrap();
            let alone = inputs.chunks(1).map(|input| engine.rank(input).unwrap()[0]);
            assert!(alone.eq(together), "{}", model.name);
        }
    }
}

#[test]
fn a_language_model_makes_vectors_of_many_inputs_while_it_answers() {
    let inputs: Vec<Vec<u32>> = (1..12).map(tokens).collect();
    let bytes = named("llama").bytes(Kind::F32);
    let mut engine = load(&bytes, options(2, 16)).unwrap();
    let idle = engine.embed(&inputs).unwrap();
    engine.admit(greedy(1, tokens(20), 8)).unwrap();
    engine.step().unwrap();
    assert!(engine.embed(&inputs).unwrap() == idle);
    let mut alone = load(&bytes, options(2, 16)).unwrap();
    alone.admit(greedy(1, tokens(20), 8)).unwrap();
    assert_eq!(drain(&mut engine), drain(&mut alone));
}

#[test]
fn every_row_of_an_embedder_sees_the_whole_input() {
    let mut engine = load(&named("bert-cls").bytes(Kind::F32), options(1, 7)).unwrap();
    let mut other = tokens(40);
    other[39] += 1;
    let rows = engine.embed(&[tokens(40), other]).unwrap();
    assert!(rows[0] != rows[1], "the first row has seen the last token");
}

#[test]
fn a_model_that_sees_ahead_makes_embeddings() {
    let mut model = named("llama");
    model.keys.push(("attention.causal", false.into()));
    let mut engine = load(&model.bytes(Kind::F32), options(1, 7)).unwrap();
    assert_eq!(engine.info().pooling, Some(engine::Pooling::Mean));
    let causal = load(&named("llama").bytes(Kind::F32), options(1, 7)).unwrap().embed(&[tokens(9)]).unwrap();
    assert!(engine.embed(&[tokens(9)]).unwrap() != causal);
}

#[test]
fn the_last_row_is_pooled_where_the_file_says_so() {
    let mut model = named("qwen3");
    model.keys.push(("pooling_type", 3u32.into()));
    let mut engine = load(&model.bytes(Kind::F32), options(1, 16)).unwrap();
    assert_eq!(engine.info().pooling, Some(engine::Pooling::Last));
    let mut mean = load(&named("qwen3").bytes(Kind::F32), options(1, 16)).unwrap();
    let (one, two) = (tokens(1), tokens(2));
    let last = engine.embed(std::slice::from_ref(&two)).unwrap().remove(0);
    let means = mean.embed(&[one, two]).unwrap();
    for ((last, first), both) in last.iter().zip(&means[0]).zip(&means[1]) {
        assert!(((first + last) / 2.0 - both).abs() < 1e-5);
    }
}

#[test]
fn an_engine_tells_what_it_is() {
    let engine = load(&named("gemma3").bytes(Kind::F32), options(3, 16)).unwrap();
    let info = engine.info();
    assert_eq!((info.architecture.as_str(), info.slots), ("gemma3", 3));
    assert_eq!((info.context_length, info.train_context_length), (64, 64));
    assert_eq!((info.embedding_length, info.vocab_size), (64, 288));
    assert_eq!((info.bos.as_str(), info.eos.as_str(), info.add_bos), ("<s>", "</s>", true));
    assert_eq!((info.pooling, &info.chat_template), (None, &None));
    let bytes = named("gemma3").bytes(Kind::F32);
    let estimate = engine::estimate(&gguf::Gguf::parse(&bytes).unwrap(), &options(3, 16)).unwrap();
    assert_eq!(info.size_bytes, estimate.total_bytes());
    // Seven blocks, two heads, 32 numbers in keys and in values, 2 bytes each, 3 slots of 64.
    assert_eq!(estimate.kv_bytes, 7 * 2 * (32 + 32) * 2 * 3 * 64);
    assert!(estimate.weights_bytes as usize > bytes.len() * 9 / 10);
}

#[test]
fn a_context_is_never_longer_than_the_training() {
    let options = LoadOptions { context_length: 100_000, ..options(1, 16) };
    let mut engine = load(&named("llama").bytes(Kind::F32), options).unwrap();
    assert_eq!(engine.info().context_length, 64);
    let error = engine.admit(greedy(1, vec![5; 65], 1)).unwrap_err();
    assert_eq!(error.to_string(), "the prompt has 65 tokens, the context has room for 64");
}

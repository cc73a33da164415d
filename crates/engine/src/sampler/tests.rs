//! Choices against the formulas, and against what the reference left of a distribution.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// See `tests/reference/make_samplers.py`.
#[derive(Deserialize)]
struct Vectors {
    logits: Vec<Vec<f32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    row: usize,
    history: Vec<u32>,
    repeat_last_n: usize,
    repeat_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    top_k: usize,
    typical_p: f32,
    top_p: f32,
    min_p: f32,
    temperature: f32,
    kept: Vec<(u32, f64)>,
}

impl Case {
    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repeat_last_n: self.repeat_last_n,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: 0,
        }
    }
}

#[test]
fn filters_leave_the_distribution_that_the_reference_leaves() {
    let text = include_str!("../../tests/reference/samplers.json");
    let vectors: Vectors = serde_json::from_str(text).expect("the vectors");
    assert!(vectors.cases.len() >= 75);
    for (number, case) in vectors.cases.iter().enumerate() {
        let (sampling, mut sampler) = (case.sampling(), Sampler::default());
        sampler.penalise(&sampling, &vectors.logits[case.row], &case.history).expect("finite");
        sampler.candidates.narrow(&sampling, &sampler.penalised, None);
        let items = sampler.candidates.items();
        let scaled = |item: &candidates::Candidate| f64::from(item.logit / case.temperature).exp();
        let total: f64 = items.iter().map(scaled).sum();
        assert_eq!(items.len(), case.kept.len(), "case {number}");
        for &(token, expected) in &case.kept {
            let found = items.iter().find(|item| item.id == token).map_or(0.0, scaled) / total;
            assert!(
                (found - expected).abs() < 1e-5,
                "case {number}: token {token} has {found}, not {expected}"
            );
        }
    }
}

fn choice(history: &[u32], position: u64) -> Choice<'_> {
    Choice { history, position, allowed: None }
}

fn sample(sampling: &Sampling, logits: &[f32], history: &[u32]) -> u32 {
    Sampler::default().sample(sampling, logits, choice(history, 0)).expect("finite logits")
}

/// What comes out over many positions.
fn drawn(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
    let mut sampler = Sampler::default();
    (0..2000)
        .map(|position| sampler.sample(sampling, logits, choice(&[], position)).expect("finite"))
        .collect()
}

fn warm() -> Sampling {
    Sampling { temperature: 1.0, seed: 7, ..Sampling::default() }
}

#[test]
fn greedy_takes_the_best_and_the_lowest_id_on_ties() {
    assert_eq!(sample(&Sampling::default(), &[0.5, 2.0, -1.0, 2.0], &[]), 1);
    let filters = Sampling { temperature: -1.0, top_k: 1, typical_p: 0.1, ..warm() };
    assert_eq!(sample(&filters, &[0.5, 2.0, -1.0, 2.0], &[]), 1, "filters do not matter");
}

#[test]
fn draws_follow_the_distribution() {
    let probabilities = [0.1f32, 0.2, 0.3, 0.4];
    let logits = probabilities.map(f32::ln);
    let tokens = drawn(&warm(), &logits);
    for (token, probability) in (0..).zip(probabilities) {
        let share = tokens.iter().filter(|&&drawn| drawn == token).count() as f32 / 2000.0;
        assert!((share - probability).abs() < 0.04, "token {token} in {share} of the draws");
    }
}

#[test]
fn temperature_sharpens_and_flattens() {
    let logits = [0.6f32.ln(), 0.4f32.ln()];
    let best = |temperature| {
        let tokens = drawn(&Sampling { temperature, ..warm() }, &logits);
        tokens.iter().filter(|&&token| token == 0).count()
    };
    // 0.6^2 / (0.6^2 + 0.4^2) and its square-root twin.
    assert!(best(0.5).abs_diff(1385) < 80 && best(2.0).abs_diff(1101) < 80, "{} {}", best(0.5), best(2.0));
}

#[test]
fn a_repeated_token_is_divided_or_multiplied_by_the_penalty() {
    let sampling = Sampling { repeat_penalty: 2.0, ..Sampling::default() };
    assert_eq!(sample(&sampling, &[4.0, 3.0], &[]), 0);
    assert_eq!(sample(&sampling, &[4.0, 3.0], &[0]), 1, "4 / 2 < 3");
    assert_eq!(sample(&sampling, &[-1.0, -1.5], &[0]), 1, "-1 * 2 < -1.5");
    assert_eq!(sample(&sampling, &[4.0, 1.0], &[0, 0, 0]), 0, "once, however often it occurred");
}

#[test]
fn frequency_counts_and_presence_does_not() {
    let frequency = Sampling { frequency_penalty: 0.5, ..Sampling::default() };
    assert_eq!(sample(&frequency, &[2.0, 1.2], &[0]), 0, "2 - 0.5");
    assert_eq!(sample(&frequency, &[2.0, 1.2], &[0, 0]), 1, "2 - 1");
    let presence = Sampling { presence_penalty: 0.5, ..Sampling::default() };
    assert_eq!(sample(&presence, &[2.0, 1.2], &[0, 0, 0]), 0, "2 - 0.5");
    let negative = Sampling { presence_penalty: -1.0, ..Sampling::default() };
    assert_eq!(sample(&negative, &[2.0, 1.2], &[1]), 1, "a bonus");
}

#[test]
fn penalties_look_at_the_last_tokens_only() {
    let sampling = Sampling { repeat_penalty: 2.0, repeat_last_n: 2, ..Sampling::default() };
    assert_eq!(sample(&sampling, &[4.0, 3.0, 0.0], &[0, 2, 2]), 0);
    assert_eq!(sample(&sampling, &[4.0, 3.0, 0.0], &[2, 0, 2]), 1);
    let all = Sampling { repeat_last_n: usize::MAX, ..sampling.clone() };
    assert_eq!(sample(&all, &[4.0, 3.0, 0.0], &[0, 2, 2]), 1);
    let none = Sampling { repeat_last_n: 0, ..sampling };
    assert_eq!(sample(&none, &[4.0, 3.0, 0.0], &[0, 0]), 0);
}

#[test]
fn tokens_outside_the_vocabulary_are_not_penalised() {
    let sampling = Sampling { repeat_penalty: 2.0, ..Sampling::default() };
    assert_eq!(sample(&sampling, &[4.0, 3.0], &[77]), 0);
}

#[test]
fn broken_logits_are_an_error_that_names_the_token() {
    let mut sampler = Sampler::default();
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = sampler.sample(&warm(), &[0.0, broken], choice(&[], 0)).expect_err("broken");
        assert!(matches!(&error, Error::NotFinite { what } if what.contains("token 1")), "{error}");
        assert!(sampler.logprobs(&[0.0, broken], 0, 1).is_err());
    }
    assert!(sampler.sample(&warm(), &[], choice(&[], 0)).is_err());
    let harsh = Sampling { repeat_penalty: 1e-38, ..warm() };
    let error = sampler.sample(&harsh, &[1e10, 0.0], choice(&[0], 0)).expect_err("overflow");
    assert!(error.to_string().contains("after penalties"), "{error}");
}

#[test]
fn options_that_mean_nothing_are_refused_by_name() {
    let text = |sampling: Sampling| sampling.check().expect_err("refused").to_string();
    assert_eq!(text(Sampling { top_p: f32::NAN, ..warm() }), "`top_p` must be a finite number, got NaN");
    assert_eq!(
        text(Sampling { repeat_penalty: 0.0, ..warm() }),
        "`repeat_penalty` must be greater than 0, got 0"
    );
    assert_eq!(warm().check(), Ok(()));
    assert_eq!(Sampling { temperature: -1.0, top_p: 9.0, min_p: -1.0, ..warm() }.check(), Ok(()));
}

#[test]
fn logprobs_are_of_the_raw_distribution() {
    let logits = [0.1f32, 0.2, 0.3, 0.4].map(|p| p.ln() + 5.0);
    let found = Sampler::default().logprobs(&logits, 0, 2).expect("finite");
    let near = |a: f32, b: f32| (a - b.ln()).abs() < 1e-5;
    assert!(near(found.logprob, 0.1));
    assert_eq!(found.top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [3, 2]);
    assert!(near(found.top[0].1, 0.4) && near(found.top[1].1, 0.3));
    assert_eq!(Sampler::default().logprobs(&logits, 0, 0).expect("finite").top, []);
    let error = Sampler::default().logprobs(&logits, 4, 0).expect_err("outside");
    assert_eq!(error, Error::TokenOutOfRange { token: 4, vocab_size: 4 });
}

fn samplings() -> impl Strategy<Value = Sampling> {
    let filters = (0.01f32..3.0, 0usize..50, 0.0f32..1.2, 0.0f32..1.2, 0.0f32..1.2, any::<u64>());
    let penalties = (0usize..20, 0.5f32..2.0, -2.0f32..2.0, -2.0f32..2.0);
    (filters, penalties).prop_map(|((temperature, top_k, top_p, min_p, typical_p, seed), penalties)| {
        let (repeat_last_n, repeat_penalty, presence_penalty, frequency_penalty) = penalties;
        Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            repeat_last_n,
            repeat_penalty,
            presence_penalty,
            frequency_penalty,
            seed,
        }
    })
}

proptest! {
    #[test]
    fn a_choice_depends_on_nothing_but_its_arguments(
        sampling in samplings(),
        logits in proptest::collection::vec(-30.0f32..30.0, 1..400),
        other in proptest::collection::vec(-30.0f32..30.0, 1..400),
        history in proptest::collection::vec(0u32..400, 0..40),
        position in any::<u64>(),
    ) {
        let mut used = Sampler::default();
        used.sample(&sampling, &other, choice(&history, position)).expect("finite");
        let token = used.sample(&sampling, &logits, choice(&history, position)).expect("finite");
        prop_assert!((token as usize) < logits.len());
        let fresh = Sampler::default().sample(&sampling, &logits, choice(&history, position));
        prop_assert_eq!(Ok(token), fresh);
    }

    #[test]
    fn top_k_is_never_exceeded(
        logits in proptest::collection::vec(-5.0f32..5.0, 1..100),
        top_k in 1usize..20,
        position in any::<u64>(),
    ) {
        let token = Sampler::default().sample(&Sampling { top_k, ..warm() }, &logits, choice(&[], position));
        let logit = logits[token.expect("finite") as usize];
        let ahead = logits.iter().filter(|&&other| other > logit).count();
        prop_assert!(ahead < top_k, "{} tokens are better", ahead);
    }

    #[test]
    fn probabilities_sum_to_one(logits in proptest::collection::vec(-90.0f32..90.0, 1..300)) {
        let found = Sampler::default().logprobs(&logits, 0, logits.len()).expect("finite");
        let sum: f64 = found.top.iter().map(|&(_, logprob)| f64::from(logprob).exp()).sum();
        prop_assert!((sum - 1.0).abs() < 1e-4, "sum {}", sum);
        prop_assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
}

proptest! {
    #[test]
    fn a_mask_leaves_the_choice_that_a_smaller_vocabulary_would_have(
        tokens in proptest::collection::vec((-40i32..40, any::<bool>()), 1..300),
        top_k in 0usize..20,
        filters in any::<bool>(),
        temperature in 0u8..3,
        position in 0u64..1000,
    ) {
        let logits: Vec<f32> = tokens.iter().map(|token| token.0 as f32 / 4.0).collect();
        let allowed: Mask = (0..).zip(&tokens).filter(|(_, token)| token.1).map(|(id, _)| id).collect();
        prop_assume!(!allowed.is_empty());
        let (top_p, min_p, typical_p) = if filters { (0.8, 0.05, 0.9) } else { (1.0, 0.0, 1.0) };
        let temperature = f32::from(temperature);
        let sampling = Sampling { top_k, top_p, min_p, typical_p, temperature, seed: 5, ..Sampling::default() };
        let small: Vec<f32> = allowed.tokens().map(|id| logits[id as usize]).collect();
        let expected = Sampler::default().sample(&sampling, &small, choice(&[], position)).expect("finite");
        let masked = Choice { history: &[], position, allowed: Some(&allowed) };
        let picked = Sampler::default().sample(&sampling, &logits, masked).expect("finite");
        prop_assert_eq!(Some(picked), allowed.tokens().nth(expected as usize));
    }
}

//! What the model computes against what llama.cpp computes. `make_reference.py` made the vectors, and says how near an
//! engine can come at all.

use std::ops::ControlFlow;

use engine::{CandleEngine, Engine, Event, LoadOptions, Sequence};
use half::f16;
use serde::Deserialize;

use crate::files::{GEMMA3, SMOLLM2, bytes, model, vectors};

/// Below this gap between the two highest logits either token may win.
const NEAR_TIE: f32 = 0.1;
/// What comes after a near-tie need not agree, but a token that the reference is this sure of is never missed.
const SURE: f32 = 0.3;
const MIN_TOP1: f64 = 0.97;
const MAX_MEAN_KL: f64 = 0.01;
const BINS: usize = 64;
const RECORD_BYTES: usize = 4 + 4 + BINS * (4 + 2);

#[derive(Deserialize)]
struct Vectors {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    prompt_tokens: Vec<u32>,
    greedy: Vec<u32>,
    greedy_gaps: Vec<f32>,
    greedy_margins: Vec<f32>,
    text_tokens: Vec<u32>,
}

/// The reference's distribution of the token after one position.
struct Record {
    gap: f32,
    /// The likeliest tokens with the logarithms of their probabilities, and that of what remains.
    likeliest: Vec<(u32, f64)>,
    rest: f64,
}

/// Figures over many positions.
#[derive(Default)]
struct Score {
    positions: usize,
    agreed: usize,
    /// Positions that are no near-ties.
    decided: usize,
    decided_agreed: usize,
    divergence: f64,
}

#[test]
fn smollm2_computes_what_the_reference_computes() {
    check("smollm2", SMOLLM2);
}

#[test]
fn gemma3_computes_what_the_reference_computes() {
    check("gemma3", GEMMA3);
}

fn check(name: &str, file: &str) {
    let vectors: Vectors = vectors(&format!("{name}.json"));
    let records = bytes(&format!("{name}.bin"));
    let mut records = records.chunks_exact(RECORD_BYTES).map(Record::read);
    let options = LoadOptions { context_length: 2048, threads: 2, ..LoadOptions::default() };
    let mut engine = CandleEngine::load(&model(file), options, &mut |_| ControlFlow::Continue(()))
        .expect("load the model");
    let (mut texts, mut replies) = (Score::default(), Score::default());
    for entry in &vectors.entries {
        texts.add(&mut engine, &entry.text_tokens, 0, &mut records);
        let reply = [entry.prompt_tokens.as_slice(), &entry.greedy].concat();
        replies.add(&mut engine, &reply, entry.prompt_tokens.len() - 1, &mut records);
    }
    assert!(records.next().is_none(), "every record is used");
    println!("{name}: texts by people: {}", texts.describe());
    println!("{name}: the reference's own replies: {}", replies.describe());
    let wrong: Vec<String> =
        vectors.entries.iter().filter_map(|entry| check_greedy(&mut engine, entry)).collect();
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("; "));
    assert!(replies.top1() >= MIN_TOP1, "{name}: top-1 agreement {}", replies.top1());
    assert!(texts.decided_top1() >= MIN_TOP1, "{name}: top-1 agreement of texts {}", texts.decided_top1());
    for score in [texts, replies] {
        assert!(score.mean_divergence() <= MAX_MEAN_KL, "{name}: mean KL {}", score.mean_divergence());
    }
}

/// Runs the prompt greedily. What is wrong, if the tokens differ before the first near-tie.
///
/// The reference's rounding alone moves a gap by more than [`NEAR_TIE`], so a position counts as a near-tie if it is one
/// in any of the ways in which the reference computes it. How it would be with the gaps of one run is printed.
fn check_greedy(engine: &mut CandleEngine, entry: &Entry) -> Option<String> {
    let tokens = greedy(engine, &entry.prompt_tokens, entry.greedy.len());
    let agreed = tokens.iter().zip(&entry.greedy).take_while(|(a, b)| a == b).count();
    let first_near_tie =
        |gaps: &[f32]| gaps.iter().position(|&gap| gap < NEAR_TIE).unwrap_or(entry.greedy.len());
    let (bound, single) = (first_near_tie(&entry.greedy_margins), first_near_tie(&entry.greedy_gaps));
    let Entry { name, greedy, .. } = entry;
    let margin = entry.greedy_margins.get(agreed).copied();
    println!(
        "  {name}: {agreed} of {} agree; first near-tie at {bound}, in one run {single}; margin {margin:?}",
        greedy.len()
    );
    let is_sure = margin.is_some_and(|margin| margin >= SURE);
    (agreed < bound || is_sure).then(|| {
        format!("{name} differs at {agreed}, the first near-tie is at {bound}, the margin was {margin:?}")
    })
}

fn greedy(engine: &mut CandleEngine, prompt: &[u32], count: usize) -> Vec<u32> {
    let prompt = prompt.to_vec();
    let sequence = Sequence { prompt, max_tokens: Some(count), ignore_eos: true, ..Sequence::default() };
    engine.admit(sequence).expect("a free slot");
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().expect("the engine goes on") {
            match event {
                Event::Token { token, .. } => tokens.push(token),
                Event::Failed { error, .. } => panic!("{error}"),
                Event::Prefilled { .. } | Event::Finished { .. } => (),
            }
        }
    }
    assert_eq!(tokens.len(), count);
    tokens
}

// === impl Record ===

impl Record {
    fn read(bytes: &[u8]) -> Record {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let (ids, logprobs) = (8, 8 + 4 * BINS);
        let likeliest = (0..BINS).map(|bin| {
            let at = logprobs + 2 * bin;
            let logprob = f16::from_le_bytes([bytes[at], bytes[at + 1]]);
            (u32::from_le_bytes(word(ids + 4 * bin)), logprob.to_f64())
        });
        Record {
            gap: f32::from_le_bytes(word(0)),
            likeliest: likeliest.collect(),
            rest: f32::from_le_bytes(word(4)).into(),
        }
    }

    /// The Kullback-Leibler divergence of `row` from this, in nats, over the likeliest tokens and the rest as one.
    fn divergence(&self, row: &[f32]) -> f64 {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = row.iter().map(|&logit| f64::from(logit - best).exp()).sum::<f64>().ln();
        let logprob = |token: u32| f64::from(row[token as usize] - best) - log_sum;
        let mut rest = 1.0;
        let mut divergence = 0.0;
        for &(token, expected) in &self.likeliest {
            let found = logprob(token);
            rest -= found.exp();
            divergence += expected.exp() * (expected - found);
        }
        // Rounding can leave less than nothing where hardly anything is left.
        divergence + self.rest.exp() * (self.rest - rest.max(1e-12).ln())
    }
}

// === impl Score ===

impl Score {
    /// `first`: the position from which on it counts.
    fn add(
        &mut self,
        engine: &mut CandleEngine,
        tokens: &[u32],
        first: usize,
        records: &mut impl Iterator<Item = Record>,
    ) {
        let rows = engine.logits(tokens).expect("the model runs");
        let records: Vec<Record> = records.take(rows.len()).collect();
        assert_eq!(rows.len(), records.len(), "a record for every position");
        for (row, record) in rows.iter().zip(&records).skip(first) {
            let (expected, _) = record.likeliest[0];
            let agrees = row.iter().all(|&logit| logit <= row[expected as usize]);
            let is_decided = record.gap >= NEAR_TIE;
            self.positions += 1;
            self.agreed += usize::from(agrees);
            self.decided += usize::from(is_decided);
            self.decided_agreed += usize::from(agrees && is_decided);
            self.divergence += record.divergence(row);
        }
    }

    fn top1(&self) -> f64 {
        self.agreed as f64 / self.positions as f64
    }

    fn decided_top1(&self) -> f64 {
        self.decided_agreed as f64 / self.decided as f64
    }

    fn mean_divergence(&self) -> f64 {
        self.divergence / self.positions as f64
    }

    fn describe(&self) -> String {
        format!(
            "{} positions, top-1 agreement {:.2} % ({:.2} % without near-ties), mean KL {:.5}",
            self.positions,
            100.0 * self.top1(),
            100.0 * self.decided_top1(),
            self.mean_divergence()
        )
    }
}

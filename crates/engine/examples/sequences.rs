//! Many sequences at once, measured: what the prefix cache saves, how long running answers wait beside a long prompt,
//! when prompts that arrive together are answered, and what guesses save.
//! `cargo run --release -p engine --example sequences -- MODEL.gguf [THREADS]`

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::collections::HashMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::{CandleEngine, Engine, Event, LoadOptions, Sequence, SequenceId};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// An engine and a clock.
struct Bench {
    engine: CandleEngine,
    ids: SequenceId,
}

/// What became of sequences.
#[derive(Default)]
struct Told {
    tokens: HashMap<SequenceId, Vec<u32>>,
    /// When the first token came, since the run began.
    first: HashMap<SequenceId, Duration>,
    cached: usize,
    steps: Vec<Duration>,
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).ok_or("usage: sequences MODEL.gguf [THREADS]")?;
    let threads = std::env::args().nth(2).map_or(Ok(2), |threads| threads.parse())?;
    let file = gguf::File::open(Path::new(&path))?;
    let load = |slots: usize, guesses: usize| -> Result<Bench> {
        let options = LoadOptions { slots, context_length: 2048, threads, guesses, ..LoadOptions::default() };
        let mut engine = CandleEngine::load(&file, options, &mut |_| ControlFlow::Continue(()))?;
        // Memory that was never touched would count as the first sequence's fault.
        engine.embed(&[(10..600).collect()])?;
        Ok(Bench { engine, ids: 0 })
    };
    prefix_cache(load(1, 0)?)?;
    long_prompt(load(5, 0)?)?;
    together(load(8, 0)?)?;
    guesses(load(1, 0)?, load(1, 16)?)
}

fn prefix_cache(mut bench: Bench) -> Result<()> {
    for len in [128, 512, 1536] {
        let mut cold = Vec::new();
        let mut warm = Vec::new();
        let mut cached = 0;
        for round in 0..5 {
            let shared = words(len, 100 * len as u32 + round);
            for (times, salt) in [(&mut cold, 1), (&mut warm, 2)] {
                let id = bench.admit([&shared[..], &words(16, salt + 7 * round)].concat(), 1)?;
                let told = bench.run()?;
                times.push(told.first[&id]);
                cached = told.cached;
            }
        }
        let (cold, warm) = (median(cold), median(warm));
        println!(
            "prefix cache, {len} of {} tokens shared: first token after {:.1} ms, {cached} cached: {:.1} ms, {:.1} times",
            len + 16,
            ms(cold),
            ms(warm),
            cold.as_secs_f64() / warm.as_secs_f64()
        );
    }
    Ok(())
}

fn long_prompt(mut bench: Bench) -> Result<()> {
    for id in 0..4 {
        bench.admit(words(24, id), 2000)?;
    }
    let mut told = Told::default();
    for _ in 0..60 {
        bench.step(&mut told)?;
    }
    let alone = median(told.steps.split_off(20));
    let long = bench.admit(words(1024, 77), 1)?;
    let mut beside = Told::default();
    let began = Instant::now();
    while !beside.tokens.contains_key(&long) {
        bench.step(&mut beside)?;
    }
    let took = began.elapsed();
    let count = beside.steps.len();
    let most = percentile(&beside.steps, 0.95);
    println!(
        "4 answers beside a prompt of 1024 tokens: a token every {:.1} ms alone, {:.1} ms beside it ({:.2} times), 95 % \
         within {:.1} ms ({:.2} times); the prompt took {:.0} ms in {count} steps",
        ms(alone),
        ms(median(beside.steps.clone())),
        median(beside.steps.clone()).as_secs_f64() / alone.as_secs_f64(),
        ms(most),
        most.as_secs_f64() / alone.as_secs_f64(),
        ms(took),
    );
    Ok(())
}

fn together(mut bench: Bench) -> Result<()> {
    for id in 0..8 {
        bench.admit(words(128, 1000 + id), 32)?;
    }
    let told = bench.run()?;
    let mut first: Vec<Duration> = told.first.into_values().collect();
    first.sort();
    let first: Vec<String> = first.into_iter().map(|first| format!("{:.0}", ms(first))).collect();
    println!("8 prompts of 128 tokens at once: first tokens after {} ms", first.join(", "));
    Ok(())
}

fn guesses(mut plain: Bench, mut guessing: Bench) -> Result<()> {
    let list = "Copy this list three times.\n1. apples, 2. pears, 3. plums, 4. cherries, 5. grapes, 6. figs\n1. apples, \
                2. pears, 3. plums, 4. cherries, 5. grapes, 6. figs\n1. apples,";
    let story = "It was a cold evening in November when the old man";
    for (name, text) in [("a list that repeats", list), ("a story", story)] {
        let mut rates = Vec::new();
        let mut texts = Vec::new();
        for bench in [&mut plain, &mut guessing] {
            let mut times = Vec::new();
            for _ in 0..3 {
                let prompt = bench.engine.tokenizer().encode(text, true, true);
                let id = bench.admit(prompt, 160)?;
                let mut told = bench.run()?;
                let decode: Duration = told.steps.iter().skip(1).sum();
                let tokens = told.tokens.remove(&id).unwrap_or_default();
                times.push(decode / tokens.len() as u32);
                texts.push(tokens);
            }
            rates.push(median(times).as_secs_f64().recip());
        }
        if texts.iter().any(|tokens| *tokens != texts[0]) {
            return Err("a guess changed a text".into());
        }
        println!(
            "guesses, {name}: {:.0} tokens/s without, {:.0} with, {:.2} times, the same text",
            rates[0],
            rates[1],
            rates[1] / rates[0]
        );
    }
    Ok(())
}

// === impl Bench ===

impl Bench {
    fn admit(&mut self, prompt: Vec<u32>, max_tokens: usize) -> Result<SequenceId> {
        self.ids += 1;
        let (id, max_tokens) = (self.ids, Some(max_tokens));
        self.engine.admit(Sequence { id, prompt, max_tokens, ignore_eos: true, ..Sequence::default() })?;
        Ok(id)
    }

    fn step(&mut self, told: &mut Told) -> Result<()> {
        let began = Instant::now();
        let events = self.engine.step()?;
        let took = began.elapsed();
        self.engine.note_step(took);
        told.steps.push(took);
        for event in events {
            match event {
                Event::Token { id, token, .. } => {
                    told.tokens.entry(id).or_default().push(token);
                    told.first.entry(id).or_insert_with(|| told.steps.iter().sum());
                }
                Event::Prefilled { cached_tokens, .. } => told.cached += cached_tokens,
                Event::Failed { error, .. } => return Err(error.into()),
                Event::Finished { .. } => {}
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<Told> {
        let mut told = Told::default();
        while !self.engine.is_idle() {
            self.step(&mut told)?;
        }
        Ok(told)
    }
}

/// Tokens without order, the same for the same seed.
fn words(len: usize, seed: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1000 + (state >> 8) % 20_000
    })
    .take(len)
    .collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(times: Vec<Duration>) -> Duration {
    percentile(&times, 0.5)
}

fn percentile(times: &[Duration], part: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[((times.len() - 1) as f64 * part) as usize]
}

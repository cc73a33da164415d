//! From a model to an engine, and from prompts to what it said.

use std::collections::HashMap;
use std::ops::ControlFlow;

use engine::{CandleEngine, Engine, Error, Event, LoadOptions, Sequence, SequenceId};

/// Two threads, so that work is really split.
pub fn options(slots: usize, prefill_chunk: usize) -> LoadOptions {
    LoadOptions { slots, context_length: 64, threads: 2, prefill_chunk, ..LoadOptions::default() }
}

pub fn load(bytes: &[u8], options: LoadOptions) -> Result<CandleEngine, Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("write the model");
    let file = gguf::File::open(&path)?;
    CandleEngine::load(&file, options, &mut |_| ControlFlow::Continue(()))
}

/// Steps until nothing runs: the tokens of each sequence. A failure is a panic.
pub fn drain(engine: &mut CandleEngine) -> HashMap<SequenceId, Vec<u32>> {
    let mut told: HashMap<SequenceId, Vec<u32>> = HashMap::new();
    while !engine.is_idle() {
        for event in engine.step().expect("the engine goes on") {
            match event {
                Event::Token { id, token, .. } => told.entry(id).or_default().push(token),
                Event::Failed { error, .. } => panic!("{error}"),
                Event::Prefilled { .. } | Event::Finished { .. } => {}
            }
        }
    }
    told
}

/// A greedy sequence that says exactly so many tokens.
pub fn greedy(id: SequenceId, prompt: Vec<u32>, max_tokens: usize) -> Sequence {
    Sequence { id, prompt, max_tokens: Some(max_tokens), ignore_eos: true, ..Sequence::default() }
}

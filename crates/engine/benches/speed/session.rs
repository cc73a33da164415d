//! One loaded model that is asked to do things, and how long each took.

use std::{fs, ops::ControlFlow, path::Path, time::Instant};

use engine::{CandleEngine, Engine, Event, LoadOptions, Sequence, SequenceId};
use gguf::Gguf;
use serde_json::{Value, json};

use crate::{Result, flags::Flags, synthetic::Random};

pub struct Session {
    engine: CandleEngine,
    last_id: SequenceId,
    /// Prompts differ from one another, or the cache of one would serve the next.
    random: Random,
}

/// Bytes of this process, from the kernel's count of its pages.
struct Memory {
    anonymous: u64,
    file: u64,
    peak: u64,
}

impl Session {
    /// The session, and what loading took.
    pub fn load(flags: &Flags) -> Result<(Session, Value)> {
        let path = Path::new(flags.text("model")?);
        let defaults = LoadOptions::default();
        let options = LoadOptions {
            slots: flags.number("slots", 32)?,
            context_length: flags.number("context", 1024)?,
            threads: flags.number("threads", 2)?,
            prefill_chunk: flags.number("chunk", defaults.prefill_chunk)?,
            // Random weights repeat themselves, so guesses would pay far better than they do on what people write.
            guesses: 0,
            ..defaults
        };
        let before = Memory::read()?;
        let start = Instant::now();
        let (mut reports, mut last, mut longest_gap) = (0, 0.0, 0f64);
        let file = gguf::File::open(path)?;
        let (file_bytes, bytes_per_token) = (file.len(), bytes_per_token(file.header()));
        let engine = CandleEngine::load(&file, options, &mut |_| {
            let now = start.elapsed().as_secs_f64();
            longest_gap = longest_gap.max(now - last);
            (reports, last) = (reports + 1, now);
            ControlFlow::Continue(())
        })?;
        drop(file);
        let seconds = start.elapsed().as_secs_f64();
        let longest_gap = longest_gap.max(seconds - last);
        let memory = Memory::read()?;
        let told = json!({
            "load_seconds": seconds,
            "progress_reports": reports,
            "progress_longest_gap_seconds": longest_gap,
            "file_bytes": file_bytes,
            "bytes_per_token": bytes_per_token,
            "before_bytes": before.resident(),
            "resident_bytes": memory.resident(),
            "resident_file_bytes": memory.file,
            "peak_bytes": memory.peak,
            "estimated_bytes": engine.info().size_bytes,
        });
        Ok((Session { engine, last_id: 0, random: Random(1) }, told))
    }

    pub fn answer(&mut self, words: &[&str]) -> Result<Value> {
        match words {
            ["prefill", tokens] => self.prefill(tokens.parse()?),
            ["decode", sequences, tokens, prompt] => {
                self.decode(sequences.parse()?, tokens.parse()?, prompt.parse()?)
            }
            ["memory"] => {
                let memory = Memory::read()?;
                Ok(json!({ "resident_bytes": memory.resident(), "peak_bytes": memory.peak }))
            }
            _ => Err(format!("unknown command {words:?}").into()),
        }
    }

    /// From the admission of one prompt to its first token.
    fn prefill(&mut self, tokens: usize) -> Result<Value> {
        let sequence = self.sequence(tokens, Some(1));
        let start = Instant::now();
        self.engine.admit(sequence)?;
        while !self.engine.is_idle() {
            for event in self.engine.step()? {
                check(event)?;
            }
        }
        Ok(json!({ "tokens": tokens, "seconds": start.elapsed().as_secs_f64() }))
    }

    /// `sequences` at once, after the first token of the last of them.
    fn decode(&mut self, sequences: usize, tokens: usize, prompt: usize) -> Result<Value> {
        let first = self.last_id + 1;
        for _ in 0..sequences {
            let sequence = self.sequence(prompt, None);
            self.engine.admit(sequence)?;
        }
        let measured = self.decode_admitted(sequences, tokens);
        (first..=self.last_id).for_each(|id| self.engine.cancel(id));
        measured
    }

    fn decode_admitted(&mut self, sequences: usize, tokens: usize) -> Result<Value> {
        let mut prefilled = 0;
        while prefilled < sequences {
            for event in self.engine.step()? {
                prefilled += usize::from(matches!(event, Event::Prefilled { .. }));
                check(event)?;
            }
        }
        let (mut emitted, mut steps) = (0, 0);
        let start = Instant::now();
        while emitted < sequences * tokens {
            for event in self.engine.step()? {
                emitted += check(event)?;
            }
            steps += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(json!({ "tokens": emitted, "steps": steps, "seconds": seconds }))
    }

    fn sequence(&mut self, prompt: usize, max_tokens: Option<usize>) -> Sequence {
        self.last_id += 1;
        let vocab_size = self.engine.info().vocab_size as u64;
        let prompt = (0..prompt).map(|_| (self.random.bits() % vocab_size) as u32).collect();
        Sequence { id: self.last_id, prompt, max_tokens, ignore_eos: true, ..Sequence::default() }
    }
}

/// How many tokens an event is; an error if it is not what a measurement expects.
fn check(event: Event) -> Result<usize> {
    match event {
        Event::Token { .. } => Ok(1),
        Event::Finished { .. } => Ok(0),
        Event::Prefilled { cached_tokens: 0, .. } => Ok(0),
        Event::Prefilled { cached_tokens, prompt_tokens, .. } => {
            Err(format!("{cached_tokens} of {prompt_tokens} random prompt tokens were in the cache").into())
        }
        Event::Failed { error, .. } => Err(error.into()),
    }
}

/// The weights that one token of one sequence reads: everything but an embedding table that is not the head, too.
fn bytes_per_token(gguf: &Gguf) -> u64 {
    let has_head = gguf.tensor("output.weight").is_some();
    let is_read = |name: &str| !(has_head && name == "token_embd.weight");
    gguf.tensors.iter().filter(|tensor| is_read(&tensor.name)).map(|tensor| tensor.bytes).sum()
}

impl Memory {
    fn read() -> Result<Memory> {
        let text = fs::read_to_string("/proc/self/status")?;
        let bytes = |key: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.split_whitespace().next()).ok_or_else(|| {
                format!("/proc/self/status has no {key}; memory can be measured on Linux only")
            })?;
            Ok(kib.parse::<u64>()? * 1024)
        };
        Ok(Memory { anonymous: bytes("RssAnon")?, file: bytes("RssFile")?, peak: bytes("VmHWM")? })
    }

    fn resident(&self) -> u64 {
        self.anonymous + self.file
    }
}

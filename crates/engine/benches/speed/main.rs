//! The engine's side of `make bench-engine`: writes the models, loads one and measures what it is asked on standard
//! input, reads memory as fast as it can. It compares nothing; `benches/compare` does.

mod bandwidth;
mod flags;
mod session;
mod synthetic;

use std::{
    error::Error,
    io::{self, BufRead, Write},
    path::Path,
    process::ExitCode,
};

use serde_json::{Value, json};

use bandwidth::Reader;
use flags::Flags;
use session::Session;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: speed generate --tokenizer FILE.gguf --folder DIR [--types Q4_0,Q4_K_M,Q8_0,F16]
       speed session --model FILE.gguf [--threads 2] [--slots 32] [--context 1024] [--chunk TOKENS]
       speed bandwidth [--threads 2] [--mib 1024]
A session answers each line of its input with a line of JSON: `prefill TOKENS`, `decode SEQUENCES TOKENS PROMPT`, `memory`.
The bandwidth is read anew for each line `read PASSES`.";

fn main() -> ExitCode {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "speed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (command, rest) = arguments.split_first().ok_or(USAGE)?;
    match command.as_str() {
        "generate" => generate(&Flags::read(rest, &["tokenizer", "folder", "types"])?),
        "session" => {
            let flags = Flags::read(rest, &["model", "threads", "slots", "context", "chunk"])?;
            let (mut session, loaded) = Session::load(&flags)?;
            say(&loaded)?;
            answer(|words| session.answer(words))
        }
        "bandwidth" => {
            let flags = Flags::read(rest, &["threads", "mib"])?;
            let reader = Reader::new(flags.number("threads", 2)?, flags.number("mib", 1024)?)?;
            say(&json!({ "loads": reader.loads() }))?;
            answer(|words| match words {
                ["read", passes] => Ok(json!({ "gigabytes_per_second": reader.read(passes.parse()?) })),
                _ => Err(USAGE.into()),
            })
        }
        _ => Err(USAGE.into()),
    }
}

/// Writes the models that are missing.
fn generate(flags: &Flags) -> Result<()> {
    let folder = Path::new(flags.text("folder")?);
    let tokenizer = gguf::File::open(Path::new(flags.text("tokenizer")?))?;
    let tokenizer = &tokenizer.header().metadata;
    for name in flags.text("types").unwrap_or("Q4_0,Q4_K_M,Q8_0,F16").split(',') {
        let mix = synthetic::Mix::from_name(name).ok_or_else(|| format!("unknown type {name:?}\n{USAGE}"))?;
        let path = folder.join(synthetic::file_name(mix));
        if !path.is_file() {
            let writer = synthetic::writer(&synthetic::ONE_B, mix, tokenizer)?;
            // Renamed when it is whole: a generator that was stopped leaves nothing that looks like a model.
            let partial = path.with_extension("partial");
            writer.write(io::BufWriter::with_capacity(1 << 20, std::fs::File::create(&partial)?))?;
            std::fs::rename(&partial, &path)?;
        }
        say(&json!({ "model": name, "path": path, "bytes": std::fs::metadata(&path)?.len() }))?;
    }
    Ok(())
}

/// Answers line by line until the input ends. What goes wrong is an answer, too.
fn answer(mut work: impl FnMut(&[&str]) -> Result<Value>) -> Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        say(&work(&words).unwrap_or_else(|error| json!({ "error": error.to_string() })))?;
    }
    Ok(())
}

fn say(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

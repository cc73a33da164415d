//! What grammars cost: prints how long it takes to get a vocabulary ready, to compile a schema, and to find the masks
//! of an answer. `cargo run --release -p engine --example masks -- MODEL.gguf [TOKENS]`, of which the vocabulary is cut
//! to its first TOKENS.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::{error::Error, path::Path, sync::Arc, time::Instant};

use engine::{Grammar, Grammars, Tokenizer};
use gguf::{Array, Gguf, Value, Writer};

const SCHEMA: &str = r##"{
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "summary": {"type": "string", "maxLength": 200},
        "year": {"type": "integer", "minimum": 0, "maximum": 2100},
        "kind": {"enum": ["person", "place", "animal", "thing"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}}
    },
    "required": ["name", "summary", "year", "kind", "tags", "parts"],
    "$defs": {"part": {"type": "object", "properties": {"label": {"type": "string"}, "price": {"type": "number"}},
                       "required": ["label", "price"]}}
}"##;

const ANSWER: &str = r#"{"name": "Silk Road", "summary": "A network of routes that joined East and West, from the second century before our era until the middle of the fifteenth, and that carried silk, horses and ideas.", "year": 130, "kind": "place", "tags": ["trade", "history", "Asia"], "parts": [{"label": "Chang'an", "price": 1.5}, {"label": "Samarkand \"the old\" — Самарканд", "price": 20}, {"label": "Kashgar", "price": 3.25e1}]}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: masks MODEL.gguf [TOKENS]")?;
    let size = std::env::args().nth(2).map_or(Ok(usize::MAX), |size| size.parse())?;
    let file = gguf::File::open(Path::new(&path))?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&cut(file.header(), size)?)?);
    println!("vocabulary of {} tokens", tokenizer.vocab_size());
    let grammars = Grammars::new(tokenizer.clone());
    let answer = tokenizer.encode(ANSWER, false, false);
    for (name, schema) in [("json", r#"{"type":"object"}"#), ("schema", SCHEMA)] {
        let began = Instant::now();
        let grammar = grammars.schema(schema)?;
        println!("{name}: compiled in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
        let began = Instant::now();
        let cold = times(&grammar, &answer)?;
        println!(
            "{name}: answer of {} tokens in {:.1} ms",
            answer.len(),
            began.elapsed().as_secs_f64() * 1e3
        );
        report(&format!("{name}, first answer"), cold);
        report(&format!("{name}, second answer"), times(&grammar, &answer)?);
    }
    Ok(())
}

/// The header with a smaller vocabulary.
fn cut(gguf: &Gguf, size: usize) -> Result<Gguf, gguf::Error> {
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata.iter() {
        let mut value = value.clone();
        match &mut value {
            Value::Array(Array::String(items)) if key == "tokenizer.ggml.tokens" => items.truncate(size),
            Value::Array(Array::F32(items)) if key == "tokenizer.ggml.scores" => items.truncate(size),
            Value::Array(Array::I32(items)) if key == "tokenizer.ggml.token_type" => items.truncate(size),
            _ => {}
        }
        writer.metadata(key, value)?;
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes)?;
    Gguf::parse(&bytes)
}

/// Microseconds of each mask, and of telling the token before it.
fn times(grammar: &Grammar, answer: &[u32]) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut walk = grammar.begin()?;
    let mut times = Vec::with_capacity(answer.len());
    for &token in answer {
        let began = Instant::now();
        let mask = walk.allowed()?;
        if !mask.allows(token) {
            return Err(format!("token {token} may not come").into());
        }
        walk.accept(token)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

fn report(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    println!(
        "{what}: mean {mean:.1} us, median {:.1}, p90 {:.1}, p99 {:.1}, most {:.1}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

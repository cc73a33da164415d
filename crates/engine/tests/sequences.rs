//! Many sequences at once on the two real models: what each says does not depend on what runs beside it, on what the
//! cache holds, or on what was guessed.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use engine::{CandleEngine, Engine, Event, Grammars, LoadOptions, Sampling, Sequence, SequenceId};

const MODELS: [&str; 2] = ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"];

/// Tokens of each answer.
const ANSWER: usize = 16;

/// Beginnings of very different length and kind; each is asked for about several subjects.
const PROMPTS: [&str; 8] = [
    "The history of",
    "Write a list of ten things about",
    "fn main() { // a program about",
    "Question: what is known about",
    "one two three four five six seven one two three four five six seven one two three",
    "{\"name\": \"caravan\", \"stops\": [\"oasis\", \"well\", \"city\"], \"about\":",
    "A caravan is a group of people who travel together, often through a desert or another dangerous region, for \
     safety. Caravans were used mainly in desert areas and throughout the Silk Road, where traveling in groups helped \
     in defense against bandits and improved economies of scale in trade. Tell more about",
    "为什么天空是蓝色的？",
];
const SUBJECTS: [&str; 4] = [" the sea", " bread and salt", " a long winter", " numbers"];

fn file(name: &str) -> gguf::File {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models");
    let path = std::env::var_os("CARAVAN_TEST_MODELS").map_or(root, PathBuf::from).join(name);
    assert!(path.is_file(), "{} is missing; `make models` fetches it", path.display());
    gguf::File::open(&path).expect("open the model")
}

fn load(name: &str, options: LoadOptions) -> CandleEngine {
    CandleEngine::load(&file(name), options, &mut |_| ControlFlow::Continue(())).expect("load the model")
}

fn options(slots: usize) -> LoadOptions {
    LoadOptions { slots, context_length: 256, threads: 2, guesses: 0, ..LoadOptions::default() }
}

fn prompts(engine: &CandleEngine) -> Vec<Vec<u32>> {
    let texts = PROMPTS.iter().flat_map(|prompt| SUBJECTS.map(|subject| format!("{prompt}{subject}")));
    texts.map(|text| engine.tokenizer().encode(&text, true, true)).collect()
}

fn asked(id: SequenceId, prompt: &[u32], sampling: Sampling) -> Sequence {
    let max_tokens = Some(ANSWER);
    Sequence { id, prompt: prompt.to_vec(), sampling, max_tokens, ..Sequence::default() }
}

/// What is said until nothing runs, and how many prompt tokens were cached.
fn drain(engine: &mut CandleEngine) -> (HashMap<SequenceId, Vec<u32>>, usize) {
    let (mut told, mut cached) = (HashMap::<SequenceId, Vec<u32>>::new(), 0);
    while !engine.is_idle() {
        for event in engine.step().expect("the engine goes on") {
            match event {
                Event::Token { id, token, .. } => told.entry(id).or_default().push(token),
                Event::Prefilled { cached_tokens, .. } => cached += cached_tokens,
                Event::Failed { error, .. } => panic!("{error}"),
                Event::Finished { .. } => {}
            }
        }
    }
    (told, cached)
}

/// Each by itself, in an engine whose cache is of no use to it.
fn alone(name: &str, sampling: &Sampling) -> HashMap<SequenceId, Vec<u32>> {
    let mut engine = load(name, options(1));
    let prompts = prompts(&engine);
    let mut told = HashMap::new();
    for (id, prompt) in (0..).zip(&prompts) {
        engine.admit(asked(id, prompt, sampling.clone())).expect("there is a slot");
        told.extend(drain(&mut engine).0);
    }
    told
}

/// Of so many texts, how many are not the same.
fn differing(one: &HashMap<SequenceId, Vec<u32>>, other: &HashMap<SequenceId, Vec<u32>>) -> (usize, usize) {
    assert_eq!(one.len(), PROMPTS.len() * SUBJECTS.len());
    (one.iter().filter(|(id, tokens)| other.get(id) != Some(tokens)).count(), one.len())
}

#[test]
fn thirty_two_at_once_say_what_each_says_alone() {
    for name in MODELS {
        let greedy = Sampling::default();
        let alone = alone(name, &greedy);
        // Everything that could make a difference: a full batch, guesses, and a cache for a quarter of them.
        let bound = 32 * 256 / 4 * bytes_per_position(name);
        let mut engine = load(name, LoadOptions { guesses: 16, kv_bytes: Some(bound), ..options(32) });
        for (id, prompt) in (0..).zip(&prompts(&engine)) {
            engine.admit(asked(id, prompt, greedy.clone())).expect("there is a slot");
        }
        let (together, _) = drain(&mut engine);
        let (differing, all) = differing(&alone, &together);
        println!("{name}: {differing} of {all} greedy texts differ between alone and 32 at once");
        assert_eq!(differing, 0, "{name}");
    }
}

#[test]
fn a_cached_beginning_and_guesses_change_no_text_at_any_temperature() {
    let warm =
        Sampling { temperature: 0.8, top_p: 0.95, seed: 7, repeat_penalty: 1.1, ..Sampling::default() };
    let name = MODELS[0];
    let alone = alone(name, &warm);
    let mut engine = load(name, LoadOptions { guesses: 16, ..options(4) });
    let prompts = prompts(&engine);
    let mut cached = Vec::new();
    for _ in 0..2 {
        let mut told = HashMap::new();
        let mut sum = 0;
        for four in (0..).zip(&prompts).collect::<Vec<_>>().chunks(4) {
            for (id, prompt) in four {
                engine.admit(asked(*id, prompt, warm.clone())).expect("there is a slot");
            }
            let (more, found) = drain(&mut engine);
            told.extend(more);
            sum += found;
        }
        cached.push(sum);
        assert_eq!(differing(&alone, &told), (0, 32));
    }
    assert!(cached[1] > cached[0] && cached[0] > 0, "{cached:?}");
}

#[test]
fn an_answer_with_a_schema_is_json_of_it_whoever_guesses() {
    let schema = r#"{"type":"object","properties":{"city":{"type":"string","maxLength":20},
        "population":{"type":"integer","minimum":0,"maximum":99999999},"coastal":{"type":"boolean"}},
        "required":["city","population","coastal"],"additionalProperties":false}"#;
    for name in MODELS {
        let mut told = Vec::new();
        for guesses in [0, 16] {
            let mut engine = load(name, LoadOptions { guesses, ..options(4) });
            let grammar = Grammars::new(engine.tokenizer()).schema(schema).expect("a schema");
            let prompt = engine.tokenizer().encode("A large city as JSON:\n", true, true);
            for id in 0..4 {
                let temperature = [0.0, 0.0, 1.0, 1.5][id as usize];
                let sampling = Sampling { temperature, seed: id, ..Sampling::default() };
                let grammar = Some(grammar.clone()).filter(|_| id > 0);
                engine
                    .admit(Sequence { max_tokens: Some(80), grammar, ..asked(id, &prompt, sampling) })
                    .expect("there is a slot");
            }
            let (answers, _) = drain(&mut engine);
            for id in 1..4 {
                let text = engine.tokenizer().decode(&answers[&id]);
                let value: serde_json::Value =
                    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
                assert!(value["city"].is_string() && value["population"].is_u64(), "{name}: {text}");
                assert!(value["coastal"].is_boolean(), "{name}: {text}");
            }
            told.push(answers);
        }
        assert_eq!(told[0], told[1], "{name}");
    }
}

fn bytes_per_position(name: &str) -> u64 {
    let file = file(name);
    let size = |context_length: usize| {
        let options = LoadOptions { context_length, ..options(1) };
        engine::estimate(file.header(), &options).expect("an estimate").kv_bytes
    };
    (size(256) - size(128)) / 128
}

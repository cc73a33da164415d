//! The two real models say the same on every set of instructions: on those of this processor, and on those of a
//! Haswell, which an emulator stands in for.

#![cfg(target_arch = "x86_64")]

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
};

use engine::{CandleEngine, Engine, Event, LoadOptions, Sequence, Tier};

const MODELS: [&str; 2] = ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"];
/// The model that the test, run again in the emulator, answers with.
const CHILD: &str = "CARAVAN_TEST_TIERS_OF";
/// What the child's answer begins with.
const ANSWER: &str = "tokens of the best tier";

fn path(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models");
    let path = std::env::var_os("CARAVAN_TEST_MODELS").map_or(root, PathBuf::from).join(name);
    assert!(path.is_file(), "{} is missing; `make models` fetches it", path.display());
    path
}

/// The first `count` tokens of a greedy answer.
fn answer(path: &Path, tier: Option<Tier>, count: usize) -> Vec<u32> {
    let options = LoadOptions { context_length: 128, threads: 2, tier, guesses: 0, ..LoadOptions::default() };
    let file = gguf::File::open(path).expect("open the model");
    let mut engine =
        CandleEngine::load(&file, options, &mut |_| ControlFlow::Continue(())).expect("load the model");
    let prompt = engine.tokenizer().encode("The capital of France is", true, true);
    let max_tokens = Some(count);
    engine.admit(Sequence { prompt, max_tokens, ..Sequence::default() }).expect("a free slot");
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().expect("the engine goes on") {
            match event {
                Event::Token { token, .. } => tokens.push(token),
                Event::Failed { error, .. } => panic!("{error}"),
                Event::Prefilled { .. } | Event::Finished { .. } => {}
            }
        }
    }
    tokens
}

#[test]
fn every_tier_says_the_same() {
    for name in MODELS {
        let path = path(name);
        let scalar = answer(&path, Some(Tier::Scalar), 12);
        assert!(scalar.len() > 3, "{name} says only {scalar:?}");
        for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
            assert_eq!(answer(&path, Some(tier), 12), scalar, "{name} on {tier:?}");
        }
    }
}

#[test]
fn an_older_processor_says_the_same() {
    if let Some(path) = std::env::var_os(CHILD) {
        // Not the best tier of this processor, but of the one that is emulated.
        assert_eq!(Tier::detect(), Tier::Avx2, "the emulator is a Haswell");
        println!("{ANSWER} {:?}", answer(Path::new(&path), None, 3));
        return;
    }
    let path = path(MODELS[0]);
    let this = std::env::current_exe().expect("the path of this test");
    let emulator = std::env::var("CARAVAN_QEMU").unwrap_or_else(|_| "qemu-x86_64".to_owned());
    let child = Command::new(&emulator)
        .args(["-cpu", "Haswell"])
        .arg(this)
        .args(["--exact", "an_older_processor_says_the_same", "--nocapture"])
        .env(CHILD, &path)
        .output()
        .unwrap_or_else(|error| panic!("{emulator}: {error}; `make tools` installs it"));
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "in the emulator: {out}{err}");
    let told = out.lines().find_map(|line| line.split_once(ANSWER)).expect("the child answers").1.trim();
    assert_eq!(told, format!("{:?}", answer(&path, None, 3)));
}

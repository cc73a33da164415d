//! What a load was estimated to take and what it then takes, on real models, each in a process of its own.

// The kernel's count of a process's pages is read from /proc.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{ops::ControlFlow, path::PathBuf, process::Command};

use engine::{CandleEngine, Device, Engine, Event, KvType, LoadOptions, Sequence, estimate};

const MODELS: [&str; 2] = ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"];
/// The file that the test, run again as a child, measures.
const CHILD: &str = "CARAVAN_TEST_MEMORY_OF";
/// By how much an estimate may be wrong.
const TOLERANCE: f64 = 0.05;
/// Small, so that filling every slot takes a debug build seconds.
const OPTIONS: LoadOptions = LoadOptions {
    slots: 2,
    context_length: 256,
    threads: 2,
    prefill_chunk: 128,
    kv_bytes: None,
    kv_type: KvType::F16,
    guesses: 0,
    device: Device::Cpu,
    tier: None,
};

#[test]
fn a_full_model_takes_what_was_estimated() {
    if let Some(path) = std::env::var_os(CHILD) {
        return println!("measured {}", fill(path.into()));
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/models");
    let folder = std::env::var_os("CARAVAN_TEST_MODELS").map_or(root, PathBuf::from);
    for model in MODELS {
        let path = folder.join(model);
        let file =
            gguf::File::open(&path).unwrap_or_else(|error| panic!("{error}; `make models` fetches it"));
        let estimate = estimate(file.header(), &OPTIONS).unwrap();
        let told = run_again(&path);
        let wrong = told as f64 / estimate.total_bytes() as f64 - 1.0;
        println!(
            "{model}: {estimate:?}, in all {}, measured {told}: {:+.1} %",
            estimate.total_bytes(),
            wrong * 100.0
        );
        assert!(wrong.abs() <= TOLERANCE, "{model}: {estimate:?}, but {told} bytes were used");
    }
}

/// This test in a process that has loaded nothing yet.
fn run_again(path: &PathBuf) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_full_model_takes_what_was_estimated", "--nocapture"]).env(CHILD, path);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = text.lines().find_map(|line| line.split("measured ").nth(1));
    let told = told.and_then(|told| told.trim().parse().ok());
    told.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Bytes that the model in `path` adds to this process when every position of every slot is in use.
fn fill(path: PathBuf) -> u64 {
    let before = resident();
    let file = gguf::File::open(&path).unwrap();
    let mut engine = CandleEngine::load(&file, OPTIONS, &mut |_| ControlFlow::Continue(())).unwrap();
    drop(file);
    for id in 0..OPTIONS.slots as u64 {
        // Other tokens in each, or they would share their pages.
        let prompt = (0..OPTIONS.context_length as u32).map(|at| 1000 + (at * 7 + id as u32 * 13) % 4000);
        let prompt = prompt.collect();
        engine.admit(Sequence { id, prompt, max_tokens: Some(1), ..Sequence::default() }).unwrap();
    }
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            assert!(!matches!(event, Event::Failed { .. }), "{event:?}");
        }
    }
    resident() - before
}

/// Bytes of this process that are in memory and its own or a file's.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |key| {
        text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    (kib("RssAnon:").unwrap() + kib("RssFile:").unwrap()) * 1024
}

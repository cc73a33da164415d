//! Where the vectors and the real models are.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
pub const GEMMA3: &str = "gemma-3-270m-q4_k_m.gguf";

/// An embedder; see `.ci/bert_to_gguf.py`.
pub const MINILM: &str = "all-MiniLM-L6-v2.f32.gguf";

/// A real model, from the folder named by `CARAVAN_TEST_MODELS`.
pub fn model(name: &str) -> gguf::File {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models");
    let folder = std::env::var_os("CARAVAN_TEST_MODELS").map_or(root, PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing; `make models` fetches it, or name its folder in CARAVAN_TEST_MODELS",
        path.display()
    );
    gguf::File::open(&path).expect("open the model")
}

/// The vectors of one kind.
pub fn vectors<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

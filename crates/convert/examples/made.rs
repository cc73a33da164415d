//! Writes what `tests/make_converted.py` has llama.cpp look at: the small checkpoints of `tests/checkpoints` with their
//! adapters, converted, and the model of `tests/models`, quantized to every type.

#![allow(clippy::unwrap_used, reason = "it is part of the tests")]

#[path = "../tests/checkpoints/encoder.rs"]
#[expect(dead_code, reason = "the tests use what this does not")]
mod encoder;
#[path = "../tests/checkpoints/experts.rs"]
mod experts;
#[path = "../tests/checkpoints/fixture.rs"]
#[expect(dead_code, reason = "the tests use what this does not")]
mod fixture;
#[path = "../tests/checkpoints/lora.rs"]
#[expect(dead_code, reason = "the tests use what this does not")]
mod lora;
#[path = "../tests/models/making.rs"]
mod making;
#[path = "../tests/checkpoints/phi.rs"]
mod phi;
#[path = "../tests/checkpoints/reference.rs"]
#[expect(dead_code, reason = "the tests use what this does not")]
mod reference;
#[path = "../tests/models/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use gguf::Quantization;

fn main() {
    let Some(folder) = std::env::args().nth(1) else { panic!("usage: made FOLDER") };
    let [small, adapters, quantized] =
        ["small", "adapters", "quantized"].map(|part| Path::new(&folder).join(part));
    for folder in [&small, &adapters, &quantized] {
        fs::create_dir_all(folder).unwrap();
    }
    let decoders = reference::decoders().into_iter();
    let checkpoints = decoders.map(|decoder| (decoder.model_type, decoder.checkpoint()));
    let others = [("phi3", phi::checkpoints().1), ("bert", encoder::bert())];
    for (name, checkpoint) in checkpoints.chain(others).chain(experts::mixtures()) {
        let made = checkpoint.convert(Some(Quantization::F32)).unwrap();
        fs::copy(made.folder.path().join("made.gguf"), small.join(format!("{name}.gguf"))).unwrap();
        // The others' modules have other names.
        if !["bert", "phi3", "mixtral", "qwen3moe"].contains(&name) {
            let adapter = lora::Lora::of(&checkpoint).peft().convert(&made).unwrap();
            fs::copy(adapter.folder.path().join("made.gguf"), adapters.join(format!("{name}.gguf"))).unwrap();
        }
    }
    let half = Path::new(&folder).join("half.gguf");
    source::write(&half);
    for quantization in Quantization::all() {
        making::quantize(&half, quantization, &quantized.join(format!("{quantization}.gguf")));
    }
}

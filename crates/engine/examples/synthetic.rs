//! Writes the small models of `tests/architectures`, and into `quantize` below those of `tests/quantize`, to a folder,
//! for the two `make_golden.py`.

#[path = "../tests/quantize/models.rs"]
mod quantize;
#[path = "../tests/architectures/synthetic.rs"]
#[expect(dead_code, reason = "the tests use what this does not")]
mod synthetic;

use std::{error::Error, fs, path::Path};

use candle_core::quantized::GgmlDType;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: synthetic FOLDER")?;
    let small = Path::new(&folder).join("quantize");
    fs::create_dir_all(&small)?;
    for model in quantize::models() {
        fs::write(small.join(format!("{}.gguf", model.name)), model.bytes(GgmlDType::F32))?;
    }
    let models = [synthetic::models(), synthetic::embedders(), synthetic::rerankers()];
    for model in models.into_iter().flatten() {
        let path = Path::new(&folder).join(format!("{}.gguf", model.name));
        fs::write(path, model.bytes(GgmlDType::F32))?;
    }
    Ok(())
}

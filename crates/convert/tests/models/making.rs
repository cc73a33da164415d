//! One model out of another, as a worker makes it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use convert::{Input, Job, convert};
use gguf::Quantization;

pub fn quantize(half: &Path, quantization: Quantization, target: &Path) {
    let files = vec![Input { name: "half.gguf".to_owned(), path: half.to_owned() }];
    let job = Job { files, base: None, quantization: Some(quantization), threads: 2 };
    let mut out = BufWriter::new(File::create(target).expect("create the file"));
    convert(&job, &mut out, &mut |_| ControlFlow::Continue(())).expect("quantize");
    out.flush().expect("write the file");
}

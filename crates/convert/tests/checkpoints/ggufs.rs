//! GGUF files as a source: smaller types, and parts that become one.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use convert::{Error, Input, Job, convert};
use gguf::{Quantization, TensorType, Value, Writer};

use crate::fixture::run;
use crate::reference::decoders;

const ROWS: u64 = 5000;

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// So many tensors of a model, from `first` on.
fn writer(first: usize, count: usize) -> Writer {
    let mut writer = Writer::new();
    writer.metadata("general.architecture", "llama").unwrap();
    writer.metadata("general.name", "whole").unwrap();
    writer.metadata("llama.block_count", 4u32).unwrap();
    for at in first..first + count {
        let values: Vec<f32> =
            (0..256 * ROWS).map(|value| ((value * 7 + at as u64) % 1000) as f32 / 500.0 - 1.0).collect();
        let name = format!("blk.{at}.attn_q.weight");
        writer.tensor(name, &[256, ROWS], TensorType::F32, floats(&values)).unwrap();
        writer
            .tensor(format!("blk.{at}.attn_norm.weight"), &[256], TensorType::F32, floats(&values[..256]))
            .unwrap();
    }
    writer
}

fn write(folder: &Path, name: &str, writer: &Writer) -> Input {
    let path = folder.join(name);
    fs::write(&path, writer.to_bytes().unwrap()).unwrap();
    Input { name: name.to_owned(), path }
}

fn part(folder: &Path, number: u16, count: u16, edit: impl FnOnce(&mut Writer)) -> Input {
    let mut part = writer(usize::from(number) - 1, 1);
    part.metadata("split.no", number - 1).unwrap();
    part.metadata("split.count", count).unwrap();
    edit(&mut part);
    write(folder, &format!("m-{number:05}-of-{count:05}.gguf"), &part)
}

#[test]
fn a_file_of_many_pieces_is_what_one_piece_would_be() {
    let folder = tempfile::tempdir().unwrap();
    let source = write(folder.path(), "m.gguf", &writer(0, 2));
    let make = |threads: usize| {
        let mut bytes = Vec::new();
        let mut told = Vec::new();
        let job = Job {
            files: vec![source.clone()],
            base: None,
            quantization: Some(Quantization::Q4_K_M),
            threads,
        };
        convert(&job, &mut bytes, &mut |step| {
            told.push(step);
            ControlFlow::Continue(())
        })
        .unwrap();
        (bytes, told)
    };
    let (one, told) = make(1);
    assert!(told.len() > 4, "it is told after every piece");
    assert_eq!(
        told.last().map(|step| (step.completed, step.total)),
        Some((2 * (256 * ROWS + 256) * 4, 2 * (256 * ROWS + 256) * 4))
    );
    assert!(told.windows(2).all(|pair| pair[0].completed <= pair[1].completed));
    assert_eq!(one, make(3).0, "threads do not show");
    let made = gguf::Gguf::parse(&one).unwrap();
    assert_eq!(made.file_type(), "Q4_K_M");
    assert_eq!(made.metadata.get("general.quantization_version"), Some(&Value::U32(2)));
    assert_eq!(made.metadata.get("general.name"), Some(&"whole".into()));
    // The tensor was cut into pieces, which meet without a seam.
    let mut whole = Vec::new();
    let values: Vec<f32> = (0..256 * ROWS).map(|value| ((value * 7) % 1000) as f32 / 500.0 - 1.0).collect();
    engine::quantize::quantize(TensorType::Q4K, &values, &mut whole).unwrap();
    let tensor = made.tensor("blk.0.attn_q.weight").unwrap();
    let start = (made.data_offset + tensor.offset) as usize;
    assert!(tensor.kind == TensorType::Q4K && one[start..start + tensor.bytes as usize] == whole);
}

#[test]
fn a_break_ends_the_work_at_the_next_piece() {
    let folder = tempfile::tempdir().unwrap();
    let files = vec![write(folder.path(), "m.gguf", &writer(0, 2))];
    let mut steps = 0;
    let job = Job { files, base: None, quantization: Some(Quantization::Q8_0), threads: 1 };
    let ended = convert(&job, &mut Vec::new(), &mut |_| {
        steps += 1;
        if steps == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(ended, Err(Error::Canceled)));
    assert_eq!(steps, 3);
}

#[test]
fn parts_become_the_file_that_they_were_cut_from() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = |writer: &mut Writer| {
        writer.metadata("split.tensors.count", 6i32).unwrap();
    };
    let mut files: Vec<Input> = (1..=3).map(|number| part(folder.path(), number, 3, tensors)).collect();
    files.reverse();
    let target = folder.path().join("made.gguf");
    assert_eq!(run(files.clone(), None, &target).unwrap(), ["parsing GGUF", "validating GGUF model"]);
    assert!(fs::read(&target).unwrap() == writer(0, 3).to_bytes().unwrap());
    assert!(run(files, Some(Quantization::F16), &target).is_ok(), "and smaller at once");
}

#[test]
fn parts_that_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let target = path.join("made.gguf");
    let nothing = |_: &mut Writer| {};
    let one = part(path, 1, 2, nothing);
    let two = part(path, 2, 2, nothing);
    let refused = |files: &[&Input]| {
        let files = files.iter().map(|&input| input.clone()).collect();
        run(files, None, &target).unwrap_err().to_string()
    };
    assert_eq!(refused(&[&two]), "m-00002-of-00002.gguf: it is one of 2 parts, the others are missing");
    let named = |name: &str, input: &Input| Input { name: name.to_owned(), ..input.clone() };
    assert_eq!(
        refused(&[&one, &named("n-00002-of-00002.gguf", &two)]),
        "n-00002-of-00002.gguf: it is no part of the same model as the other files"
    );
    assert!(
        refused(&[&one, &named("m-00001-of-00002.gguf", &two)])
            .contains("the model has 2 parts, 2 of them are there")
    );
    assert!(
        refused(&[&named("m-00001-of-00003.gguf", &one), &named("m-00003-of-00003.gguf", &two)])
            .contains("has 3 parts, 2")
    );
    assert_eq!(
        refused(&[&named("m-00002-of-00002.gguf", &one), &named("m-00001-of-00002.gguf", &two)]),
        "m-00001-of-00002.gguf: `split.no` must be 0 by the file's name, got 1"
    );
    let plain = named("m-00002-of-00002.gguf", &write(path, "plain.gguf", &writer(5, 1)));
    assert!(refused(&[&one, &plain]).ends_with("`split.no` must be 1 by the file's name, got nothing"));
    let twice = part(path, 2, 2, |writer| {
        writer.tensor("blk.0.attn_norm.weight", &[1], TensorType::F32, vec![0; 4]).unwrap();
    });
    assert!(
        refused(&[&one, &twice])
            .contains("`blk.0.attn_norm.weight` is in m-00002-of-00002.gguf and in a part before it")
    );
    let two = part(path, 2, 2, nothing);
    let counted = part(path, 1, 2, |writer| {
        writer.metadata("split.tensors.count", 9u32).unwrap();
    });
    assert!(refused(&[&counted, &two]).contains("`split.tensors.count` is 9, the parts have"));
}

#[test]
fn numbers_that_no_model_has_are_refused_by_tensor() {
    let folder = tempfile::tempdir().unwrap();
    for (value, expected) in [
        (f32::NAN, "has the value NaN, which is not a finite number"),
        (f32::INFINITY, "has the value inf, which is not a finite number"),
        (1e9, "has the value 1000000000, Q8_0 holds ±65504 at most"),
    ] {
        let mut writer = writer(0, 1);
        let mut values = vec![0.5f32; 512];
        values[300] = value;
        writer.tensor("output.weight", &[256, 2], TensorType::F32, floats(&values)).unwrap();
        let files = vec![write(folder.path(), "m.gguf", &writer)];
        let error = run(files, Some(Quantization::Q8_0), &folder.path().join("made")).unwrap_err();
        assert_eq!(error.to_string(), format!("tensor `output.weight` {expected}"));
    }
}

#[test]
fn a_checkpoint_that_was_converted_can_be_quantized_later() {
    let made = decoders()[1].checkpoint().convert(Some(Quantization::BF16)).unwrap();
    let input = Input { name: "m.gguf".to_owned(), path: made.folder.path().join("made.gguf") };
    let target = made.folder.path().join("smaller.gguf");
    let told = run(vec![input], Some(Quantization::Q5_K_M), &target).unwrap();
    assert_eq!(told, ["parsing GGUF", "quantizing BF16 model to Q5_K_M"]);
    let input = Input { name: "m.gguf".to_owned(), path: target };
    let error = run(vec![input], Some(Quantization::Q4_0), &made.folder.path().join("no")).unwrap_err();
    assert!(matches!(error, Error::Quantized));
}

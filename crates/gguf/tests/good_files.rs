//! Files that are right: look-ups, the names people see, and the laws that hold for any file.
#![allow(clippy::unwrap_used, reason = "tests may, and their helpers are tests too")]

use std::io::Write;

use gguf::{Array, Gguf, TensorType, Value, Writer};
use proptest::prelude::*;

fn small_model() -> Writer {
    let mut writer = Writer::new();
    writer.metadata("general.architecture", "llama").unwrap();
    writer.metadata("general.file_type", 15u32).unwrap();
    writer.metadata("llama.context_length", 2048u32).unwrap();
    writer.metadata("llama.rope.freq_base", 10_000f32).unwrap();
    writer.metadata("llama.signed", -1i32).unwrap();
    writer.metadata("tokenizer.ggml.tokens", vec!["a".to_owned(), "ä".to_owned()]).unwrap();
    writer.metadata("tokenizer.ggml.token_type", vec![1i32, 3]).unwrap();
    writer.tensor("token_embd.weight", &[2, 3], TensorType::F32, (0..24).collect()).unwrap();
    writer.tensor("output.weight", &[32, 1], TensorType::Q8_0, vec![9; 34]).unwrap();
    writer
}

#[test]
fn metadata_is_read_by_type_and_by_architecture() {
    let gguf = Gguf::parse(&small_model().to_bytes().unwrap()).unwrap();
    let metadata = &gguf.metadata;
    assert_eq!(gguf.architecture().unwrap(), "llama");
    assert_eq!(metadata.arch_u64("context_length").unwrap(), Some(2048));
    assert_eq!(metadata.arch_u64("block_count").unwrap(), None);
    assert_eq!(metadata.arch_f32("rope.freq_base").unwrap(), Some(10_000.0));
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap(), ["a", "ä"]);
    assert_eq!(metadata.integers("tokenizer.ggml.token_type").unwrap(), Some(vec![1, 3]));
    assert_eq!(
        metadata.arch_u64("signed").unwrap_err().to_string(),
        "metadata key `llama.signed` must be an integer that is not negative, got i32 -1"
    );
    assert_eq!(
        metadata.f32("tokenizer.ggml.tokens").unwrap_err().to_string(),
        "metadata key `tokenizer.ggml.tokens` must be a float, got array of string"
    );
    let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
    assert_eq!(keys[..2], ["general.architecture", "general.file_type"]);
}

#[test]
fn a_file_without_architecture_says_so() {
    let gguf = Gguf::parse(&Writer::new().to_bytes().unwrap()).unwrap();
    assert_eq!(
        gguf.architecture().unwrap_err().to_string(),
        "metadata key `general.architecture` is missing"
    );
    assert_eq!(gguf.file_type(), "unknown");
    assert_eq!(gguf.parameter_count(), 0);
}

#[test]
fn a_mapped_file_hands_out_the_bytes_of_each_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    small_model().write(std::fs::File::create(&path).unwrap()).unwrap();
    let file = gguf::File::open(&path).unwrap();
    let header = file.header();
    assert_eq!(header.file_type(), "Q4_K_M");
    assert_eq!(header.parameter_count(), 6 + 32);
    let embedding = header.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.shape.as_slice(), embedding.kind), ([2, 3].as_slice(), TensorType::F32));
    assert_eq!(file.data(embedding), (0..24).collect::<Vec<u8>>());
    assert_eq!(file.data(header.tensor("output.weight").unwrap()), [9; 34]);
    assert!(header.tensor("missing").is_none());
    assert_eq!(file.len(), std::fs::metadata(&path).unwrap().len());
}

#[test]
fn a_tensor_of_another_file_yields_no_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.gguf");
    Writer::new().write(std::fs::File::create(&path).unwrap()).unwrap();
    let other = Gguf::parse(&small_model().to_bytes().unwrap()).unwrap();
    let file = gguf::File::open(&path).unwrap();
    assert!(file.data(other.tensor("output.weight").unwrap()).is_empty());
}

#[test]
fn an_alignment_of_the_file_moves_the_data() {
    let mut writer = small_model();
    writer.metadata("general.alignment", 4096u32).unwrap();
    let gguf = Gguf::parse(&writer.to_bytes().unwrap()).unwrap();
    assert_eq!((gguf.alignment, gguf.data_offset), (4096, 4096));
    assert_eq!(gguf.tensor("output.weight").unwrap().offset, 4096);
}

#[test]
fn a_tensor_that_is_made_while_writing_reads_like_one_that_was_there() {
    let (mut made, mut there) = (small_model(), small_model());
    let bytes: Vec<u8> = (0..36).collect();
    there.tensor("late", &[64], TensorType::Q4_0, bytes.clone()).unwrap();
    let produce = move |out: &mut dyn Write| bytes.chunks(5).try_for_each(|chunk| out.write_all(chunk));
    made.tensor_stream("late", &[64], TensorType::Q4_0, produce).unwrap();
    assert_eq!(made.to_bytes().unwrap(), there.to_bytes().unwrap());
}

#[test]
fn a_tensor_that_is_made_with_another_length_is_refused() {
    for length in [35, 37] {
        let mut writer = small_model();
        let produce = move |out: &mut dyn Write| out.write_all(&vec![0; length]);
        writer.tensor_stream("late", &[64], TensorType::Q4_0, produce).unwrap();
        let told = writer.to_bytes().unwrap_err().to_string();
        assert_eq!(told, format!("tensor `late` was given {length} bytes, its shape and type need 36"));
    }
}

#[test]
fn version_two_is_read_like_three() {
    let mut bytes = small_model().to_bytes().unwrap();
    bytes[4] = 2;
    assert_eq!(Gguf::parse(&bytes).unwrap().version, 2);
}

#[test]
fn strings_that_are_not_utf8_are_kept_byte_for_byte() {
    let mut writer = Writer::new();
    let broken = Array::Bytes(vec![b"fine".to_vec(), vec![0xe2, 0x82]]);
    writer.metadata("tokenizer.ggml.tokens", broken.clone()).unwrap();
    writer.metadata("general.license", Value::Bytes(vec![0xff])).unwrap();
    let gguf = Gguf::parse(&writer.to_bytes().unwrap()).unwrap();
    assert_eq!(gguf.metadata.get("tokenizer.ggml.tokens"), Some(&Value::Array(broken)));
    assert_eq!(gguf.metadata.get("general.license"), Some(&Value::Bytes(vec![0xff])));
    assert_eq!(
        gguf.metadata.str("general.license").unwrap_err().to_string(),
        "metadata key `general.license` must be a UTF-8 string, got string that is not UTF-8"
    );
}

fn array(depth: u32) -> BoxedStrategy<Array> {
    let scalars = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..5).prop_map(Array::U8),
        prop::collection::vec(any::<i8>(), 0..5).prop_map(Array::I8),
        prop::collection::vec(any::<u16>(), 0..5).prop_map(Array::U16),
        prop::collection::vec(any::<i16>(), 0..5).prop_map(Array::I16),
        prop::collection::vec(any::<u32>(), 0..5).prop_map(Array::U32),
        prop::collection::vec(any::<i32>(), 0..5).prop_map(Array::I32),
        prop::collection::vec(-1e9f32..1e9, 0..5).prop_map(Array::F32),
        prop::collection::vec(any::<bool>(), 0..5).prop_map(Array::Bool),
        prop::collection::vec(".{0,8}", 0..5).prop_map(Array::String),
        prop::collection::vec(any::<u64>(), 0..5).prop_map(Array::U64),
        prop::collection::vec(any::<i64>(), 0..5).prop_map(Array::I64),
        prop::collection::vec(-1e9f64..1e9, 0..5).prop_map(Array::F64),
    ];
    if depth == 0 {
        return scalars.boxed();
    }
    let nested = prop::collection::vec(array(depth - 1), 0..3).prop_map(Array::Nested);
    prop_oneof![4 => scalars, 1 => nested].boxed()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e9f32..1e9).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::String),
        array(2).prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e9f64..1e9).prop_map(Value::F64),
    ]
}

type Plan = (Vec<(String, Value)>, Vec<(String, Vec<u64>, TensorType)>);

/// Metadata and tensors with unique names; each row is one block long.
fn plan() -> impl Strategy<Value = Plan> {
    let metadata = prop::collection::btree_map("[a-z.]{1,12}", value(), 0..6);
    let kind = prop::sample::select(TensorType::all().collect::<Vec<_>>());
    let tensor = (prop::collection::vec(1u64..4, 0..3), kind);
    let tensors = prop::collection::btree_map("[a-z0-9._]{1,12}", tensor, 0..5);
    (metadata, tensors).prop_map(|(metadata, tensors)| {
        let tensors = tensors.into_iter().map(|(name, (rest, kind))| {
            let shape = [vec![kind.block_elements()], rest].concat();
            (name, shape, kind)
        });
        (metadata.into_iter().collect(), tensors.collect())
    })
}

fn build(plan: &Plan) -> Vec<u8> {
    let mut writer = Writer::new();
    for (key, value) in &plan.0 {
        writer.metadata(key.clone(), value.clone()).unwrap();
    }
    for (name, shape, kind) in &plan.1 {
        let data = vec![name.len() as u8; kind.tensor_bytes(shape).unwrap() as usize];
        writer.tensor(name.clone(), shape, *kind, data).unwrap();
    }
    writer.to_bytes().unwrap()
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Gguf::parse(&bytes);
        let headed = [b"GGUF\x03\0\0\0".as_slice(), &bytes].concat();
        let _ = Gguf::parse(&headed);
    }

    #[test]
    fn what_the_writer_wrote_the_parser_reads(plan in plan()) {
        let bytes = build(&plan);
        let gguf = Gguf::parse(&bytes).unwrap();
        prop_assert_eq!(gguf.metadata.len(), plan.0.len());
        for (key, value) in &plan.0 {
            prop_assert_eq!(gguf.metadata.get(key), Some(value));
        }
        for (name, shape, kind) in &plan.1 {
            let tensor = gguf.tensor(name).unwrap();
            prop_assert_eq!((&tensor.shape, tensor.kind), (shape, *kind));
            let start = (gguf.data_offset + tensor.offset) as usize;
            let data = &bytes[start..start + tensor.bytes as usize];
            prop_assert!(data.iter().all(|&byte| byte == name.len() as u8));
        }
    }

    /// Flipping anything in a good file gives an error or a file whose tensors all lie inside it.
    #[test]
    fn a_damaged_file_never_panics_nor_points_outside(
        plan in plan(), at in any::<prop::sample::Index>(), damage in prop::collection::vec(any::<u8>(), 1..12)
    ) {
        let mut bytes = build(&plan);
        let at = at.index(bytes.len());
        let end = (at + damage.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&damage[..end - at]);
        if let Ok(gguf) = Gguf::parse(&bytes) {
            for tensor in &gguf.tensors {
                prop_assert!(gguf.data_offset + tensor.offset + tensor.bytes <= bytes.len() as u64);
            }
        }
    }
}

#[test]
fn the_beginning_of_a_file_is_enough_when_the_header_is_in_it() {
    let whole = small_model().to_bytes().unwrap();
    let expected = Gguf::parse(&whole).unwrap();
    // The last tensor's entry ends somewhere in the padding before the data.
    let end = expected.data_offset as usize - expected.alignment as usize;
    let mut length = 8;
    while length <= end {
        match Gguf::parse_head(&whole[..length], whole.len() as u64) {
            Err(gguf::Error::Header { bound, end, .. }) => {
                assert!(bound == length && end > length as u128, "{length}: {bound} {end}");
            }
            other => panic!("{length} bytes of {end}: {other:?}"),
        }
        length += 1;
    }
    let head = Gguf::parse_head(&whole[..expected.data_offset as usize], whole.len() as u64).unwrap();
    assert_eq!(format!("{:?}", head.tensors), format!("{:?}", expected.tensors));
    assert_eq!(head.data_offset, expected.data_offset);
    let ends = expected.tensors.iter().map(|tensor| tensor.offset + tensor.bytes);
    let short = expected.data_offset + ends.max().unwrap() - 1;
    let cut = Gguf::parse_head(&whole[..expected.data_offset as usize], short).unwrap_err();
    assert!(matches!(cut, gguf::Error::OutOfFile { .. }), "{cut}");
}

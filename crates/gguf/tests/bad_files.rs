//! Files that lie. Each is refused with a text that names the field, the bound and the value.
#![allow(clippy::unwrap_used, reason = "tests may, and their helpers are tests too")]

use gguf::{Error, Gguf, TensorType, Writer};

/// A file built field by field, so that any field can be wrong.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn header(version: u32, tensors: u64, entries: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(version).u64(tensors).u64(entries)
    }

    fn u32(mut self, value: u32) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend(bytes);
        self
    }

    fn string(self, text: &str) -> Raw {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }

    fn tensor(self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Raw {
        let raw = self.string(name).u32(shape.len() as u32);
        shape.iter().fold(raw, |raw, &dimension| raw.u64(dimension)).u32(kind).u64(offset)
    }

    /// Pads to the default alignment, then adds `count` bytes of data.
    fn data(mut self, count: usize) -> Raw {
        self.0.resize(self.0.len().next_multiple_of(32) + count, 0);
        self
    }

    fn refusal(self) -> String {
        Gguf::parse(&self.0).expect_err("the file must be refused").to_string()
    }
}

const F32: u32 = 0;

#[test]
fn something_else_than_a_gguf_is_named() {
    let refusal = |bytes: &[u8]| Gguf::parse(bytes).unwrap_err().to_string();
    assert_eq!(
        refusal(b"PK\x03\x04rest"),
        "not a GGUF file: it starts with [50, 4b, 03, 04], expected \"GGUF\""
    );
    assert_eq!(refusal(b""), "not a GGUF file: it starts with [], expected \"GGUF\"");
    assert_eq!(refusal(b"GGUF"), "`version` needs 4 bytes at offset 4, but only 0 are left in the file");
}

#[test]
fn versions_other_than_two_and_three_are_named() {
    assert_eq!(Raw::header(1, 0, 0).refusal(), "GGUF `version` must be 2 or 3, got 1");
    assert_eq!(Raw::header(4, 0, 0).refusal(), "GGUF `version` must be 2 or 3, got 4");
    assert_eq!(Raw::header(3u32.swap_bytes(), 0, 0).refusal(), "big-endian GGUF files are not supported");
    assert_eq!(Raw(b"FUGG".to_vec()).refusal(), "big-endian GGUF files are not supported");
}

#[test]
fn counts_larger_than_the_file_are_refused_before_anything_is_allocated() {
    assert_eq!(
        Raw::header(3, 0, u64::MAX).refusal(),
        "`metadata_kv_count` (18446744073709551615 items) needs 239807672958224170995 bytes at offset 24, \
         but only 0 are left in the file"
    );
    assert_eq!(
        Raw::header(3, 1 << 40, 0).bytes(&[0; 100]).refusal(),
        "`tensor_count` (1099511627776 items) needs 26388279066624 bytes at offset 24, \
         but only 100 are left in the file"
    );
}

#[test]
fn lengths_larger_than_the_file_name_their_key() {
    let key = Raw::header(3, 0, 1).u64(1 << 60).bytes(&[0; 20]);
    assert_eq!(
        key.refusal(),
        "the key of metadata entry 0 needs 1152921504606846976 bytes at offset 32, but only 20 are left in the file"
    );
    let string = Raw::header(3, 0, 1).string("general.name").u32(8).u64(999).bytes(b"short");
    assert_eq!(
        string.refusal(),
        "metadata key `general.name` needs 999 bytes at offset 56, but only 5 are left in the file"
    );
    let array = Raw::header(3, 0, 1).string("scores").u32(9).u32(6).u64(u64::MAX).bytes(&[0; 8]);
    assert_eq!(
        array.refusal(),
        "the array of metadata key `scores` (18446744073709551615 items) needs 73786976294838206460 bytes \
         at offset 54, but only 8 are left in the file"
    );
    let strings = Raw::header(3, 0, 1).string("tokens").u32(9).u32(8).u64(2).string("a").u64(77);
    assert_eq!(
        strings.refusal(),
        "item 1 of metadata key `tokens` needs 77 bytes at offset 71, but only 0 are left in the file"
    );
}

#[test]
fn unknown_value_types_and_strange_bools_are_refused() {
    let value = Raw::header(3, 0, 1).string("k").u32(13).u64(0);
    assert_eq!(value.refusal(), "metadata key `k` has the unknown value type 13, the last known one is 12");
    let element = Raw::header(3, 0, 1).string("k").u32(9).u32(77).u64(0);
    assert_eq!(element.refusal(), "metadata key `k` has the unknown value type 77, the last known one is 12");
    let boolean = Raw::header(3, 0, 1).string("k").u32(7).bytes(&[2]);
    assert_eq!(boolean.refusal(), "metadata key `k` has a bool of 2, must be 0 or 1");
}

#[test]
fn arrays_nest_four_deep_and_no_deeper() {
    let nested = |levels: usize| {
        let raw = (1..levels).fold(Raw::header(3, 0, 1).string("k").u32(9), |raw, _| raw.u32(9).u64(1));
        raw.u32(0).u64(1).bytes(&[5])
    };
    assert!(Gguf::parse(&nested(4).0).is_ok());
    assert_eq!(nested(5).refusal(), "metadata key `k` nests arrays deeper than 4");
}

#[test]
fn a_key_or_a_tensor_that_occurs_twice_is_refused() {
    let keys = Raw::header(3, 0, 2).string("k").u32(0).bytes(&[1]).string("k").u32(0).bytes(&[1]);
    assert_eq!(keys.refusal(), "metadata key `k` occurs twice");
    let tensors = Raw::header(3, 2, 0).tensor("t", &[8], F32, 0).tensor("t", &[8], F32, 32).data(64);
    assert_eq!(tensors.refusal(), "tensor `t` occurs twice");
}

#[test]
fn names_must_be_utf8() {
    let raw = Raw::header(3, 0, 1).u64(2).bytes(&[0xff, 0xfe]).u32(0).bytes(&[1]);
    assert_eq!(raw.refusal(), "the key of metadata entry 0 is not valid UTF-8");
    let raw = Raw::header(3, 1, 0).u64(1).bytes(&[0x80]).u32(0).u32(F32).u64(0);
    assert_eq!(raw.refusal(), "the name of tensor 0 is not valid UTF-8");
}

#[test]
fn an_alignment_must_be_a_power_of_two_within_reason() {
    for found in [0u32, 24, 1 << 21] {
        let raw = Raw::header(3, 0, 1).string("general.alignment").u32(4).u32(found);
        let expected = format!("`general.alignment` must be a power of two up to 1048576, got {found}");
        assert_eq!(raw.refusal(), expected);
    }
    let raw = Raw::header(3, 0, 1).string("general.alignment").u32(5).u32(u32::MAX);
    assert_eq!(
        raw.refusal(),
        "metadata key `general.alignment` must be an integer that is not negative, got i32 -1"
    );
}

#[test]
fn an_unknown_tensor_type_names_the_tensor_and_the_id() {
    // 4 was Q4_2, removed long ago.
    for found in [4, 42, u32::MAX] {
        let raw = Raw::header(3, 1, 0).tensor("blk.0.attn_q.weight", &[32], found, 0).data(64);
        assert_eq!(raw.refusal(), format!("tensor `blk.0.attn_q.weight` has the unknown type id {found}"));
    }
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let refusal = |shape: &[u64], kind: TensorType| {
        Raw::header(3, 1, 0).tensor("t", shape, kind.id(), 0).data(64).refusal()
    };
    assert_eq!(refusal(&[1, 1, 1, 1, 1], TensorType::F32), "tensor `t` has 5 dimensions, the bound is 4");
    assert_eq!(refusal(&[4, 0], TensorType::F32), "tensor `t` has an empty dimension in its shape [4, 0]");
    assert_eq!(
        refusal(&[48, 2], TensorType::Q4_0),
        "tensor `t` has rows of 48 elements, Q4_0 needs a multiple of 32"
    );
    assert_eq!(
        refusal(&[1 << 32, 1 << 32], TensorType::F32),
        "tensor `t` is larger than any file: its shape is [4294967296, 4294967296]"
    );
    assert_eq!(
        refusal(&[1 << 62], TensorType::F32),
        "tensor `t` is larger than any file: its shape is [4611686018427387904]"
    );
}

#[test]
fn a_lying_dimension_count_does_not_allocate() {
    let raw = Raw::header(3, 1, 0).string("t").u32(u32::MAX).bytes(&[0; 32]);
    assert_eq!(raw.refusal(), "tensor `t` has 4294967295 dimensions, the bound is 4");
}

#[test]
fn tensors_must_be_aligned_inside_the_file_and_apart() {
    let raw = Raw::header(3, 1, 0).tensor("t", &[8], F32, 16).data(64);
    assert_eq!(raw.refusal(), "tensor `t` starts at offset 16, must be a multiple of the alignment 32");
    let raw = Raw::header(3, 1, 0).tensor("t", &[8], F32, 64).data(64);
    assert_eq!(raw.refusal(), "tensor `t` ends at byte 96 of the data, which has only 64 bytes");
    let raw = Raw::header(3, 1, 0).tensor("t", &[8], F32, u64::MAX - 31).data(64);
    assert_eq!(
        raw.refusal(),
        "tensor `t` ends at byte 18446744073709551616 of the data, which has only 64 bytes"
    );
    let raw = Raw::header(3, 2, 0).tensor("b", &[16], F32, 32).tensor("a", &[16], F32, 0).data(96);
    assert_eq!(raw.refusal(), "tensors `a` and `b` overlap at offset 32 of the data");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let mut writer = Writer::new();
    writer.metadata("general.architecture", "llama").unwrap();
    writer.metadata("tokens", vec!["a".to_owned(), "b".to_owned()]).unwrap();
    writer.tensor("t", &[4], TensorType::F32, vec![7; 16]).unwrap();
    let whole = writer.to_bytes().unwrap();
    // The padding after the last tensor may be missing, its last byte may not.
    let needed = whole.len() - 16;
    for length in 0..needed {
        assert!(Gguf::parse(&whole[..length]).is_err(), "cut at {length}");
    }
    assert!(Gguf::parse(&whole[..needed]).is_ok());
}

#[test]
fn the_writer_refuses_what_the_parser_would() {
    let mut writer = Writer::new();
    let too_short = writer.tensor("t", &[4], TensorType::F32, vec![0; 15]).unwrap_err();
    assert_eq!(too_short.to_string(), "tensor `t` was given 15 bytes, its shape and type need 16");
    let flat = writer.tensor("t", &[1; 5], TensorType::F32, vec![0; 4]).unwrap_err();
    assert_eq!(flat.to_string(), "tensor `t` has 5 dimensions, the bound is 4");
    writer.tensor("t", &[1], TensorType::F32, vec![0; 4]).unwrap();
    let again = writer.tensor("t", &[1], TensorType::F32, vec![0; 4]).unwrap_err();
    assert!(matches!(again, Error::DuplicateTensor { .. }));
    writer.metadata("k", 1u32).unwrap();
    assert!(matches!(writer.metadata("k", 2u32), Err(Error::DuplicateKey { .. })));
    writer.metadata("general.alignment", 3u32).unwrap();
    assert!(matches!(writer.to_bytes(), Err(Error::Alignment { found: 3, .. })));
}

#[test]
fn a_file_that_is_not_there_names_its_path() {
    let error = gguf::File::open(std::path::Path::new("/nowhere/model.gguf")).unwrap_err();
    assert_eq!(error.to_string(), "open `/nowhere/model.gguf`");
}

#[test]
fn a_huge_file_of_nothing_but_metadata_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.gguf");
    let start = Raw::header(3, 0, 1).string("k").u32(9).u32(0).u64(600 << 20);
    std::fs::write(&path, &start.0).unwrap();
    // Sparse: the file claims 700 MiB and takes one page.
    std::fs::File::options().append(true).open(&path).unwrap().set_len(700 << 20).unwrap();
    let error = gguf::File::open(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the array of metadata key `k` (629145600 items) ends at byte 629145649, a header may have 536870912 bytes"
    );
}

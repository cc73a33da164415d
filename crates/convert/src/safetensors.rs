//! The safetensors format: eight bytes of length, a JSON header, and the data, of which every byte belongs to exactly
//! one tensor.
//!
//! Format: <https://github.com/huggingface/safetensors>.

use std::path::Path;
use std::sync::Arc;

use gguf::TensorType;
use serde_json::Value;

use crate::Error;
use crate::fp8;
use crate::json::{Json, kind};
use crate::source::{Source, Span};

/// Some 150 bytes for each tensor: enough for two hundred thousand. The format's own reader takes three times as much.
const MAX_HEADER: u64 = 32 << 20;
/// No tensor of a checkpoint has more.
const MAX_DIMENSIONS: usize = 4;

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub kind: TensorType,
    /// Bytes that are numbers of [`crate::fp8`]; the kind, which has no name for them, is a byte's.
    pub is_fp8: bool,
    /// The contiguous dimension last.
    pub shape: Vec<u64>,
    pub span: Span,
}

/// Names and tensors of one file.
pub(crate) fn read(name: &str, path: &Path) -> Result<Vec<(String, Stored)>, Error> {
    let source = Source::open(name, path)?;
    let (header, data_start) = header(&source)?;
    let mut tensors = Vec::with_capacity(header.map.len());
    for (tensor, entry) in &header.map {
        if tensor == "__metadata__" {
            continue;
        }
        tensors.push((tensor.clone(), stored(&source, data_start, tensor, entry)?));
    }
    check_cover(&source, data_start, &tensors)?;
    Ok(tensors)
}

fn header(source: &Arc<Source>) -> Result<(Json, u64), Error> {
    let wrong = |problem: String| Error::file(source.name(), problem);
    let length =
        source.span(0, 8).ok_or_else(|| wrong("it is no safetensors file: it has no header".to_owned()))?;
    let mut bytes = [0; 8];
    length.read(0, &mut bytes)?;
    let length = u64::from_le_bytes(bytes);
    if length > MAX_HEADER {
        return Err(wrong(format!("the header must have at most {MAX_HEADER} bytes, it claims {length}")));
    }
    let header = source
        .span(8, length)
        .ok_or_else(|| wrong(format!("the header claims {length} bytes, the file has {}", source.len())))?;
    Ok((Json::parse(source.name(), &header.all()?)?, 8 + length))
}

fn stored(source: &Arc<Source>, data_start: u64, tensor: &str, entry: &Value) -> Result<Stored, Error> {
    let wrong = |problem: String| Error::tensor(tensor, format!("of {}: {problem}", source.name()));
    let field = |key: &str| entry.get(key).ok_or_else(|| wrong(format!("`{key}` is missing")));
    let dtype = field("dtype")?;
    let kind_of = match dtype.as_str() {
        Some("F32") => TensorType::F32,
        Some("F16") => TensorType::F16,
        Some("BF16") => TensorType::BF16,
        // Tables of positions; they are never kept, but they are counted.
        Some("I64" | "U64") => TensorType::I64,
        Some("F64") => TensorType::F64,
        Some("I32" | "U32") => TensorType::I32,
        Some("I16" | "U16") => TensorType::I16,
        Some("I8" | "U8" | "BOOL" | fp8::DTYPE) => TensorType::I8,
        _ => return Err(wrong(format!("`dtype` must be F32, F16, BF16 or F8_E4M3, got {}", kind(dtype)))),
    };
    let numbers = |key: &str| -> Result<Vec<u64>, Error> {
        let value = field(key)?;
        let items =
            value.as_array().and_then(|items| items.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>());
        items.ok_or_else(|| wrong(format!("`{key}` must be a list of integers that are not negative")))
    };
    let shape = numbers("shape")?;
    if shape.len() > MAX_DIMENSIONS {
        return Err(wrong(format!(
            "`shape` must have at most {MAX_DIMENSIONS} dimensions, got {}",
            shape.len()
        )));
    }
    let [start, end] = numbers("data_offsets")?[..] else {
        return Err(wrong("`data_offsets` must be two integers".to_owned()));
    };
    let elements = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
    let bytes = elements.and_then(|elements| elements.checked_mul(kind_of.block_bytes()));
    let claimed = end.checked_sub(start);
    if bytes.is_none() || bytes != claimed {
        let needed = bytes.map_or_else(|| "more than any file has".to_owned(), |bytes| bytes.to_string());
        return Err(wrong(format!(
            "its shape {shape:?} needs {needed} bytes, `data_offsets` are {start} and {end}"
        )));
    }
    let span = data_start.checked_add(start).and_then(|from| source.span(from, end - start));
    let span = span.ok_or_else(|| {
        wrong(format!("it ends at byte {end} of the data, which has {}", source.len() - data_start))
    })?;
    Ok(Stored { kind: kind_of, is_fp8: dtype == fp8::DTYPE, shape, span })
}

/// Every byte of the data belongs to one tensor: none to two, none to none.
fn check_cover(source: &Source, data_start: u64, tensors: &[(String, Stored)]) -> Result<(), Error> {
    let mut ranges: Vec<(u64, u64, &str)> = tensors
        .iter()
        .map(|(name, stored)| (stored.span.start(), stored.span.start() + stored.span.bytes, name.as_str()))
        .collect();
    ranges.sort_unstable();
    let mut end = data_start;
    for (start, stop, name) in ranges {
        if start != end {
            let how = if start < end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(Error::tensor(
                name,
                format!("of {} {how}, at byte {}", source.name(), start - data_start),
            ));
        }
        end = stop;
    }
    match end == source.len() {
        true => Ok(()),
        false => {
            let problem = format!("the tensors end at byte {end}, the file has {}", source.len());
            Err(Error::file(source.name(), problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read("m.safetensors", file.path()).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}"#;
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file(header, 16)).unwrap();
        let tensors = read("m.safetensors", path.path()).unwrap();
        assert_eq!(tensors.len(), 2);
        assert_eq!((tensors[0].1.shape.as_slice(), tensors[0].1.span.bytes), ([2, 3].as_slice(), 12));
    }

    #[test]
    fn headers_that_lie_are_refused_by_name() {
        let tensor = |fields: &str, data: usize| refusal(&file(&format!(r#"{{"a":{{{fields}}}}}"#), data));
        let whole = r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#;
        let cases = [
            (refusal(b"tiny"), "it has no header"),
            (refusal(&u64::MAX.to_le_bytes()), "at most 33554432 bytes, it claims 18446744073709551615"),
            (refusal(&1000u64.to_le_bytes()), "the header claims 1000 bytes, the file has 8"),
            (refusal(&file("[]", 0)), "must be a JSON object"),
            (refusal(&file("{", 0)), "it is no JSON"),
            (refusal(&file(&("{\"a\":".repeat(5000) + "1" + &"}".repeat(5000)), 0)), "recursion limit"),
            (tensor(r#""shape":[2],"data_offsets":[0,8]"#, 8), "`dtype` is missing"),
            (
                tensor(&whole.replace("F32", "F8_E5M2"), 8),
                "must be F32, F16, BF16 or F8_E4M3, got \"F8_E5M2\"",
            ),
            (tensor(&whole.replace("[2]", "[-2]"), 8), "`shape` must be a list of integers"),
            (tensor(&whole.replace("[2]", "[1,1,1,1,2]"), 8), "at most 4 dimensions, got 5"),
            (tensor(&whole.replace("[2]", "[4294967296,4294967296]"), 8), "more than any file has"),
            (tensor(&whole.replace("[2]", "[3]"), 8), "needs 12 bytes"),
            (tensor(&whole.replace("[0,8]", "[8,0]"), 8), "`data_offsets` are 8 and 0"),
            (tensor(&whole.replace("[0,8]", "[0]"), 8), "must be two integers"),
            (tensor(whole, 4), "ends at byte 8 of the data, which has 4"),
            (tensor(whole, 12), "the tensors end at byte"),
            (tensor(&whole.replace("[0,8]", "[4,12]"), 12), "leaves a gap before it"),
        ];
        for (text, expected) in cases {
            assert!(text.contains(expected), "{text} does not say {expected}");
        }
        let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        assert!(refusal(&file(two, 12)).contains("tensor `b` of m.safetensors overlaps"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..150) {
            let whole = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
            let mut broken = whole.clone();
            for (old, new) in broken.iter_mut().skip(at).zip(&bytes) {
                *old = *new;
            }
            for bytes in [&bytes, &broken] {
                let path = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(path.path(), bytes).unwrap();
                let _ = read("m.safetensors", path.path());
            }
        }
    }
}

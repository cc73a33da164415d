//! The parser: header, metadata, tensor index, and the checks that tie the index to the file.

use std::collections::HashMap;

use crate::reader::Reader;
use crate::value::id;
use crate::{Array, Error, Metadata, Tensor, TensorType, Value, label};

/// Dimensions of a tensor: what ggml can hold.
pub const MAX_DIMENSIONS: u32 = 4;
/// Arrays within arrays. No known file nests at all; recursion must end somewhere.
pub const MAX_NESTING: usize = 4;
/// Real files use 32, page-aligned ones 4096 to 16384; more would only be padding.
pub const MAX_ALIGNMENT: u64 = 1 << 20;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// The shortest entries that the format allows: an empty key, its type, a one-byte value ...
const MIN_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// ... an empty tensor name, no dimensions, the type, the offset ...
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;
/// ... and an array without elements: its type and length.
const MIN_ARRAY_BYTES: u64 = 4 + 8;

/// A parsed header. Every tensor in it lies inside the file that was parsed.
#[derive(Debug, Clone)]
pub struct Gguf {
    pub version: u32,
    pub alignment: u64,
    pub metadata: Metadata,
    /// In file order; look one up by name with [`Gguf::tensor`].
    pub tensors: Vec<Tensor>,
    /// Where the data section starts in the file.
    pub data_offset: u64,
    index: HashMap<String, usize>,
}

// === impl Gguf ===

impl Gguf {
    /// Parses the header of `bytes`, which is the whole file: offsets and lengths are checked against it.
    pub fn parse(bytes: &[u8]) -> Result<Gguf, Error> {
        Gguf::parse_head(bytes, bytes.len() as u64)
    }

    /// Parses the header of a file of `file_bytes` of which only the beginning is here.
    ///
    /// # Errors
    /// [`Error::Header`] when the header goes on behind `head`; its `end` is a length that `head` needs at least.
    pub fn parse_head(head: &[u8], file_bytes: u64) -> Result<Gguf, Error> {
        let mut reader = Reader::new(head, file_bytes);
        let version = read_version(head, &mut reader)?;
        let tensor_count: u64 = reader.scalar(|| "`tensor_count`".to_owned())?;
        let entry_count: u64 = reader.scalar(|| "`metadata_kv_count`".to_owned())?;
        let metadata = read_metadata(&mut reader, entry_count)?;
        let alignment = alignment(&metadata)?;
        let (tensors, index) = read_tensors(&mut reader, tensor_count)?;
        // The alignment is at most MAX_ALIGNMENT, so this cannot overflow.
        let data_offset = reader.position().next_multiple_of(alignment);
        let data_bytes = file_bytes.max(head.len() as u64).saturating_sub(data_offset);
        check_layout(&tensors, alignment, data_bytes)?;
        Ok(Gguf { version, alignment, metadata, tensors, data_offset, index })
    }

    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&at| &self.tensors[at])
    }

    pub fn architecture(&self) -> Result<&str, Error> {
        self.metadata.architecture()
    }

    /// The elements of all tensors. `general.parameter_count` is not asked: it need not be there nor be right.
    pub fn parameter_count(&self) -> u64 {
        self.tensors.iter().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.elements()))
    }

    /// Whether it is a reranker: its pooling is ranking, or it has a classifier with one label. Converters write the pooling
    /// only for some of them.
    pub fn is_reranker(&self) -> bool {
        let pooling = self.metadata.arch_u64("pooling_type").ok().flatten();
        let has_one_label = || {
            self.tensor("cls.output.weight")
                .is_some_and(|tensor| tensor.shape.get(1).is_none_or(|rows| *rows == 1))
        };
        pooling == Some(4) || has_one_label()
    }

    /// The name of `general.file_type`: `Q4_K_M`; `unknown` when absent, strange, or F32 (as in Ollama).
    pub fn file_type(&self) -> &'static str {
        let found = self.metadata.get("general.file_type").and_then(Value::as_u64);
        found.map_or("unknown", label::file_type)
    }
}

fn read_version(bytes: &[u8], reader: &mut Reader<'_>) -> Result<u32, Error> {
    let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if magic == b"FUGG" {
        return Err(Error::BigEndian);
    }
    if magic != MAGIC {
        return Err(Error::Magic { found: magic.to_vec() });
    }
    reader.scalar::<u32>(|| "the magic".to_owned())?;
    let version: u32 = reader.scalar(|| "`version`".to_owned())?;
    match version {
        2 | 3 => Ok(version),
        // A small number whose bytes are swapped.
        _ if version.swap_bytes() <= 0xffff => Err(Error::BigEndian),
        found => Err(Error::Version { found }),
    }
}

fn read_metadata(reader: &mut Reader<'_>, count: u64) -> Result<Metadata, Error> {
    reader.expect_items(count, MIN_ENTRY_BYTES, || "`metadata_kv_count`".to_owned())?;
    let mut metadata = Metadata::default();
    for at in 0..count {
        let field = || format!("the key of metadata entry {at}");
        let key = text(reader.string(field)?, field)?;
        let kind: u32 = reader.scalar(|| format!("the type of metadata key `{key}`"))?;
        let value = read_value(reader, &key, kind)?;
        metadata.insert(key, value)?;
    }
    Ok(metadata)
}

fn read_value(reader: &mut Reader<'_>, key: &str, kind: u32) -> Result<Value, Error> {
    let field = || format!("metadata key `{key}`");
    Ok(match kind {
        id::U8 => Value::U8(reader.scalar(field)?),
        id::I8 => Value::I8(reader.scalar(field)?),
        id::U16 => Value::U16(reader.scalar(field)?),
        id::I16 => Value::I16(reader.scalar(field)?),
        id::U32 => Value::U32(reader.scalar(field)?),
        id::I32 => Value::I32(reader.scalar(field)?),
        id::F32 => Value::F32(reader.scalar(field)?),
        id::BOOL => Value::Bool(boolean(key, reader.scalar(field)?)?),
        id::STRING => match String::from_utf8(reader.string(field)?.to_vec()) {
            Ok(string) => Value::String(string),
            Err(broken) => Value::Bytes(broken.into_bytes()),
        },
        id::ARRAY => Value::Array(read_array(reader, key, MAX_NESTING)?),
        id::U64 => Value::U64(reader.scalar(field)?),
        id::I64 => Value::I64(reader.scalar(field)?),
        id::F64 => Value::F64(reader.scalar(field)?),
        found => return Err(Error::ValueType { key: key.to_owned(), found }),
    })
}

fn read_array(reader: &mut Reader<'_>, key: &str, levels_left: usize) -> Result<Array, Error> {
    let field = || format!("the array of metadata key `{key}`");
    if levels_left == 0 {
        return Err(Error::Nesting { key: key.to_owned(), bound: MAX_NESTING });
    }
    let kind: u32 = reader.scalar(|| format!("the element type of {}", field()))?;
    let count: u64 = reader.scalar(|| format!("the length of {}", field()))?;
    Ok(match kind {
        id::U8 => Array::U8(reader.scalars(count, field)?),
        id::I8 => Array::I8(reader.scalars(count, field)?),
        id::U16 => Array::U16(reader.scalars(count, field)?),
        id::I16 => Array::I16(reader.scalars(count, field)?),
        id::U32 => Array::U32(reader.scalars(count, field)?),
        id::I32 => Array::I32(reader.scalars(count, field)?),
        id::F32 => Array::F32(reader.scalars(count, field)?),
        id::BOOL => {
            let items: Vec<u8> = reader.scalars(count, field)?;
            Array::Bool(items.into_iter().map(|item| boolean(key, item)).collect::<Result<_, _>>()?)
        }
        id::STRING => read_strings(reader, key, count)?,
        id::ARRAY => {
            reader.expect_items(count, MIN_ARRAY_BYTES, field)?;
            let items = (0..count).map(|_| read_array(reader, key, levels_left - 1));
            Array::Nested(items.collect::<Result<_, _>>()?)
        }
        id::U64 => Array::U64(reader.scalars(count, field)?),
        id::I64 => Array::I64(reader.scalars(count, field)?),
        id::F64 => Array::F64(reader.scalars(count, field)?),
        found => return Err(Error::ValueType { key: key.to_owned(), found }),
    })
}

/// Strings stay strings unless one of them is not UTF-8; then all of them are kept as bytes.
fn read_strings(reader: &mut Reader<'_>, key: &str, count: u64) -> Result<Array, Error> {
    reader.expect_items(count, 8, || format!("the array of metadata key `{key}`"))?;
    // Each item has 8 bytes of the file behind it, so the slices here are at most twice the file.
    let items = (0..count).map(|at| reader.string(|| format!("item {at} of metadata key `{key}`")));
    let raw = items.collect::<Result<Vec<&[u8]>, _>>()?;
    let texts: Option<Vec<String>> =
        raw.iter().map(|item| std::str::from_utf8(item).ok().map(str::to_owned)).collect();
    Ok(texts.map_or_else(|| Array::Bytes(raw.iter().map(|item| item.to_vec()).collect()), Array::String))
}

pub(crate) fn alignment(metadata: &Metadata) -> Result<u64, Error> {
    let alignment = metadata.u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(Error::Alignment { bound: MAX_ALIGNMENT, found: alignment });
    }
    Ok(alignment)
}

fn read_tensors(reader: &mut Reader<'_>, count: u64) -> Result<(Vec<Tensor>, HashMap<String, usize>), Error> {
    reader.expect_items(count, MIN_TENSOR_BYTES, || "`tensor_count`".to_owned())?;
    let mut tensors = Vec::with_capacity(count as usize);
    let mut index = HashMap::with_capacity(count as usize);
    for at in 0..count as usize {
        let tensor = read_tensor(reader, at)?;
        if index.insert(tensor.name.clone(), at).is_some() {
            return Err(Error::DuplicateTensor { tensor: tensor.name });
        }
        tensors.push(tensor);
    }
    Ok((tensors, index))
}

fn read_tensor(reader: &mut Reader<'_>, at: usize) -> Result<Tensor, Error> {
    let field = || format!("the name of tensor {at}");
    let name = text(reader.string(field)?, field)?;
    let dimensions: u32 = reader.scalar(|| format!("`n_dims` of tensor `{name}`"))?;
    if dimensions > MAX_DIMENSIONS {
        return Err(Error::Dimensions { tensor: name, bound: MAX_DIMENSIONS, found: dimensions });
    }
    let shape: Vec<u64> = reader.scalars(dimensions.into(), || format!("the shape of tensor `{name}`"))?;
    let type_id: u32 = reader.scalar(|| format!("the type of tensor `{name}`"))?;
    let offset: u64 = reader.scalar(|| format!("the offset of tensor `{name}`"))?;
    let Some(kind) = TensorType::from_id(type_id) else {
        return Err(Error::TensorType { tensor: name, found: type_id });
    };
    let bytes = size(&name, &shape, kind)?;
    Ok(Tensor { name, shape, kind, offset, bytes })
}

/// The bytes of a tensor, or what is wrong with its shape.
pub(crate) fn size(name: &str, shape: &[u64], kind: TensorType) -> Result<u64, Error> {
    if shape.contains(&0) {
        return Err(Error::EmptyDimension { tensor: name.to_owned(), shape: shape.to_vec() });
    }
    let row = shape.first().copied().unwrap_or(1);
    if row % kind.block_elements() != 0 {
        let (kind, block) = (kind.name(), kind.block_elements());
        return Err(Error::Block { tensor: name.to_owned(), kind, block, found: row });
    }
    let overflow = || Error::Overflow { tensor: name.to_owned(), shape: shape.to_vec() };
    kind.tensor_bytes(shape).ok_or_else(overflow)
}

/// Every tensor starts aligned, ends inside the data, and shares no byte with another.
fn check_layout(tensors: &[Tensor], alignment: u64, data_bytes: u64) -> Result<(), Error> {
    for tensor in tensors {
        if tensor.offset % alignment != 0 {
            let (tensor, found) = (tensor.name.clone(), tensor.offset);
            return Err(Error::Unaligned { tensor, alignment, found });
        }
        let end = u128::from(tensor.offset) + u128::from(tensor.bytes);
        if end > u128::from(data_bytes) {
            return Err(Error::OutOfFile { tensor: tensor.name.clone(), end, bound: data_bytes });
        }
    }
    let mut by_offset: Vec<&Tensor> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        // Both ends fit u64: they lie inside the file.
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            let (first, second) = (pair[0].name.clone(), pair[1].name.clone());
            return Err(Error::Overlap { first, second, offset: pair[1].offset });
        }
    }
    Ok(())
}

fn boolean(key: &str, byte: u8) -> Result<bool, Error> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::Bool { key: key.to_owned(), found }),
    }
}

fn text(bytes: &[u8], field: impl Fn() -> String) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Encoding { field: field() })
}

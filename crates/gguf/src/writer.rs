//! Builds a GGUF file: for conversion, and for tests and benchmarks that need a model.

use std::{fmt, io, io::Write};

use crate::{Array, Error, Metadata, TensorType, Value, parse};

/// Version 3 is what every current tool writes.
const VERSION: u32 = 3;

/// Collects metadata and tensors, then writes them in one go.
#[derive(Debug, Default)]
pub struct Writer {
    metadata: Metadata,
    tensors: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    name: String,
    shape: Vec<u64>,
    kind: TensorType,
    /// What shape and kind need.
    bytes: u64,
    data: Data,
}

enum Data {
    Bytes(Vec<u8>),
    /// Made when it is written, so that a file may be larger than the memory.
    Stream(Box<Produce>),
    /// Given by the caller of [`Writer::write_with`], who may fail in his own way.
    Declared,
}

type Produce = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

// === impl Writer ===

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Adds a metadata entry; a key may occur once. `general.alignment` also sets the alignment of the data.
    pub fn metadata(
        &mut self,
        key: impl Into<String>,
        value: impl Into<Value>,
    ) -> Result<&mut Writer, Error> {
        self.metadata.insert(key.into(), value.into())?;
        Ok(self)
    }

    /// Adds a tensor; `data` must be exactly what `shape` and `kind` need.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        kind: TensorType,
        data: Vec<u8>,
    ) -> Result<&mut Writer, Error> {
        let name = name.into();
        let bytes = self.check(&name, shape, kind)?;
        let found = data.len() as u64;
        if bytes != found {
            return Err(Error::DataLength { tensor: name, expected: bytes, found });
        }
        self.tensors.push(Pending { name, shape: shape.to_vec(), kind, bytes, data: Data::Bytes(data) });
        Ok(self)
    }

    /// Adds a tensor whose bytes `produce` writes each time that the file is written, exactly as many as `shape` and
    /// `kind` need.
    pub fn tensor_stream(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        kind: TensorType,
        produce: impl Fn(&mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<&mut Writer, Error> {
        let name = name.into();
        let bytes = self.check(&name, shape, kind)?;
        let data = Data::Stream(Box::new(produce));
        self.tensors.push(Pending { name, shape: shape.to_vec(), kind, bytes, data });
        Ok(self)
    }

    /// Adds a tensor whose bytes are given when the file is written, by [`Writer::write_with`].
    pub fn declare(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        kind: TensorType,
    ) -> Result<&mut Writer, Error> {
        let name = name.into();
        let bytes = self.check(&name, shape, kind)?;
        self.tensors.push(Pending { name, shape: shape.to_vec(), kind, bytes, data: Data::Declared });
        Ok(self)
    }

    /// Writes the whole file, in which no tensor is merely declared.
    pub fn write(&self, out: impl Write) -> Result<(), Error> {
        self.write_with(out, |_, _| Ok(()))
    }

    /// Writes the whole file. `produce` gives the bytes of each tensor that was declared, told by its place among all
    /// tensors.
    pub fn write_with<E: From<Error>>(
        &self,
        mut out: impl Write,
        mut produce: impl FnMut(usize, &mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let alignment = parse::alignment(&self.metadata)?;
        let header = self.header(alignment);
        let pad = |out: &mut dyn Write, length: u64| {
            let padding = length.next_multiple_of(alignment) - length;
            io::copy(&mut io::Read::take(io::repeat(0), padding), out).map(drop)
        };
        out.write_all(&header).and_then(|()| pad(&mut out, header.len() as u64)).map_err(Error::Write)?;
        for (at, tensor) in self.tensors.iter().enumerate() {
            let mut counted = Counted { out: &mut out, bytes: 0 };
            match &tensor.data {
                Data::Bytes(bytes) => counted.write_all(bytes).map_err(Error::Write)?,
                Data::Stream(produce) => produce(&mut counted).map_err(Error::Write)?,
                Data::Declared => produce(at, &mut counted)?,
            }
            let (expected, found) = (tensor.bytes, counted.bytes);
            if expected != found {
                return Err(Error::DataLength { tensor: tensor.name.clone(), expected, found }.into());
            }
            // Every tensor starts at a multiple of the alignment, so its own length tells what is missing.
            pad(&mut out, tensor.bytes).map_err(Error::Write)?;
        }
        out.flush().map_err(Error::Write)?;
        Ok(())
    }

    /// The whole file in memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        Ok(bytes)
    }

    /// The bytes that the next tensor takes, if it may be added.
    fn check(&self, name: &str, shape: &[u64], kind: TensorType) -> Result<u64, Error> {
        if self.tensors.iter().any(|tensor| tensor.name == name) {
            return Err(Error::DuplicateTensor { tensor: name.to_owned() });
        }
        if shape.len() > parse::MAX_DIMENSIONS as usize {
            let found = u32::try_from(shape.len()).unwrap_or(u32::MAX);
            return Err(Error::Dimensions { tensor: name.to_owned(), bound: parse::MAX_DIMENSIONS, found });
        }
        parse::size(name, shape, kind)
    }

    fn header(&self, alignment: u64) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(b"GGUF");
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            put_string(&mut out, key.as_bytes());
            out.extend(value.type_id().to_le_bytes());
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_string(&mut out, tensor.name.as_bytes());
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|dimension| out.extend(dimension.to_le_bytes()));
            out.extend(tensor.kind.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + tensor.bytes).next_multiple_of(alignment);
        }
        out
    }
}

/// Counts what is written.
struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Data::Stream(_) => f.write_str("Stream"),
            Data::Declared => f.write_str("Declared"),
        }
    }
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => out.push(*value),
        Value::I8(value) => out.extend(value.to_le_bytes()),
        Value::U16(value) => out.extend(value.to_le_bytes()),
        Value::I16(value) => out.extend(value.to_le_bytes()),
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::I32(value) => out.extend(value.to_le_bytes()),
        Value::F32(value) => out.extend(value.to_le_bytes()),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::String(value) => put_string(out, value.as_bytes()),
        Value::Bytes(value) => put_string(out, value),
        Value::Array(value) => put_array(out, value),
        Value::U64(value) => out.extend(value.to_le_bytes()),
        Value::I64(value) => out.extend(value.to_le_bytes()),
        Value::F64(value) => out.extend(value.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.element_id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(items) => out.extend(items),
        Array::I8(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::U16(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::I16(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::U32(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::I32(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::F32(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::Bool(items) => out.extend(items.iter().map(|item| u8::from(*item))),
        Array::String(items) => items.iter().for_each(|item| put_string(out, item.as_bytes())),
        Array::Bytes(items) => items.iter().for_each(|item| put_string(out, item)),
        Array::Nested(items) => items.iter().for_each(|item| put_array(out, item)),
        Array::U64(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::I64(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::F64(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
    }
}

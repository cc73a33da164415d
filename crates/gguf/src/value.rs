//! Metadata values: the twelve scalar types of the format and arrays of them.

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    /// A string that is not UTF-8, kept as it is. The format promises UTF-8 and nearly every file keeps
    /// the promise, but a license or a token cut in the middle of a character must not make a model
    /// unusable, and replacing the bytes would corrupt a vocabulary silently.
    Bytes(Vec<u8>),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A homogeneous array.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    /// Strings of which at least one is not UTF-8 (see [`Value::Bytes`]); all of them, in order.
    Bytes(Vec<Vec<u8>>),
    Nested(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The numbers that the format gives to the value types.
pub(crate) mod id {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

// === impl Value ===

impl Value {
    /// Any integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_i128().and_then(|value| u64::try_from(value).ok())
    }

    /// Any integer that fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_i128().and_then(|value| i64::try_from(value).ok())
    }

    /// Either float, rounded to single precision.
    pub fn as_f32(&self) -> Option<f32> {
        match self {
            Value::F32(value) => Some(*value),
            Value::F64(value) => Some(*value as f32),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(value) => Some(value),
            _ => None,
        }
    }

    /// The type in words, for messages: `u32`, `array of f32`.
    pub fn type_name(&self) -> String {
        match self {
            Value::Array(Array::Bytes(_)) => "array of strings that are not all UTF-8".to_owned(),
            Value::Array(array) => format!("array of {}", array.element_name()),
            Value::Bytes(_) => "string that is not UTF-8".to_owned(),
            other => value_name(other.type_id()).to_owned(),
        }
    }

    pub(crate) fn type_id(&self) -> u32 {
        match self {
            Value::U8(_) => id::U8,
            Value::I8(_) => id::I8,
            Value::U16(_) => id::U16,
            Value::I16(_) => id::I16,
            Value::U32(_) => id::U32,
            Value::I32(_) => id::I32,
            Value::F32(_) => id::F32,
            Value::Bool(_) => id::BOOL,
            Value::String(_) | Value::Bytes(_) => id::STRING,
            Value::Array(_) => id::ARRAY,
            Value::U64(_) => id::U64,
            Value::I64(_) => id::I64,
            Value::F64(_) => id::F64,
        }
    }

    fn as_i128(&self) -> Option<i128> {
        Some(match self {
            Value::U8(value) => i128::from(*value),
            Value::I8(value) => i128::from(*value),
            Value::U16(value) => i128::from(*value),
            Value::I16(value) => i128::from(*value),
            Value::U32(value) => i128::from(*value),
            Value::I32(value) => i128::from(*value),
            Value::U64(value) => i128::from(*value),
            Value::I64(value) => i128::from(*value),
            _ => return None,
        })
    }
}

// === impl Array ===

impl Array {
    pub fn len(&self) -> usize {
        match self {
            Array::U8(items) => items.len(),
            Array::I8(items) => items.len(),
            Array::U16(items) => items.len(),
            Array::I16(items) => items.len(),
            Array::U32(items) => items.len(),
            Array::I32(items) => items.len(),
            Array::F32(items) => items.len(),
            Array::Bool(items) => items.len(),
            Array::String(items) => items.len(),
            Array::Bytes(items) => items.len(),
            Array::Nested(items) => items.len(),
            Array::U64(items) => items.len(),
            Array::I64(items) => items.len(),
            Array::F64(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at `index` as a value of its own, `None` past the end.
    pub fn get(&self, index: usize) -> Option<Value> {
        Some(match self {
            Array::U8(items) => Value::U8(*items.get(index)?),
            Array::I8(items) => Value::I8(*items.get(index)?),
            Array::U16(items) => Value::U16(*items.get(index)?),
            Array::I16(items) => Value::I16(*items.get(index)?),
            Array::U32(items) => Value::U32(*items.get(index)?),
            Array::I32(items) => Value::I32(*items.get(index)?),
            Array::F32(items) => Value::F32(*items.get(index)?),
            Array::Bool(items) => Value::Bool(*items.get(index)?),
            Array::String(items) => Value::String(items.get(index)?.clone()),
            Array::Bytes(items) => Value::Bytes(items.get(index)?.clone()),
            Array::Nested(items) => Value::Array(items.get(index)?.clone()),
            Array::U64(items) => Value::U64(*items.get(index)?),
            Array::I64(items) => Value::I64(*items.get(index)?),
            Array::F64(items) => Value::F64(*items.get(index)?),
        })
    }

    /// The element type in words.
    pub fn element_name(&self) -> &'static str {
        value_name(self.element_id())
    }

    pub(crate) fn element_id(&self) -> u32 {
        match self {
            Array::U8(_) => id::U8,
            Array::I8(_) => id::I8,
            Array::U16(_) => id::U16,
            Array::I16(_) => id::I16,
            Array::U32(_) => id::U32,
            Array::I32(_) => id::I32,
            Array::F32(_) => id::F32,
            Array::Bool(_) => id::BOOL,
            Array::String(_) | Array::Bytes(_) => id::STRING,
            Array::Nested(_) => id::ARRAY,
            Array::U64(_) => id::U64,
            Array::I64(_) => id::I64,
            Array::F64(_) => id::F64,
        }
    }
}

fn value_name(type_id: u32) -> &'static str {
    match type_id {
        id::U8 => "u8",
        id::I8 => "i8",
        id::U16 => "u16",
        id::I16 => "i16",
        id::U32 => "u32",
        id::I32 => "i32",
        id::F32 => "f32",
        id::BOOL => "bool",
        id::STRING => "string",
        id::ARRAY => "array",
        id::U64 => "u64",
        id::I64 => "i64",
        id::F64 => "f64",
        _ => "unknown",
    }
}

macro_rules! from {
    ($($variant:ident($kind:ty)),*) => {$(
        impl From<$kind> for Value {
            fn from(value: $kind) -> Value {
                Value::$variant(value)
            }
        }
        impl From<Vec<$kind>> for Value {
            fn from(items: Vec<$kind>) -> Value {
                Value::Array(Array::$variant(items))
            }
        }
    )*};
}

from!(U8(u8), I8(i8), U16(u16), I16(i16), U32(u32), I32(i32), F32(f32), Bool(bool), String(String), U64(u64));
from!(I64(i64), F64(f64));

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Value {
        Value::Array(array)
    }
}

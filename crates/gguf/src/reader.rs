//! A cursor over the file that asks "are these bytes there?" before it hands out or allocates anything.

use crate::Error;

/// Real headers are below 32 MiB (a vocabulary of 262144 tokens takes 6). The bound keeps a huge file of
/// nothing but metadata from being copied into memory.
pub(crate) const MAX_HEADER_BYTES: usize = 1 << 29;

#[derive(Debug)]
pub(crate) struct Reader<'a> {
    /// At most [`MAX_HEADER_BYTES`] of the file.
    bytes: &'a [u8],
    file_bytes: u64,
    at: usize,
}

/// A number of fixed width, read in little-endian order.
pub(crate) trait Scalar: Sized {
    const WIDTH: usize;
    /// `bytes` is exactly [`Scalar::WIDTH`] long.
    fn decode(bytes: &[u8]) -> Self;
}

macro_rules! scalar {
    ($($kind:ty),*) => {$(
        impl Scalar for $kind {
            const WIDTH: usize = size_of::<$kind>();
            fn decode(bytes: &[u8]) -> Self {
                <$kind>::from_le_bytes(bytes.try_into().expect("the reader hands out exactly WIDTH bytes"))
            }
        }
    )*};
}

scalar!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The beginning of a file of `file_bytes`, or all of it.
    pub fn new(bytes: &'a [u8], file_bytes: u64) -> Reader<'a> {
        let bytes = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
        Reader { bytes, file_bytes: file_bytes.max(bytes.len() as u64), at: 0 }
    }

    pub fn position(&self) -> u64 {
        self.at as u64
    }

    /// `field` is only called to word an error.
    pub fn scalar<T: Scalar>(&mut self, field: impl Fn() -> String) -> Result<T, Error> {
        self.take(T::WIDTH as u64, field).map(T::decode)
    }

    pub fn scalars<T: Scalar>(&mut self, count: u64, field: impl Fn() -> String) -> Result<Vec<T>, Error> {
        self.expect_items(count, T::WIDTH as u64, &field)?;
        // `expect_items` has bounded the product by the length of the file.
        let bytes = self.take(count * T::WIDTH as u64, field)?;
        Ok(bytes.chunks_exact(T::WIDTH).map(T::decode).collect())
    }

    /// A length, then that many bytes.
    pub fn string(&mut self, field: impl Fn() -> String) -> Result<&'a [u8], Error> {
        let length: u64 = self.scalar(|| format!("the length of {}", field()))?;
        self.take(length, field)
    }

    /// Refuses a count of items that cannot be there, each at least `width` bytes long, before anybody allocates for them.
    pub fn expect_items(&self, count: u64, width: u64, field: impl Fn() -> String) -> Result<(), Error> {
        self.expect(u128::from(count) * u128::from(width), || format!("{} ({count} items)", field()))
    }

    fn take(&mut self, count: u64, field: impl Fn() -> String) -> Result<&'a [u8], Error> {
        self.expect(u128::from(count), field)?;
        let end = self.at + count as usize;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn expect(&self, needed: u128, field: impl Fn() -> String) -> Result<(), Error> {
        let offset = self.position();
        let left = self.file_bytes - offset;
        if needed > u128::from(left) {
            return Err(Error::Truncated { field: field(), offset, needed, left });
        }
        if needed > (self.bytes.len() - self.at) as u128 {
            return Err(Error::Header {
                field: field(),
                bound: self.bytes.len(),
                end: u128::from(offset) + needed,
            });
        }
        Ok(())
    }
}

//! A cursor over the file that asks "are these bytes there?" before it hands out or allocates anything.

use crate::Error;

#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
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
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
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
        let needed = u128::from(count) * u128::from(width);
        let left = self.left();
        if needed > u128::from(left) {
            let field = format!("{} ({count} items)", field());
            return Err(Error::Truncated { field, offset: self.position(), needed, left });
        }
        Ok(())
    }

    fn take(&mut self, count: u64, field: impl Fn() -> String) -> Result<&'a [u8], Error> {
        let left = self.left();
        if count > left {
            let needed = u128::from(count);
            return Err(Error::Truncated { field: field(), offset: self.position(), needed, left });
        }
        let end = self.at + count as usize;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }
}

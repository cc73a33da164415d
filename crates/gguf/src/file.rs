//! A GGUF file on disk, mapped into memory: the pages of a weight are read when somebody looks at them.

mod map;

use std::path::Path;

use crate::{Error, Gguf, Tensor};
use map::Map;

/// A mapped file whose header has been parsed and checked.
#[derive(Debug)]
pub struct File {
    map: Map,
    header: Gguf,
}

// === impl File ===

impl File {
    pub fn open(path: &Path) -> Result<File, Error> {
        let io = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io("open"))?;
        let map = Map::new(&file).map_err(io("map"))?;
        let header = Gguf::parse(map.bytes())?;
        Ok(File { map, header })
    }

    pub fn header(&self) -> &Gguf {
        &self.header
    }

    /// The header alone; the file is closed.
    pub fn into_header(self) -> Gguf {
        self.header
    }

    /// The bytes of `tensor`, which must come from this file's header; those of a tensor of another file
    /// that does not fit in here are empty.
    pub fn data(&self, tensor: &Tensor) -> &[u8] {
        self.try_data(tensor).unwrap_or_default()
    }

    /// The length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.map.bytes().len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn try_data(&self, tensor: &Tensor) -> Option<&[u8]> {
        let start = self.header.data_offset.checked_add(tensor.offset)?;
        let end = start.checked_add(tensor.bytes)?;
        self.map.bytes().get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}

//! Files that tensors are read from, piece by piece. Not mapped: a file that ends early is then an error, not a signal.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// An open file.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    file: Mutex<File>,
    bytes: u64,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    source: Arc<Source>,
    start: u64,
    pub bytes: u64,
}

// === impl Source ===

impl Source {
    /// `name` is what people call it.
    pub fn open(name: &str, path: &Path) -> Result<Arc<Source>, Error> {
        let read = |source| Error::Read { file: name.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let bytes = file.metadata().map_err(read)?.len();
        Ok(Arc::new(Source { name: name.to_owned(), file: Mutex::new(file), bytes }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// A part of it that is really there.
    pub fn span(self: &Arc<Source>, start: u64, bytes: u64) -> Option<Span> {
        let end = start.checked_add(bytes)?;
        (end <= self.bytes).then(|| Span { source: self.clone(), start, bytes })
    }

    fn read_at(&self, start: u64, into: &mut [u8]) -> Result<(), Error> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(into));
        read.map_err(|source| Error::Read { file: self.name.clone(), source })
    }
}

// === impl Span ===

impl Span {
    /// Where it starts in its file.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Bytes of the span from `from` on. The caller asks for no more than there are.
    pub fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Error> {
        debug_assert!(from + into.len() as u64 <= self.bytes, "within the span");
        self.source.read_at(self.start + from, into)
    }

    pub fn all(&self) -> Result<Vec<u8>, Error> {
        // It lies within a file of that length, so the memory is justified by bytes on disk.
        let mut bytes = vec![0; usize::try_from(self.bytes).map_err(|_| self.too_long())?];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }

    fn too_long(&self) -> Error {
        Error::file(&self.source.name, format!("{} bytes do not fit into memory", self.bytes))
    }
}

/// A small file, whole. `bound` says how small.
pub(crate) fn read_text(name: &str, path: &Path, bound: u64) -> Result<Vec<u8>, Error> {
    let source = Source::open(name, path)?;
    match source.span(0, source.len()) {
        Some(all) if source.len() <= bound => all.all(),
        _ => Err(Error::file(name, format!("it must have at most {bound} bytes, got {}", source.len()))),
    }
}

//! The one `unsafe` of this crate: a read-only memory map.

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// A read-only map of a whole file.
#[derive(Debug)]
pub(crate) struct Map(Mmap);

impl Map {
    pub fn new(file: &File) -> io::Result<Map> {
        // SAFETY: a map is a plain `&[u8]` only while nobody changes or shortens the file underneath it.
        // Model files are content-addressed blobs: written to a temporary file, verified, renamed into
        // place, and from then on only ever unlinked, which leaves a map intact. The map is private and
        // read-only, so this process cannot write through it. Somebody else who rewrites a blob in place
        // breaks its digest and with it the contract of the store; what he gets is wrong weights or a
        // SIGBUS of this worker, never a write outside the map. No alignment is assumed: all access is by byte.
        let map = unsafe { Mmap::map(file)? };
        Ok(Map(map))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

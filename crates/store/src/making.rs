//! A blob that is made here, so that nobody knows its digest before the end.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tempfile::{NamedTempFile, TempPath};

use crate::digest::Hasher;
use crate::home;
use crate::store::Inner;
use crate::upload::Open;
use crate::{Digest, Error, Result, durable, unfinished};

/// Where the bytes go. Blocking. Dropped before [`NewBlob::finish`], it leaves nothing behind.
pub struct NewBlob {
    // Apart from its name: a temporary file puts its path into errors, which have it already.
    file: BufWriter<File>,
    path: TempPath,
    hasher: Hasher,
    open: Open,
}

// === impl NewBlob ===

impl NewBlob {
    pub(crate) fn start(inner: Arc<Inner>) -> Result<NewBlob> {
        inner.uploads.fetch_add(1, Ordering::SeqCst);
        let open = Open(inner);
        let (file, path) = unfinished::begin(open.0.home.incoming())?.into_parts();
        Ok(NewBlob { file: BufWriter::new(file), path, hasher: Hasher::default(), open })
    }

    /// Where the bytes lie until then, for who wants to look at what he has made.
    ///
    /// # Errors
    /// When the disk does not take the last of them.
    pub fn path(&mut self) -> Result<&Path> {
        self.file.flush().map_err(Error::io("write", &self.path))?;
        Ok(&self.path)
    }

    /// Makes the blob durable and names it.
    pub fn finish(self) -> Result<Digest> {
        self.publish(&mut |_, _| ControlFlow::Continue(()))
    }

    /// The same, for who tells how many of all bytes are on their way where that takes a while. A break ends it.
    ///
    /// # Errors
    /// [`Error::Canceled`] after a break.
    pub fn publish(self, progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Result<Digest> {
        let NewBlob { file, path, hasher, open } = self;
        let home = &open.0.home;
        let file = file.into_inner().map_err(|error| Error::io("write", &path)(error.into_error()))?;
        let file = NamedTempFile::from_parts(file, path);
        let digest = hasher.finish();
        if !home.touch(&digest)? {
            let total = file.as_file().metadata().map_err(Error::io("stat", file.path()))?.len();
            durable::settle(file, &home.local(&digest))?;
            home::publish(&**home, &digest, &mut |sent| match progress(sent, total) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Canceled),
            })?;
        }
        Ok(digest)
    }
}

impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

//! Writes that survive a crash: temporary file, fsync, rename, fsync of the directory (contract C9).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// How a temporary file's name starts. No name or digest can look like it, so a listing never takes one that a
/// dead process left for a manifest; start-up pruning removes it.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A file in `directory` that is gone when dropped, unless [`settle`] gives it its name.
pub(crate) fn temporary(directory: &Path) -> Result<NamedTempFile> {
    temporary_called(TEMPORARY, directory)
}

/// The same with another beginning of its name.
pub(crate) fn temporary_called(prefix: &str, directory: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Other servers share the folder under other users: Ollama's mode, not a private one.
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    builder.tempfile_in(directory).map_err(Error::io("create a file in", directory))
}

/// Makes the bytes durable, then the name.
pub(crate) fn settle(file: NamedTempFile, target: &Path) -> Result<()> {
    file.as_file().sync_all().map_err(Error::io("sync", file.path()))?;
    file.persist(target).map_err(|error| Error::io("rename to", target)(error.error))?;
    sync_parent(target)
}

/// Writes a small file whole.
pub(crate) fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = temporary(parent(target))?;
    // Through the file itself: a temporary one puts its path into errors, which have it already.
    file.as_file_mut().write_all(bytes).map_err(Error::io("write", file.path()))?;
    settle(file, target)
}

/// Makes the missing directories of `path`, each one's entry durable before the next is made.
pub(crate) fn create_directories(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    for directory in missing.iter().rev() {
        match fs::create_dir(directory) {
            Ok(()) => sync_parent(directory)?,
            // Another writer was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(error) => return Err(Error::io("create directory", directory)(error)),
        }
    }
    Ok(())
}

/// Removes `directory` and its parents up to, not including, `root`, as long as they are empty.
pub(crate) fn remove_empty_directories(directory: &Path, root: &Path) {
    let mut directory = directory;
    while directory != root && directory.starts_with(root) && fs::remove_dir(directory).is_ok() {
        directory = parent(directory);
    }
}

/// Removes a file; one that is not there is no error. Says whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let directory = parent(path);
    // Only Unix can open a directory to sync it; elsewhere the rename is as durable as it gets.
    if cfg!(unix) {
        File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io("sync", directory))?;
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

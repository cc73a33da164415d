//! Files of blobs that are being made. Whoever makes one holds a lock on its file, which the system gives back when its
//! process dies, however it dies. So a file whose lock is free belongs to nobody and goes at once: a model's worth of
//! bytes shall not wait for the pruning of the next start.
//!
//! Where the file system has no locks nothing is swept, and pruning takes what is left.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::{Error, Result, durable};

/// How such files are called: temporary ones to pruning, too.
const UNFINISHED: &str = ".tmp-made-";
/// Others sweep rarely, and each sweep can take one file from us: three in a row would be a wonder.
const ATTEMPTS: usize = 3;

/// A file that is gone when it is dropped, unless it gets a name, or soon after its process has died.
pub(crate) fn begin(blobs: &Path) -> Result<NamedTempFile> {
    sweep(blobs);
    for _ in 0..ATTEMPTS {
        let file = durable::temporary_called(UNFINISHED, blobs)?;
        match file.as_file().try_lock() {
            // Between its birth and its lock it looked like a dead one's.
            Ok(()) if !file.path().exists() => {}
            Err(TryLockError::WouldBlock) => {}
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, "a file cannot be locked; a crash would leave it to pruning");
                return Ok(file);
            }
        }
    }
    Err(Error::io("lock a file in", blobs)(std::io::ErrorKind::WouldBlock.into()))
}

/// Removes what dead processes have left. A failure costs disk space only.
pub(crate) fn sweep(blobs: &Path) {
    let Ok(entries) = fs::read_dir(blobs) else { return };
    let is_unfinished = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(UNFINISHED);
    for entry in entries.flatten().filter(|entry| is_unfinished(&entry.file_name())) {
        let path = entry.path();
        // Removed under the lock, so that its maker, if it is only just born, sees that it is gone.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            match durable::remove(&path) {
                Ok(_) => tracing::info!(path = %path.display(), "removed what a dead process has left"),
                Err(error) => tracing::warn!(%error, "what a dead process has left cannot be removed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_makes_any_more_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let alive = begin(folder.path()).unwrap();
        let dead = folder.path().join(format!("{UNFINISHED}dead"));
        let others = [".tmp-upload", "sha256-0", "notes"].map(|name| folder.path().join(name));
        for path in others.iter().chain([&dead]) {
            fs::write(path, "x").unwrap();
        }
        sweep(folder.path());
        assert!(alive.path().exists() && !dead.exists() && others.iter().all(|path| path.exists()));
        // What has got its name is no business of ours.
        let named = folder.path().join("sha256-1");
        alive.persist(&named).unwrap();
        sweep(folder.path());
        assert!(named.exists());
        sweep(&folder.path().join("nowhere"));
    }

    #[test]
    fn many_may_begin_and_sweep_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let file = begin(folder.path()).unwrap();
                        assert!(file.path().exists());
                        sweep(folder.path());
                        assert!(file.path().exists(), "somebody took a file that is being made");
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

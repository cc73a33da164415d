//! Blobs of a bucket that are kept on this machine, bounded in bytes: those that were not used for longest go first,
//! but none that somebody has in hand.
//!
//! What is in hand is locked, so that several processes can share one folder: shared by who reads it, exclusively by who
//! fills or removes it. The locks end with the process that has them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::directory::{Sweep, children, is_same, read_bounded, touch};
use crate::transfer::parts::PARTIAL;
use crate::{Digest, Error, Pruned, Result, durable};

/// An upload that takes longer has stopped.
const TEMPORARY_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Held while room is made and taken, which is a matter of milliseconds.
const LOCK: &str = "lock";

/// A folder of blobs.
pub(crate) struct Cache {
    root: PathBuf,
    blobs: PathBuf,
    /// 0 = none.
    bound: u64,
}

/// A whole and verified blob on this machine. Until this is dropped, a cache keeps it.
#[derive(Debug)]
pub struct BlobFile {
    path: PathBuf,
    /// `None` where nobody would take it away.
    _held: Option<File>,
}

/// Room for a blob; whoever has it is the only one who takes some.
pub(crate) struct Room {
    _lock: Option<File>,
}

/// What lies in the folder.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

// === impl BlobFile ===

impl BlobFile {
    pub(crate) fn for_good(path: PathBuf) -> BlobFile {
        BlobFile { path, _held: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

// === impl Cache ===

impl Cache {
    /// Opens the folder, and removes what dead processes have begun there and nobody has gone on with.
    pub(crate) fn open(root: PathBuf, bound: u64) -> Result<Cache> {
        let cache = Cache { blobs: root.join("blobs"), root, bound };
        durable::create_directories(&cache.blobs)?;
        cache.sweep(TEMPORARY_GRACE)?;
        Ok(cache)
    }

    /// What is whole stays: it goes when room is needed.
    pub(crate) fn sweep(&self, grace: Duration) -> Result<Pruned> {
        let mut sweep = Sweep::new(grace);
        sweep.blobs(&self.blobs, &|_| true)?;
        Ok(sweep.pruned)
    }

    pub(crate) fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// A blob that is here, as the one that was used last.
    pub(crate) fn hold(&self, digest: &Digest) -> Result<Option<BlobFile>> {
        let path = self.blobs.join(digest.file_name());
        let Ok(file) = File::open(&path) else { return Ok(None) };
        match file.try_lock_shared() {
            Ok(()) => {}
            // On its way out.
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => unlocked(&path, &error),
        }
        // It may have been removed between the opening and the lock, and even filled again.
        if !is_same(&file, &path) || !touch(&path) {
            return Ok(None);
        }
        Ok(Some(BlobFile { path, _held: Some(file) }))
    }

    /// A small blob that is here and undamaged.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let path = self.blobs.join(digest.file_name());
        let bytes = read_bounded(File::open(&path).ok()?, &path, "blob", limit).ok()?;
        // It was not made durable: a crash may have left anything.
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Keeps a small blob, if it can. Small ones move no others out: there would be more work than gain.
    pub(crate) fn keep(&self, digest: &Digest, bytes: &[u8]) {
        let write = || -> Result<()> {
            let mut file = durable::temporary(&self.blobs)?;
            let path = self.blobs.join(digest.file_name());
            std::io::Write::write_all(&mut file, bytes).map_err(Error::io("write", &path))?;
            file.persist(&path).map_err(|error| Error::io("rename to", &path)(error.error))?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%digest, %error, "a blob cannot be cached");
        }
    }

    /// Makes room for a blob that is about to come in.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when even everything that nobody has in hand is not enough.
    pub(crate) fn make_room(&self, digest: &Digest, bytes: u64) -> Result<Room> {
        if self.bound == 0 {
            return Ok(Room { _lock: None });
        }
        let no_room = |used| Error::NoRoom { digest: digest.to_string(), bytes, bound: self.bound, used };
        if bytes > self.bound {
            return Err(no_room(0));
        }
        let room = Room { _lock: self.lock()? };
        let mut kept = self.kept(digest)?;
        kept.sort_by_key(|kept| kept.used);
        let mut used: u64 = kept.iter().map(|kept| kept.bytes).sum();
        for oldest in kept {
            if used + bytes <= self.bound {
                break;
            }
            if remove_unless_held(&oldest.path)? {
                used -= oldest.bytes;
            }
        }
        if used + bytes > self.bound { Err(no_room(used)) } else { Ok(room) }
    }

    fn lock(&self) -> Result<Option<File>> {
        let path = self.root.join(LOCK);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("open", &path))?;
        match file.lock() {
            Ok(()) => Ok(Some(file)),
            Err(error) => {
                unlocked(&path, &error);
                Ok(None)
            }
        }
    }

    /// Everything but what there is of `coming`. A file that is being filled has its full length from the beginning.
    fn kept(&self, coming: &Digest) -> Result<Vec<Kept>> {
        let coming = format!("{}{PARTIAL}", coming.file_name());
        let names = children(&self.blobs)?.into_iter().filter(|name| !name.starts_with(&coming));
        let kept = names.filter_map(|name| {
            let path = self.blobs.join(name);
            let metadata = fs::metadata(&path).ok()?;
            Some(Kept { bytes: metadata.len(), used: metadata.modified().ok()?, path })
        });
        Ok(kept.collect())
    }
}

/// Says whether it is gone. What a kill left of a fill goes like a blob; its small states stay for the next sweep.
fn remove_unless_held(path: &Path) -> Result<bool> {
    let is_whole = |name: &str| Digest::parse(name.strip_suffix(PARTIAL).unwrap_or(name)).is_ok();
    if !path.file_name().and_then(|name| name.to_str()).is_some_and(is_whole) {
        return Ok(false);
    }
    let Ok(file) = File::open(path) else { return Ok(true) };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => unlocked(path, &error),
    }
    tracing::info!(path = %path.display(), "removed from the cache to make room");
    durable::remove(path)
}

/// A file system without locks: better without one than without a cache.
fn unlocked(path: &Path, error: &std::io::Error) {
    tracing::warn!(path = %path.display(), %error, "a cached blob cannot be locked");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blobs of 100 bytes, the first one used longest ago.
    fn cache(bound: u64, seeds: &[&str]) -> (tempfile::TempDir, Cache, Vec<Digest>) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_owned(), bound).unwrap();
        let digests: Vec<Digest> = seeds.iter().map(|seed| Digest::of(seed.as_bytes())).collect();
        for (hours, digest) in digests.iter().rev().enumerate() {
            let path = cache.blobs.join(digest.file_name());
            fs::write(&path, [0; 100]).unwrap();
            let time = SystemTime::now() - Duration::from_secs(3600 * (1 + hours as u64));
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
        (folder, cache, digests)
    }

    fn is_there(cache: &Cache, digest: &Digest) -> bool {
        cache.blobs.join(digest.file_name()).exists()
    }

    #[test]
    fn the_least_recently_used_goes_first_and_only_as_many_as_must() {
        let (_folder, cache, blobs) = cache(300, &["a", "b", "c"]);
        drop(cache.hold(&blobs[0]).unwrap());
        cache.make_room(&Digest::of(b"new"), 100).unwrap();
        assert!(is_there(&cache, &blobs[0]) && !is_there(&cache, &blobs[1]) && is_there(&cache, &blobs[2]));
    }

    #[test]
    fn what_is_in_hand_stays_and_both_numbers_are_told() {
        let (_folder, cache, blobs) = cache(300, &["a", "b", "c"]);
        let held = cache.hold(&blobs[0]).unwrap().unwrap();
        let text = cache.make_room(&Digest::of(b"new"), 250).err().unwrap().to_string();
        assert!(text.contains("250") && text.contains("300") && text.contains("100"), "{text}");
        assert!(is_there(&cache, &blobs[0]));
        drop(held);
        cache.make_room(&Digest::of(b"new"), 250).unwrap();
        assert!(!is_there(&cache, &blobs[0]));
    }

    #[test]
    fn a_blob_that_never_fits_moves_nothing_out() {
        let (_folder, cache, blobs) = cache(300, &["a", "b", "c"]);
        let text = cache.make_room(&Digest::of(b"new"), 301).err().unwrap().to_string();
        assert!(text.contains("301") && text.contains("300"), "{text}");
        assert!(blobs.iter().all(|blob| is_there(&cache, blob)));
    }

    #[test]
    fn what_a_kill_left_of_a_fill_counts_in_full_and_goes_unless_it_is_wanted() {
        let (_folder, cache, _) = cache(300, &[]);
        let cut = Digest::of(b"cut");
        let partial = cache.blobs.join(format!("{}{PARTIAL}", cut.file_name()));
        File::create(&partial).unwrap().set_len(200).unwrap();
        cache.make_room(&cut, 300).unwrap();
        assert!(partial.exists());
        cache.make_room(&Digest::of(b"other"), 100).unwrap();
        assert!(partial.exists());
        cache.make_room(&Digest::of(b"other"), 101).unwrap();
        assert!(!partial.exists());
    }

    #[test]
    fn what_was_begun_and_left_goes_when_the_cache_is_opened() {
        let (folder, cache, blobs) = cache(0, &["whole"]);
        let name = |seed: &str, end: &str| format!("{}{end}", Digest::of(seed.as_bytes()).file_name());
        let old = [name("cut", "-partial"), name("cut", "-partial-0"), ".tmp-upload".to_owned()];
        let young = [name("young", "-partial"), name("young", "-partial-0"), ".tmp-other".to_owned()];
        for file in old.iter().chain(&young) {
            fs::write(cache.blobs.join(file), "half").unwrap();
        }
        let time = SystemTime::now() - Duration::from_secs(25 * 60 * 60);
        for file in old.iter().chain([&blobs[0].file_name()]) {
            File::open(cache.blobs.join(file)).unwrap().set_modified(time).unwrap();
        }
        let cache = Cache::open(folder.path().to_owned(), 0).unwrap();
        assert!(old.iter().all(|file| !cache.blobs.join(file).exists()));
        assert!(young.iter().all(|file| cache.blobs.join(file).exists()));
        assert!(is_there(&cache, &blobs[0]));
    }

    #[test]
    fn without_a_bound_everything_stays() {
        let (_folder, cache, blobs) = cache(0, &["a", "b"]);
        cache.make_room(&Digest::of(b"new"), u64::MAX).unwrap();
        assert!(blobs.iter().all(|blob| is_there(&cache, blob)));
    }

    #[test]
    fn a_small_blob_that_a_crash_has_damaged_is_none() {
        let (_folder, cache, _) = cache(0, &[]);
        let digest = Digest::of(b"small");
        cache.keep(&digest, b"small");
        assert_eq!(cache.read(&digest, 10).unwrap(), b"small");
        assert_eq!(cache.read(&digest, 4), None);
        fs::write(cache.blobs.join(digest.file_name()), [0; 5]).unwrap();
        assert_eq!(cache.read(&digest, 10), None);
    }
}

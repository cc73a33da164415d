//! A blob in parts, and what is kept of a download that was cut: Ollama's files, so that either program can go on
//! where the other stopped.
//!
//! ```text
//! blobs/sha256-<hex>-partial      the bytes, as long as the whole
//! blobs/sha256-<hex>-partial-<n>  {"N":n,"Offset":..,"Size":..,"Completed":..}
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Tuning;
use crate::directory::children;
use crate::{Digest, Error, Result, durable};

/// What follows the name of the blob.
pub(crate) const PARTIAL: &str = "-partial";
/// Four small numbers.
const MAX_STATE_BYTES: u64 = 1 << 10;
/// How many parts a blob has, unless they would be too small or too large.
const PARTS: u64 = 16;

/// A range of a blob, and how much of it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Part {
    pub(super) n: usize,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) completed: u64,
}

/// The files of one download.
#[derive(Clone, Debug)]
pub(super) struct Files {
    folder: PathBuf,
    name: String,
}

// === impl Part ===

impl Part {
    /// All of a blob that has none of its bytes yet.
    pub(super) fn whole(total: u64) -> Part {
        Part { n: 0, offset: 0, size: total, completed: 0 }
    }

    /// The first byte that is missing.
    pub(crate) fn next(&self) -> u64 {
        self.offset + self.completed
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + self.size
    }

    pub(super) fn is_done(&self) -> bool {
        self.completed == self.size
    }
}

/// Cuts `total` bytes.
pub(super) fn plan(total: u64, tuning: &Tuning) -> Vec<Part> {
    let size = (total / PARTS).clamp(tuning.min_part_bytes, tuning.max_part_bytes).max(1);
    let offsets = (0..total.div_ceil(size)).map(|n| n * size);
    offsets
        .enumerate()
        .map(|(n, offset)| Part { n, offset, size: size.min(total - offset), completed: 0 })
        .collect()
}

// === impl Files ===

impl Files {
    pub(super) fn new(folder: PathBuf, digest: &Digest) -> Files {
        Files { folder, name: format!("{}{PARTIAL}", digest.file_name()) }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn state(&self, n: usize) -> PathBuf {
        self.folder.join(format!("{}-{n}", self.name))
    }

    /// The parts of a download that was cut, if they are those of `total` bytes without a gap.
    pub(super) fn load(&self, total: u64) -> Result<Option<Vec<Part>>> {
        let mut parts = Vec::new();
        for path in self.states()? {
            match read(&path) {
                Some(part) => parts.push(part),
                None => return Ok(None),
            }
        }
        parts.sort_by_key(|part: &Part| part.n);
        let mut end = 0;
        for (n, part) in parts.iter().enumerate() {
            let next = part.offset.checked_add(part.size);
            if part.n != n || part.offset != end || part.completed > part.size || part.size == 0 {
                return Ok(None);
            }
            match next.filter(|next| *next <= total) {
                Some(next) => end = next,
                None => return Ok(None),
            }
        }
        Ok(Some(parts).filter(|parts| end == total && !parts.is_empty()))
    }

    /// Bytes that are on disk, for whoever watches another process at work.
    pub(super) fn completed(&self) -> u64 {
        let states = self.states().unwrap_or_default();
        states.iter().filter_map(|path| read(path)).map(|part| part.completed).sum()
    }

    /// In one step, so that a kill leaves the old state or the new one.
    pub(super) fn save(&self, part: &Part) -> Result<()> {
        let path = self.state(part.n);
        let text = serde_json::to_string(part).unwrap_or_default() + "\n";
        let temporary = self.folder.join(format!("{}{}-{}", durable::TEMPORARY, self.name, part.n));
        fs::write(&temporary, text).map_err(Error::io("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(Error::io("rename to", &path))
    }

    /// Removes the states: a finished download has none.
    pub(super) fn forget(&self) -> Result<()> {
        self.states()?.iter().try_for_each(|path| durable::remove(path).map(|_| ()))
    }

    /// Removes everything: nothing of it can be used.
    pub(super) fn discard(&self) -> Result<()> {
        durable::remove(&self.data())?;
        self.forget()
    }

    fn states(&self) -> Result<Vec<PathBuf>> {
        let names = children(&self.folder)?;
        let is_state =
            |name: &String| name.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('-'));
        Ok(names.into_iter().filter(is_state).map(|name| self.folder.join(name)).collect())
    }
}

fn read(path: &Path) -> Option<Part> {
    let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_STATE_BYTES);
    if !is_small {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MB: u64 = 1_000_000;

    fn sizes(total: u64) -> Vec<u64> {
        plan(total, &Tuning::default()).iter().map(|part| part.size).collect()
    }

    #[test]
    fn parts_are_as_large_as_ollamas() {
        assert_eq!(sizes(0), [0; 0]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(100 * MB), [100 * MB]);
        assert_eq!(sizes(250 * MB), [100 * MB, 100 * MB, 50 * MB]);
        assert_eq!(sizes(16_000 * MB), [1000 * MB; 16]);
        assert_eq!(sizes(17_000 * MB).len(), 17);
    }

    fn files() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path().to_owned(), &Digest::of(b"x"));
        (folder, files)
    }

    #[test]
    fn what_was_saved_is_found_again_in_ollamas_words() {
        let (_folder, files) = files();
        assert_eq!(files.load(30).unwrap(), None);
        let part = |n, completed| Part { n, offset: 10 * n as u64, size: 10, completed };
        let parts: Vec<Part> = (0..3).map(|n| part(n, 3 * n as u64)).collect();
        parts.iter().for_each(|part| files.save(part).unwrap());
        assert_eq!(files.load(30).unwrap(), Some(parts));
        assert_eq!(files.completed(), 9);
        let text = fs::read_to_string(files.state(2)).unwrap();
        assert_eq!(text, "{\"N\":2,\"Offset\":20,\"Size\":10,\"Completed\":6}\n");
        files.forget().unwrap();
        assert_eq!(files.load(30).unwrap(), None);
    }

    #[test]
    fn parts_that_do_not_fit_together_are_none() {
        for (text, total) in [
            (r#"{"N":0,"Offset":0,"Size":10,"Completed":11}"#, 10),
            (r#"{"N":0,"Offset":0,"Size":10,"Completed":1}"#, 11),
            (r#"{"N":1,"Offset":0,"Size":10,"Completed":1}"#, 10),
            (r#"{"N":0,"Offset":1,"Size":10,"Completed":1}"#, 10),
            (r#"{"N":0,"Offset":0,"Size":18446744073709551615,"Completed":1}"#, 10),
            (r#"{"N":0,"Offset":0,"Size":0,"Completed":0}"#, 0),
            ("", 10),
            ("{}", 10),
        ] {
            let (_folder, files) = files();
            fs::write(files.state(0), text).unwrap();
            assert_eq!(files.load(total).unwrap(), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_plan_covers_every_byte_once(total in 0u64..50_000_000_000) {
            let parts = plan(total, &Tuning::default());
            prop_assert!(parts.len() <= 64);
            prop_assert_eq!(parts.iter().map(|part| part.size).sum::<u64>(), total);
            prop_assert!(parts.windows(2).all(|pair| pair[0].end() == pair[1].offset));
        }
    }
}

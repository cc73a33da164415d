//! API keys: who may use this gateway at all. A file lists them; it is read again when it changes.
//!
//! Without such a file nothing is asked, and keys that clients send anyway are passed over. What a key's owner may do,
//! and how much, is not decided here. No key is ever logged or told in an error.

mod check;
mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::MissedTickBehavior;

pub use self::check::{check, take_from_path};
pub use self::file::Error;

/// How long a change of the file may go unseen.
const LOOK: Duration = Duration::from_secs(1);
/// Longer than any key that is made; nobody makes us hash more.
const MAX_KEY_BYTES: usize = 256;

/// The keys that this gateway knows now. Cheap to clone; the clones change together.
#[derive(Clone)]
pub struct Keys {
    path: PathBuf,
    known: Arc<ArcSwap<Vec<Key>>>,
}

/// A key as it is kept: whoever reads our memory or the file learns no secret that was given as its hash.
struct Key {
    name: String,
    digest: [u8; 32],
}

// === impl Keys ===

impl Keys {
    /// # Errors
    /// The file cannot be read, or one of its lines is none: with the line, and without what it says.
    pub fn open(path: &Path) -> Result<Keys, Error> {
        let known = file::read(path)?;
        Ok(Keys { path: path.to_owned(), known: Arc::new(ArcSwap::from_pointee(known)) })
    }

    /// The name of a key. Every key is compared, and each in constant time.
    fn name_of(&self, secret: &[u8]) -> Option<String> {
        if secret.is_empty() || secret.len() > MAX_KEY_BYTES {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let mut found = None;
        for key in self.known.load().iter() {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(key.name.clone());
            }
        }
        found
    }

    /// Reads the file again whenever it has changed. A file that makes no sense changes nothing.
    pub async fn keep(&self) {
        let mut seen = file::stamp(&self.path).await;
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = file::stamp(&self.path).await;
            if now == seen {
                continue;
            }
            seen = now;
            // The file is small; a few microseconds on this thread cost less than another one.
            match file::read(&self.path) {
                Ok(known) => {
                    tracing::info!(keys = known.len(), path = %self.path.display(), "API keys read again");
                    self.known.store(Arc::new(known));
                }
                Err(error) => tracing::error!(%error, "API keys stay as they were"),
            }
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(keys: &Keys, secret: &str) -> Option<String> {
        keys.name_of(secret.as_bytes())
    }

    #[test]
    fn a_key_is_found_by_its_whole_secret_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, format!("open-sesame\nada:{}\n", hex::encode(Sha256::digest("s3cret"))))
            .unwrap();
        let keys = Keys::open(&path).unwrap();
        assert_eq!(name(&keys, "s3cret").as_deref(), Some("ada"));
        assert_eq!(name(&keys, "open-sesame").as_deref(), Some("line-1"));
        let long = "s".repeat(MAX_KEY_BYTES + 1);
        for wrong in ["", "s3cre", "s3cret ", "S3CRET", "ada", "sésame", &long] {
            assert_eq!(name(&keys, wrong), None, "{wrong}");
        }
        assert!(!format!("{keys:?}").contains("sesame"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_read_again_when_it_changes_and_only_if_it_makes_sense() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "one").unwrap();
        let keys = Keys::open(&path).unwrap();
        let keeper = keys.clone();
        let after = |text: Option<&'static str>, secret: &'static str| {
            let (keys, path) = (keys.clone(), path.clone());
            async move {
                match text {
                    Some(text) => std::fs::write(&path, text).unwrap(),
                    None => std::fs::remove_file(&path).unwrap(),
                }
                tokio::time::sleep(3 * LOOK).await;
                name(&keys, secret).is_some()
            }
        };
        let changes = async {
            tokio::time::sleep(3 * LOOK).await;
            assert!(after(Some("two and"), "one").await, "a key has no space in it");
            assert!(after(Some("two-two"), "two-two").await);
            assert!(!after(Some("three"), "two-two").await);
            assert!(after(Some(""), "three").await, "an empty file would lock everybody out");
            assert!(after(None, "three").await);
            assert!(after(Some("fourfour"), "fourfour").await);
        };
        tokio::select! {
            () = keeper.keep() => unreachable!("it keeps for ever"),
            () = changes => {}
        }
    }
}

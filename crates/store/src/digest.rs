//! Content addresses: `sha256:<64 hex>`.

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// The sha256 of a blob. Hex is kept in lower case, so that one blob has one file.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    hex: String,
}

// === impl Digest ===

impl Digest {
    /// Reads `sha256:<hex>` or `sha256-<hex>`.
    ///
    /// # Errors
    /// [`Error::Digest`] for anything else.
    pub fn parse(text: &str) -> Result<Digest> {
        let hex =
            text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-")).ok_or(Error::Digest)?;
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::Digest);
        }
        Ok(Digest { hex: hex.to_ascii_lowercase() })
    }

    pub fn of(bytes: &[u8]) -> Digest {
        Digest { hex: hex::encode(Sha256::digest(bytes)) }
    }

    /// Hashes what is read, in pieces.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Digest> {
        let mut hasher = Hasher::default();
        // Large enough that the system calls do not matter, small enough for the cache.
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                read => hasher.update(&buffer[..read]),
            }
        }
    }

    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The blob's name on disk. Windows cannot have a colon there, so Ollama has none anywhere.
    pub fn file_name(&self) -> String {
        format!("sha256-{}", self.hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub(crate) struct Hasher {
    sha: Sha256,
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest { hex: hex::encode(self.sha.finalize()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_blob() {
        let hex = "ABCDEF0123456789".repeat(4);
        let colon = Digest::parse(&format!("sha256:{hex}")).unwrap();
        let dash = Digest::parse(&format!("sha256-{}", hex.to_lowercase())).unwrap();
        assert_eq!(colon, dash);
        assert_eq!(colon.to_string(), format!("sha256:{}", hex.to_lowercase()));
        assert_eq!(colon.file_name(), format!("sha256-{}", hex.to_lowercase()));
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        let short = format!("sha256:{}", "0".repeat(63));
        let long = format!("sha256:{}", "0".repeat(65));
        let not_hex = format!("sha256:{}g", "0".repeat(63));
        let other = format!("sha512:{}", "0".repeat(64));
        let slash = format!("sha256/{}", "0".repeat(64));
        let bare = "0".repeat(64);
        for text in [
            "",
            "sha256:",
            "sha256",
            &short,
            &long,
            &not_hex,
            &other,
            &slash,
            &bare,
            "sha256:../../etc/passwd",
        ] {
            assert!(matches!(Digest::parse(text), Err(Error::Digest)), "{text:?} was accepted");
        }
    }

    #[test]
    fn reading_in_pieces_gives_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..600_000u32).map(|i| i as u8).collect();
        assert_eq!(Digest::of_reader(bytes.as_slice()).unwrap(), Digest::of(&bytes));
        assert_eq!(Digest::of(b"").hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}

//! The file of keys: one a line, `NAME:SHA256` or the key itself; `#` begins a comment line.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Key, MAX_KEY_BYTES};
use sha2::{Digest, Sha256};

/// Every request compares all keys; more belong into something better than a file.
const MAX_KEYS: usize = 4096;
/// As many lines as there may be keys, and comments.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What is wrong with a file of keys, told without what it says: that may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` must be at most {MAX_FILE_BYTES} bytes, got {bytes}", path.display())]
    Size { path: PathBuf, bytes: u64 },
    #[error("line {line} of `{}` must {bound}, got {got}", path.display())]
    Line { path: PathBuf, line: usize, bound: &'static str, got: String },
    #[error("`{}` must have 1 to {MAX_KEYS} keys, got {keys}", path.display())]
    Count { path: PathBuf, keys: usize },
}

/// What changes when a file does: a mounted secret is another file, an edited one has another time or size.
pub async fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

pub fn read(path: &Path) -> Result<Vec<Key>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(Error::Size { path: path.to_owned(), bytes });
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    parse(&String::from_utf8_lossy(&bytes), path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Key>, Error> {
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (number, line) = (number + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = match line.rsplit_once(':') {
            Some((name, digest)) => hashed(name, digest),
            None => plain(line, number),
        };
        let wrong = |(bound, got)| Error::Line { path: path.to_owned(), line: number, bound, got };
        keys.push(key.map_err(wrong)?);
    }
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err(Error::Count { path: path.to_owned(), keys: keys.len() });
    }
    Ok(keys)
}

/// A bound and what there is instead.
type Wrong = (&'static str, String);

fn hashed(name: &str, digest: &str) -> Result<Key, Wrong> {
    let Some(name) = node::ident::parse(name) else {
        let got = format!("{} bytes", name.len());
        return Err(("begin with a name of 1 to 80 letters, digits, `-`, `_` or `.` before its colon", got));
    };
    let wrong =
        || ("have the 64 hex digits of a SHA-256 behind its colon", format!("{} bytes", digest.len()));
    let mut bytes = [0; 32];
    hex::decode_to_slice(digest, &mut bytes).map_err(|_| wrong())?;
    Ok(Key { name, digest: bytes })
}

fn plain(key: &str, number: usize) -> Result<Key, Wrong> {
    let bound = "be NAME:SHA256, or a key of 1 to 256 visible ASCII characters without `:`";
    if key.len() > MAX_KEY_BYTES {
        return Err((bound, format!("{} bytes", key.len())));
    }
    if let Some(at) = key.chars().position(|character| !character.is_ascii_graphic()) {
        return Err((bound, format!("something else at column {}", at + 1)));
    }
    Ok(Key { name: format!("line-{number}"), digest: Sha256::digest(key).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn parsed(text: &str) -> Result<Vec<Key>, String> {
        parse(text, Path::new("k")).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_are_keys_hashes_or_comments() {
        let text =
            format!("# ours\r\n\n  hello \nada.l:{DIGEST}\n   # theirs\nbob:{}\n", DIGEST.to_uppercase());
        let keys = parsed(&text).unwrap();
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["line-3", "ada.l", "bob"]);
        assert!(keys.iter().all(|key| hex::encode(key.digest) == DIGEST), "all are the key hello");
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_bound_but_not_by_value() {
        let plain = "be NAME:SHA256, or a key of 1 to 256 visible ASCII characters without `:`";
        let long = "x".repeat(257);
        for (line, said) in [
            ("top secret", format!("line 2 of `k` must {plain}, got something else at column 4")),
            ("ключ", format!("line 2 of `k` must {plain}, got something else at column 1")),
            (&long, format!("line 2 of `k` must {plain}, got 257 bytes")),
            (
                "ada:5ecret",
                "line 2 of `k` must have the 64 hex digits of a SHA-256 behind its colon, got 6 bytes".to_owned(),
            ),
            (
                &format!("a b:{DIGEST}"),
                "line 2 of `k` must begin with a name of 1 to 80 letters, digits, `-`, `_` or `.` before its colon, \
                 got 3 bytes"
                    .to_owned(),
            ),
        ] {
            assert_eq!(parsed(&format!("good\n{line}\n")).err(), Some(said));
        }
    }

    #[test]
    fn a_file_has_some_keys_but_not_too_many() {
        let said = |count: usize| format!("`k` must have 1 to 4096 keys, got {count}");
        assert_eq!(parsed("# none\n").err(), Some(said(0)));
        assert_eq!(parsed(&"k\n".repeat(4096)).map(|keys| keys.len()), Ok(4096));
        assert_eq!(parsed(&"k\n".repeat(4097)).err(), Some(said(4097)));
    }

    #[test]
    fn a_file_that_is_no_keys_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let said = || read(&path).err().expect("it is refused").to_string();
        assert!(said().starts_with("read `"), "{}", said());
        std::fs::write(&path, vec![b'#'; (MAX_FILE_BYTES + 1) as usize]).unwrap();
        assert!(said().ends_with("must be at most 1048576 bytes, got 1048577"), "{}", said());
        std::fs::write(&path, b"\xff\xfe\xff").unwrap();
        assert!(said().contains("line 1 of"), "{}", said());
    }
}

//! Where an operator says that the store is.

use std::fmt;
use std::path::PathBuf;

use object_store::path::Path;

/// A folder, or a bucket with the folders of Ollama's layout as the beginnings of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Folder(PathBuf),
    /// The prefix has no slash at its ends.
    Bucket {
        name: String,
        prefix: String,
    },
}

// === impl Location ===

impl Location {
    /// What a location must be, as it reads after "must be".
    pub const BOUND: &str = "the path of a folder, file:///folder or s3://bucket/prefix";

    /// Reads a path, `file:///folder` or `s3://bucket/prefix`.
    pub fn parse(text: &str) -> Option<Location> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = Path::parse(prefix).ok()?.to_string();
            return is_bucket(name).then(|| Location::Bucket { name: name.to_owned(), prefix });
        }
        let path = match text.strip_prefix("file://") {
            Some(path) => Some(path).filter(|path| path.starts_with('/'))?,
            None => text,
        };
        (!path.is_empty() && !path.contains("://")).then(|| Location::Folder(PathBuf::from(path)))
    }
}

/// Amazon's rules, and capitals and underscores, which other servers and old buckets have.
fn is_bucket(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    (3..=255).contains(&name.len())
        && name.bytes().all(is_plain)
        && is_end(name.bytes().next())
        && is_end(name.bytes().last())
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Folder(path) => path.display().fmt(f),
            Location::Bucket { name, prefix } if prefix.is_empty() => write!(f, "s3://{name}"),
            Location::Bucket { name, prefix } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Location {
        Location::Folder(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_buckets_are_told_apart() {
        for (text, told) in [
            ("/srv/models", "/srv/models"),
            ("models", "models"),
            ("file:///srv/models", "/srv/models"),
            ("s3://models", "s3://models"),
            ("s3://models/", "s3://models"),
            ("s3://my.models-1/a/b/", "s3://my.models-1/a/b"),
        ] {
            assert_eq!(Location::parse(text).map(|location| location.to_string()).as_deref(), Some(told));
        }
        let bucket = Location::Bucket { name: "models".to_owned(), prefix: "a/b".to_owned() };
        assert_eq!(Location::parse("s3://models/a/b"), Some(bucket));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "",
            "file://",
            "file://host/x",
            "http://x/y",
            "gs://models",
            "s3://",
            "s3:///x",
            "s3://ab",
            "s3://-abc",
            "s3://a b c",
            "s3://models/a//b",
            "s3://models/../x",
            "s3://user:secret@models/x",
        ] {
            assert_eq!(Location::parse(text), None, "{text}");
        }
    }
}

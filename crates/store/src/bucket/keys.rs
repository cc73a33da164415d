//! What is under which key: Ollama's layout, and beside it what was touched.
//!
//! ```text
//! PREFIX/manifests/<host>/<namespace>/<model>/<tag>    JSON
//! PREFIX/blobs/sha256-<64 hex>
//! PREFIX/touched/sha256-<64 hex>                       empty: the blob counts as new as this is
//! ```

use std::cmp::Reverse;

use object_store::path::Path;

use crate::home::Entry;
use crate::name::Part;
use crate::{Digest, Name};

/// The keys below one prefix.
pub(super) struct Keys {
    prefix: Path,
}

// === impl Keys ===

impl Keys {
    pub(super) fn new(prefix: Path) -> Keys {
        Keys { prefix }
    }

    pub(super) fn manifests(&self) -> Path {
        self.prefix.clone().join("manifests")
    }

    pub(super) fn blobs(&self) -> Path {
        self.prefix.clone().join("blobs")
    }

    pub(super) fn touches(&self) -> Path {
        self.prefix.clone().join("touched")
    }

    pub(super) fn manifest(&self, name: &Name) -> Path {
        name.parts().into_iter().fold(self.manifests(), |path, part| path.join(part))
    }

    pub(super) fn blob(&self, digest: &Digest) -> Path {
        self.blobs().join(digest.file_name())
    }

    pub(super) fn touch(&self, digest: &Digest) -> Path {
        self.touches().join(digest.file_name())
    }

    /// The model of a manifest; `None` for a key that cannot be one.
    pub(super) fn name(&self, key: &Path) -> Option<Name> {
        let manifests = self.manifests();
        let rest = key.as_ref().strip_prefix(manifests.as_ref())?.strip_prefix('/')?;
        let parts: Vec<&str> = rest.split('/').collect();
        let parts: [&str; 4] = parts.try_into().ok()?;
        let accepted = Part::ALL.iter().zip(parts).all(|(kind, part)| kind.accepts(part));
        accepted.then(|| Name::from_parts(parts).ok()).flatten()
    }
}

/// The blob of a key, which ends with its name.
pub(super) fn digest(key: &Path) -> Option<Digest> {
    let name = key.filename()?;
    Digest::parse(name).ok().filter(|digest| digest.file_name() == name)
}

/// The entry of a name in whatever spelling; at each level the exact one is preferred, as in a folder.
pub(super) fn find(entries: Vec<Entry>, name: &Name) -> Option<Entry> {
    let asked = name.parts();
    let is_same = |entry: &Entry| {
        entry.name.parts().iter().zip(asked).all(|(part, asked)| part.eq_ignore_ascii_case(asked))
    };
    let exact = |entry: &Entry| -> Vec<bool> {
        entry.name.parts().iter().zip(asked).map(|(part, asked)| *part == asked).collect()
    };
    // Of those that are as exact the first by name: entries are sorted.
    entries.into_iter().filter(is_same).min_by_key(|entry| Reverse(exact(entry)))
}

/// The name with the parts that are there already as they are there, up to the first that is not.
pub(super) fn spelling(entries: &[Entry], name: &Name) -> [String; 4] {
    let mut parts = name.parts().map(str::to_owned);
    for level in 0..parts.len() {
        let below = entries.iter().map(|entry| entry.name.parts()).filter(|stored| {
            stored[..level].iter().zip(&parts).all(|(stored, part)| *stored == part.as_str())
        });
        let same = below.map(|stored| stored[level]).filter(|part| part.eq_ignore_ascii_case(&parts[level]));
        if let Some(stored) = same.min_by_key(|stored| (*stored != parts[level], *stored)) {
            parts[level] = stored.to_owned();
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ollamas_layout_below_the_prefix() {
        let keys = Keys::new(Path::parse("a/b").unwrap());
        let name = Name::parse("localhost:5000/ns/m:t").unwrap();
        let key = keys.manifest(&name);
        assert_eq!(key.as_ref(), "a/b/manifests/localhost:5000/ns/m/t");
        assert_eq!(keys.name(&key), Some(name));
        let digest = Digest::of(b"x");
        assert_eq!(keys.blob(&digest).as_ref(), format!("a/b/blobs/{}", digest.file_name()));
        assert_eq!(super::digest(&keys.blob(&digest)), Some(digest));
        let bare = Keys::new(Path::default());
        assert!(bare.manifest(&Name::parse("m").unwrap()).as_ref().starts_with("manifests/"));
    }

    #[test]
    fn what_is_no_manifest_has_no_name() {
        let keys = Keys::new(Path::parse("a").unwrap());
        for key in [
            "a/manifests/h/n/m",
            "a/manifests/h/n/m/t/u",
            "a/manifests/h/n/m/.tmp-x",
            "b/manifests/h/n/m/t",
            "a/manifestsx/h/n/m/t",
        ] {
            assert_eq!(keys.name(&Path::parse(key).unwrap()), None, "{key}");
        }
        assert_eq!(digest(&Path::parse("a/blobs/sha256-12").unwrap()), None);
    }
}

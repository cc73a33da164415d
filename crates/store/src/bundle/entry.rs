//! What an entry of a tar may be: a manifest or a blob, by its path. Pure.

use super::Error;
use crate::{Digest, Name};

/// Where an entry belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Manifest(Name),
    Blob(Digest),
}

impl Place {
    /// # Errors
    /// [`Error::Path`] for whatever leads anywhere else: absolute, upwards, or to another file of the store.
    pub(super) fn parse(path: &str) -> Result<Place, Error> {
        let wrong = || Error::Path(path.to_owned());
        let relative = path.strip_prefix("./").unwrap_or(path);
        match relative.split('/').collect::<Vec<_>>()[..] {
            ["manifests", host, namespace, model, tag] => {
                Name::from_parts([host, namespace, model, tag]).map(Place::Manifest).map_err(|_| wrong())
            }
            ["blobs", file] => {
                let digest = Digest::parse(file).ok().filter(|digest| digest.file_name() == file);
                digest.map(Place::Blob).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    pub(super) fn path(&self) -> String {
        match self {
            Place::Manifest(name) => format!("manifests/{}", name.parts().join("/")),
            Place::Blob(digest) => format!("blobs/{}", digest.file_name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_manifests_and_blobs_have_a_place() {
        let blob = format!("blobs/{}", Digest::of(b"x").file_name());
        for path in ["manifests/registry.ollama.ai/library/m/latest", "manifests/h:1/n/m/t", &blob] {
            assert_eq!(Place::parse(path).unwrap().path(), path);
            assert_eq!(Place::parse(&format!("./{path}")).unwrap().path(), path);
        }
        let partial = format!("{blob}-partial");
        let absolute = format!("/{blob}");
        let upper = blob.to_uppercase();
        for path in [
            "",
            "manifests",
            "manifests/h/n/m",
            "manifests/h/n/m/t/u",
            "manifests/../../../etc/passwd",
            "manifests/h/n/../t",
            "../blobs/x",
            "blobs/../x",
            "blobs/x",
            "manifests//n/m/t",
            "id_ed25519",
            &partial,
            &absolute,
            &upper,
        ] {
            assert!(matches!(Place::parse(path), Err(Error::Path(_))), "{path} was accepted");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_the_parser_panic_or_leave_the_store(path in any::<String>()) {
            if let Ok(place) = Place::parse(&path) {
                prop_assert!(!place.path().contains(".."));
            }
        }
    }
}

//! Model names: `[scheme://][host/][namespace/]model[:tag]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Error, Result};

pub const DEFAULT_HOST: &str = "registry.ollama.ai";
pub const DEFAULT_NAMESPACE: &str = "library";
pub const DEFAULT_TAG: &str = "latest";

/// Ollama's bounds, in bytes.
const MAX_HOST: usize = 350;
const MAX_PART: usize = 80;

/// A complete, valid name. Comparison here is exact; that `Llama3` finds `llama3` is the store's doing, because
/// the stored spelling wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub host: String,
    pub namespace: String,
    pub model: String,
    pub tag: String,
}

/// What a part may contain depends on which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Host,
    Namespace,
    Model,
    Tag,
}

// === impl Name ===

impl Name {
    /// Reads a name and fills in the defaults; a scheme is dropped.
    ///
    /// # Errors
    /// [`Error::Name`] when a part is empty, too long, or has a character that it may not have.
    pub fn parse(text: &str) -> Result<Name> {
        let (_, text) = Name::split_scheme(text);
        let (path, tag) = match (text.rfind(':'), text.rfind('/')) {
            (Some(colon), slash) if slash.is_none_or(|slash| colon > slash) => {
                (&text[..colon], Some(&text[colon + 1..]))
            }
            _ => (text, None),
        };
        let (path, model) = cut_last(path);
        let (host, namespace) = match path.map(cut_last) {
            None => (None, None),
            Some((host, namespace)) => (host, Some(namespace)),
        };
        Name::from_parts([
            host.unwrap_or(DEFAULT_HOST),
            namespace.unwrap_or(DEFAULT_NAMESPACE),
            model,
            tag.unwrap_or(DEFAULT_TAG),
        ])
    }

    /// The scheme, if the text has one, and the rest.
    pub fn split_scheme(text: &str) -> (Option<&str>, &str) {
        match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        }
    }

    /// Host, namespace, model and tag, all given.
    pub(crate) fn from_parts(parts: [&str; 4]) -> Result<Name> {
        if !Part::ALL.into_iter().zip(parts).all(|(kind, text)| kind.accepts(text)) {
            return Err(Error::Name);
        }
        let [host, namespace, model, tag] = parts.map(str::to_owned);
        Ok(Name { host, namespace, model, tag })
    }

    /// What people read: without the defaults, always with the tag.
    pub fn shortest(&self) -> String {
        let Name { host, namespace, model, tag } = self;
        match (host == DEFAULT_HOST, namespace == DEFAULT_NAMESPACE) {
            (true, true) => format!("{model}:{tag}"),
            (true, false) => format!("{namespace}/{model}:{tag}"),
            (false, _) => self.full(),
        }
    }

    /// All four parts.
    pub fn full(&self) -> String {
        format!("{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }

    /// Equal but for the case of ASCII letters, which are the only ones that a name may have.
    pub fn eq_ignore_case(&self, other: &Name) -> bool {
        self.parts().iter().zip(other.parts()).all(|(a, b)| a.eq_ignore_ascii_case(b))
    }

    pub(crate) fn parts(&self) -> [&str; 4] {
        [&self.host, &self.namespace, &self.model, &self.tag]
    }

    /// Where the manifest lies below `manifests/`. No part can be `..`, so this never leaves the folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.parts().into_iter().collect()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shortest())
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name> {
        Name::parse(text)
    }
}

/// What stands before the last slash, if there is one, and what after it.
fn cut_last(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('/') {
        Some((before, after)) => (Some(before), after),
        None => (None, text),
    }
}

// === impl Part ===

impl Part {
    /// In the order of the path on disk.
    pub(crate) const ALL: [Part; 4] = [Part::Host, Part::Namespace, Part::Model, Part::Tag];

    pub(crate) fn accepts(self, text: &str) -> bool {
        let longest = if self == Part::Host { MAX_HOST } else { MAX_PART };
        let mut bytes = text.bytes();
        let starts_well = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        starts_well && text.len() <= longest && bytes.all(|byte| self.accepts_byte(byte))
    }

    fn accepts_byte(self, byte: u8) -> bool {
        match byte {
            b'_' | b'-' => true,
            b'.' => self != Part::Namespace,
            b':' => self == Part::Host,
            _ => byte.is_ascii_alphanumeric(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_get_their_defaults_and_print_shortest() {
        for (text, full, shortest) in [
            ("llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
            ("llama3:8b", "registry.ollama.ai/library/llama3:8b", "llama3:8b"),
            ("Me/Fine_Tune:V1.0-b", "registry.ollama.ai/Me/Fine_Tune:V1.0-b", "Me/Fine_Tune:V1.0-b"),
            ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"),
            ("localhost:5000/ns/m", "localhost:5000/ns/m:latest", "localhost:5000/ns/m:latest"),
            ("localhost:5000/ns/m:t", "localhost:5000/ns/m:t", "localhost:5000/ns/m:t"),
            ("https://host/ns/m:t", "host/ns/m:t", "host/ns/m:t"),
            ("registry.ollama.ai/library/m:latest", "registry.ollama.ai/library/m:latest", "m:latest"),
            ("host/library/m", "host/library/m:latest", "host/library/m:latest"),
            ("qwen2.5:0.5b", "registry.ollama.ai/library/qwen2.5:0.5b", "qwen2.5:0.5b"),
            ("_m", "registry.ollama.ai/library/_m:latest", "_m:latest"),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!((name.full().as_str(), name.shortest().as_str()), (full, shortest), "{text}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(81);
        let digest = format!("m@sha256:{}", "0".repeat(64));
        for text in [
            "",
            " ",
            ":",
            "/",
            "//",
            "m:",
            ":t",
            "/m",
            "ns/",
            "ns//m",
            "/ns/m",
            "h//m:t",
            "a/b/c/d/e",
            "m:t:u",
            "-m",
            ".m",
            "m:-t",
            "..",
            "../m",
            "n.s/m",
            "n:s/m",
            "m m",
            "m\n",
            "m\0",
            "ü",
            "m:ü",
            "host/ns/m:a/b",
            &long,
            &digest,
            "h/../m",
            "!MISSING!",
            "m!",
            "http:///ns/m",
        ] {
            assert!(matches!(Name::parse(text), Err(Error::Name)), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_part_may_be_as_long_as_its_bound_and_no_longer() {
        let (host, part) = ("h".repeat(350), "p".repeat(80));
        assert!(Name::parse(&format!("{host}/{part}/{part}:{part}")).is_ok());
        assert!(Name::parse(&format!("h{host}/{part}/{part}:{part}")).is_err());
        assert!(Name::parse(&format!("{part}p")).is_err());
    }

    #[test]
    fn the_scheme_can_be_asked_for() {
        assert_eq!(Name::split_scheme("http://h/n/m"), (Some("http"), "h/n/m"));
        assert_eq!(Name::split_scheme("m:t"), (None, "m:t"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            let _ = Name::parse(&text);
        }

        #[test]
        fn what_a_name_prints_parses_to_the_same_name(
            text in "([a-z][a-z.:]{0,9}/)?([A-Za-z_][A-Za-z0-9_-]{0,9}/)?[a-zA-Z0-9_][a-z.-]{0,9}(:[a-z][a-z.-]{0,9})?",
        ) {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(&Name::parse(&name.shortest()).unwrap(), &name);
                prop_assert_eq!(&Name::parse(&name.full()).unwrap(), &name);
                prop_assert_eq!(name.path().components().count(), 4);
            }
        }
    }
}

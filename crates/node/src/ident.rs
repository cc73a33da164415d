//! What a process is called: an id that people read, and a boot id that no earlier process had.

use rand::Rng;

/// Bounds an id, which becomes part of keys in the metadata store and of a header: a host name has at most 64.
const MAX_LENGTH: usize = 80;

/// Without letters that look alike.
const ALPHABET: &[u8] = b"23456789abcdefghjkmnpqrstuvwxyz";

/// The host name and a random suffix: two processes on one machine, or a pod and its successor, differ.
pub fn id() -> String {
    let host = host_name();
    let plain: String = host.chars().map(|c| if is_plain(c) { c } else { '-' }).take(64).collect();
    let plain = if plain.is_empty() { "node" } else { &plain };
    format!("{plain}-{}", random(6))
}

/// What this machine calls itself, in lower case.
pub fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().to_lowercase()
}

/// 26 characters of 31 are 128 bits: no two processes ever share one.
pub fn boot_id() -> String {
    random(26)
}

/// For a [`crate::Setting`]: letters, digits, `.`, `_` and `-`, at most 80 of them.
pub fn parse(text: &str) -> Option<String> {
    let is_valid = (1..=MAX_LENGTH).contains(&text.len()) && text.chars().all(is_plain);
    is_valid.then(|| text.to_owned())
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

fn random(length: usize) -> String {
    let mut generator = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[generator.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_ours_is_an_id() {
        let id = id();
        assert_eq!(parse(&id), Some(id.clone()));
        assert_ne!(id, super::id());
        assert_ne!(boot_id(), boot_id());
    }

    #[test]
    fn an_id_fits_into_a_key_and_a_header() {
        assert!(parse("gpu-01.rack_2").is_some());
        for text in ["", "a/b", "a b", "ä", &"a".repeat(81)] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert!(parse(&"a".repeat(80)).is_some());
    }
}

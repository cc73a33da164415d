//! `~/.ollama/id_ed25519`: who we are to a registry that wants to know. Ollama's own file, made when absent.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::RngCore;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{LineEnding, PrivateKey};

use super::Error;
use crate::durable;

/// An OpenSSH key has 400 bytes; this is no key any more.
const MAX_KEY_BYTES: u64 = 16 << 10;

/// A key pair, ready to sign.
pub(super) struct Key {
    pair: Ed25519KeyPair,
    /// As in a line of `authorized_keys`.
    public: String,
}

impl Key {
    /// Reads the key, or makes one where there is none yet. Blocking.
    pub(super) fn load_or_make(path: &Path) -> Result<Key, Error> {
        let wrong = |reason: String| Error::Key { path: path.display().to_string(), reason };
        if !path.exists() {
            make(path).map_err(&wrong)?;
        }
        let length = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > MAX_KEY_BYTES {
            return Err(wrong(format!("must be at most {MAX_KEY_BYTES} bytes, got {length}")));
        }
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let private = PrivateKey::from_openssh(&text).map_err(|error| wrong(error.to_string()))?;
        let KeypairData::Ed25519(keys) = private.key_data() else {
            return Err(wrong(format!(
                "must be an ed25519 key without a passphrase, got {}",
                private.algorithm()
            )));
        };
        let pair =
            Ed25519KeyPair::from_seed_and_public_key(keys.private.as_ref(), keys.public.as_ref().as_slice())
                .map_err(|error| wrong(error.to_string()))?;
        let public = private.public_key().to_bytes().map_err(|error| wrong(error.to_string()))?;
        Ok(Key { pair, public: BASE64.encode(public) })
    }

    /// The value of `Authorization`: the public key and the signature of `message`.
    pub(super) fn authorization(&self, message: &str) -> String {
        format!("{}:{}", self.public, BASE64.encode(self.pair.sign(message.as_bytes())))
    }
}

/// Writes a new pair; when another process is faster, its pair stays.
fn make(path: &Path) -> Result<(), String> {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| error.to_string())?;
    let public: [u8; 32] =
        pair.public_key().as_ref().try_into().expect("the public key of ed25519 has 32 bytes");
    let keys =
        Ed25519Keypair { public: Ed25519PublicKey(public), private: Ed25519PrivateKey::from_bytes(&seed) };
    let private = PrivateKey::from(keys);
    let text = private.to_openssh(LineEnding::LF).map_err(|error| error.to_string())?;
    let folder = path.parent().unwrap_or(Path::new("."));
    durable::create_directories(folder).map_err(|error| error.to_string())?;
    // A temporary file of this kind is for its owner's eyes only.
    let mut file = tempfile::Builder::new()
        .prefix(durable::TEMPORARY)
        .tempfile_in(folder)
        .map_err(|error| error.to_string())?;
    file.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    file.as_file().sync_all().map_err(|error| error.to_string())?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error.error.to_string()),
    }
    let line = private.public_key().to_openssh().map_err(|error| error.to_string())?;
    durable::write(&public_path(path), format!("{line}\n").as_bytes()).map_err(|error| error.to_string())
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".pub");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_signs_for_its_public_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/id_ed25519");
        let first = Key::load_or_make(&path).unwrap();
        assert_eq!(Key::load_or_make(&path).unwrap().public, first.public, "made anew");
        let line = fs::read_to_string(public_path(&path)).unwrap();
        assert_eq!(line.trim_end(), format!("ssh-ed25519 {}", first.public));

        let authorization = first.authorization("hello");
        let (public, signature) = authorization.split_once(':').unwrap();
        // The wire form: two strings with lengths; the last 32 bytes are the key.
        let wire = BASE64.decode(public).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, &wire[wire.len() - 32..]);
        let signature = BASE64.decode(signature).unwrap();
        assert!(key.verify(b"hello", &signature).is_ok());
        assert!(key.verify(b"hellO", &signature).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_for_its_owner_and_others_see_its_public_half() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id_ed25519");
        Key::load_or_make(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_ne!(mode(&public_path(&path)) & 0o044, 0);
    }

    #[test]
    fn a_file_that_is_no_key_is_named_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id_ed25519");
        for text in
            ["", "hello", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"]
        {
            fs::write(&path, text).unwrap();
            let error = Key::load_or_make(&path).err().unwrap().to_string();
            assert!(error.contains("id_ed25519"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, vec![b'a'; 17 << 10]).unwrap();
        let error = Key::load_or_make(&path).err().unwrap().to_string();
        assert!(error.contains("must be at most 16384 bytes, got 17408"), "{error}");
    }
}

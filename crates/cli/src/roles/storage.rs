//! Where the models are, and how that is opened.

use std::path::PathBuf;

use anyhow::Context;
use node::{
    Setting, Sources,
    config::{Result, Source, text, uint},
};
use store::{Location, Store, StoreConfig};

use crate::args::RoleArgs;

/// What an operator says of the store.
#[derive(Clone, Debug)]
pub struct Storage {
    pub location: Location,
    /// The key and the source that named it; `None` = nobody did.
    origin: Option<(String, Source)>,
    cache: Option<PathBuf>,
    cache_bytes: u64,
}

const STORE: Setting<Location> =
    Setting::new("store", &["CARAVAN_STORE", "OLLAMA_MODELS"], Location::BOUND, Location::parse);
const CACHE: Setting<String> = Setting::new("cache", &["CARAVAN_CACHE"], "the path of a folder", text);
const CACHE_BYTES: Setting<u64> =
    Setting::new("cache-bytes", &["CARAVAN_CACHE_BYTES"], "a number of bytes; 0 = no bound", uint);

// === impl Storage ===

impl Storage {
    pub fn read(flags: &RoleArgs, sources: &Sources) -> Result<Storage> {
        let flag = flags.store.as_deref();
        Ok(Storage {
            location: sources.read(&STORE, flag)?.unwrap_or_else(usual),
            origin: sources.origin(&STORE, flag),
            cache: sources.read(&CACHE, flags.cache.as_deref())?.map(PathBuf::from),
            cache_bytes: sources.read(&CACHE_BYTES, flags.cache_bytes.as_deref())?.unwrap_or_default(),
        })
    }

    /// Opens it for one process of many, or for the only one.
    pub async fn open(&self, prune: bool, shared: bool) -> anyhow::Result<Store> {
        let usual = StoreConfig::from(self.location.clone());
        let config = StoreConfig {
            cache: self.cache.clone().unwrap_or(usual.cache),
            cache_bytes: self.cache_bytes,
            prune,
            shared,
            ..usual
        };
        let opened = Store::connect(config).await;
        opened.with_context(|| match &self.origin {
            Some((key, source)) => format!("open the store {} (`{key}`, {source})", self.location),
            None => format!("open the store {}", self.location),
        })
    }

    /// Says once what is set in vain.
    pub fn tell(&self) {
        if matches!(self.location, Location::Folder(_)) && (self.cache.is_some() || self.cache_bytes > 0) {
            tracing::info!(
                "`cache` and `cache-bytes` are passed over: the store is a folder, which needs no cache"
            );
        }
    }
}

/// Ollama's.
fn usual() -> Location {
    let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
    Location::Folder(home.join(".ollama/models"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> Result<Storage> {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Storage::read(&RoleArgs::default(), &Sources::new(pairs))
    }

    #[test]
    fn a_store_is_a_folder_or_a_bucket() {
        for (value, told) in [
            ("/srv/models", "/srv/models"),
            ("file:///srv/models", "/srv/models"),
            ("s3://models/team/", "s3://models/team"),
        ] {
            assert_eq!(read(&[("CARAVAN_STORE", value)]).unwrap().location.to_string(), told);
        }
        assert!(read(&[]).unwrap().location.to_string().ends_with(".ollama/models"));
        assert_eq!(
            read(&[("CARAVAN_STORE", "gs://models")]).unwrap_err().to_string(),
            "`CARAVAN_STORE` must be the path of a folder, file:///folder or s3://bucket/prefix, got \"gs://models\" (environment)"
        );
    }

    #[test]
    fn a_cache_has_a_folder_and_a_bound() {
        let storage = read(&[("CARAVAN_CACHE", "/var/cache/x"), ("CARAVAN_CACHE_BYTES", "10")]).unwrap();
        assert_eq!((storage.cache, storage.cache_bytes), (Some(PathBuf::from("/var/cache/x")), 10));
        assert_eq!(
            read(&[("CARAVAN_CACHE_BYTES", "10GB")]).unwrap_err().to_string(),
            "`CARAVAN_CACHE_BYTES` must be a number of bytes; 0 = no bound, got \"10GB\" (environment)"
        );
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_opened_is_told_with_key_and_source() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let error = read(&[("OLLAMA_MODELS", path)]).unwrap().open(true, false).await.err().unwrap();
        assert_eq!(error.to_string(), format!("open the store {path} (`OLLAMA_MODELS`, environment)"));
    }
}

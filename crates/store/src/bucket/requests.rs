//! Small requests to a bucket, each with a bound on its time and its answer, and what went wrong in words.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::{Error, Result};

/// How long a small request may take with everything that is tried again: longer than a busy bucket needs, shorter
/// than a client waits.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// As much for a listing, which may have many pages.
const LISTING: Duration = Duration::from_secs(120);
/// Nobody has so many models; a listing is held in memory.
const MAX_KEYS: usize = 1_000_000;
/// What is wrong when a bucket cannot be opened.
const ADVICE: &str = "check AWS_ENDPOINT_URL (AWS_ALLOW_HTTP=true for plain HTTP), AWS_REGION, AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY";
/// Of the text of a server's error.
const MAX_REASON: usize = 300;

/// Asks one bucket. Blocking.
pub(super) struct Requests {
    pub(super) store: Arc<dyn ObjectStore>,
    /// For texts, `s3://bucket/prefix`; no credentials are in it.
    pub(super) url: String,
    pub(super) handle: Handle,
}

// === impl Requests ===

impl Requests {
    /// That it is there and may be read, with words for who has set it up.
    pub(super) fn check(&self, prefix: &Key) -> Result<()> {
        let wrong = |reason: String| Error::Bucket { action: "open", url: self.url.clone(), reason };
        let mut first = self.store.list(Some(prefix));
        match self.handle.block_on(async { timeout(ANSWER, first.next()).await }) {
            Ok(None | Some(Ok(_))) => Ok(()),
            Ok(Some(Err(error))) => match reason(&error) {
                text if text.contains("NoSuchBucket") => {
                    Err(wrong("there is no such bucket, make it or name another".to_owned()))
                }
                text => Err(wrong(format!("{text}; {ADVICE}"))),
            },
            Err(_) => Err(wrong(format!("no answer within {} s; {ADVICE}", ANSWER.as_secs()))),
        }
    }

    /// A small request; `None` when the object is not there.
    fn ask<T>(
        &self,
        action: &'static str,
        key: &Key,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Option<T>> {
        match self.handle.block_on(async { timeout(ANSWER, request).await }) {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(self.error(action, key, reason(&error))),
            Err(_) => Err(self.error(action, key, format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    pub(super) fn error(&self, action: &'static str, key: &Key, reason: String) -> Error {
        Error::Bucket { action, url: self.url_of(key), reason }
    }

    pub(super) fn url_of(&self, key: &Key) -> String {
        let prefix = self.url.split('/').take(3).collect::<Vec<_>>().join("/");
        format!("{prefix}/{key}")
    }

    pub(super) fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        self.ask("look up", key, self.store.head(key))
    }

    pub(super) fn list(&self, prefix: &Key) -> Result<Vec<ObjectMeta>> {
        let listing = self.store.list(Some(prefix)).take(MAX_KEYS + 1).try_collect::<Vec<_>>();
        let found = match self.handle.block_on(async { timeout(LISTING, listing).await }) {
            Ok(found) => found.map_err(|error| self.error("list", prefix, reason(&error)))?,
            Err(_) => {
                let text = format!("no answer within {} s", LISTING.as_secs());
                return Err(self.error("list", prefix, text));
            }
        };
        match found.len() > MAX_KEYS {
            true => Err(self.error("list", prefix, format!("there are more than {MAX_KEYS} objects"))),
            false => Ok(found),
        }
    }

    /// A whole object, if it has `limit` bytes at most.
    pub(super) fn read(&self, what: &'static str, key: &Key, limit: u64) -> Result<Option<Vec<u8>>> {
        let found = self.ask("read", key, async {
            let found = self.store.get_opts(key, GetOptions::default()).await?;
            let got = found.meta.size;
            if got > limit {
                return Ok(Err(got));
            }
            found.bytes().await.map(Ok)
        });
        match found? {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes.into())),
            Some(Err(got)) => {
                let path = PathBuf::from(self.url_of(key));
                Err(Error::Oversized { what, path, limit, got })
            }
        }
    }

    pub(super) fn write(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let payload = PutPayload::from(bytes.to_vec());
        let written = self.ask("write", key, self.store.put(key, payload))?;
        written.map(drop).ok_or_else(|| self.error("write", key, "there is no such bucket".to_owned()))
    }

    pub(super) fn delete(&self, key: &Key) -> Result<()> {
        self.ask("remove", key, self.store.delete(key)).map(drop)
    }
}

/// What is innermost says it best, and of a server's answer its code and message.
pub(super) fn reason(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    let between = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0)
    };
    let told = match (between("Code"), between("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text.clone(),
    };
    let short: String = told.chars().take(MAX_REASON).collect();
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            format!("access denied: {short}")
        }
        _ => short,
    }
}

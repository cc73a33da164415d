//! Parts of a blob from the bucket, for downloads, sections and headers.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use super::requests::reason;
use crate::Digest;
use crate::transfer::Error;
use crate::transfer::download::{Answer, Part, Source};

/// One request asks for so much: a request has a bound on its time, and a blob has none on its size.
const REQUEST_BYTES: u64 = 32 << 20;

/// One blob in the bucket.
#[derive(Clone)]
pub(super) struct Object {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) key: Path,
    /// For texts.
    pub(super) url: String,
}

// === impl Object ===

impl Object {
    /// The bytes of a range, in as many requests as it takes.
    ///
    /// # Errors
    /// [`Error::Size`] when the blob has other than `total` bytes.
    pub(super) fn range(
        self,
        digest: Digest,
        total: u64,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        let starts = (range.start..range.end).step_by(REQUEST_BYTES as usize);
        let pieces = starts.map(move |start| start..range.end.min(start + REQUEST_BYTES));
        let requests = pieces.collect::<Vec<_>>();
        stream::iter(requests)
            .then(move |piece| self.clone().piece(digest.clone(), total, piece))
            .try_flatten()
            .boxed()
    }

    async fn piece(
        self,
        digest: Digest,
        total: u64,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let found = self.store.get_opts(&self.key, options).await.map_err(|error| self.broken(&error))?;
        if found.meta.size != total || found.range != range {
            let digest = digest.to_string();
            return Err(Error::Size { digest, expected: total, got: found.meta.size });
        }
        let stream = found.into_stream().map_err(move |error| self.broken(&error));
        Ok(stream.boxed())
    }

    fn broken(&self, error: &object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } => Error::NotFound,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Error::Denied
            }
            other => {
                Error::Connection { method: "GET".to_owned(), url: self.url.clone(), reason: reason(other) }
            }
        }
    }
}

impl Source for Object {
    fn open<'a>(
        &'a self,
        digest: &'a Digest,
        total: u64,
        part: &'a Part,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        let chunks = self.clone().range(digest.clone(), total, part.next()..part.end());
        async move { Ok(Answer { is_whole: false, chunks }) }.boxed()
    }

    fn url(&self, _: &Digest) -> String {
        self.url.clone()
    }
}

//! One blob on its way out: mounted if the registry has it elsewhere, else sent in pieces, each begun again where the
//! registry says that it stopped.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use md5::{Digest as _, Md5};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::time::timeout;

use super::session::{Session, location, stalled};
use super::{Error, Tuning};
use crate::home::Home;
use crate::{Layer, Name};

/// Ollama's registry calls the next address so, because `Location` is where the bytes go.
const NEXT: [&str; 2] = ["docker-upload-location", "location"];

/// All that sending one blob needs.
pub(super) struct Upload<'a> {
    pub(super) session: &'a Session,
    pub(super) layer: &'a Layer,
    pub(super) home: Arc<dyn Home>,
    /// Bytes that the registry has or is being sent.
    pub(super) sent: Arc<AtomicU64>,
}

/// What became of a piece.
enum Sent {
    /// The registry has it, and takes the next one there.
    Here { next: Url, sum: Sum },
    /// It wants it somewhere else, and the next one there.
    Elsewhere { next: Url, target: Url },
}

/// The MD5 of a piece: no matter of safety, but Ollama's registry joins pieces by it.
type Sum = [u8; 16];

// === impl Upload ===

impl Upload<'_> {
    /// Whether the registry has the blob in this repository.
    pub(super) async fn is_there(&self) -> Result<bool, Error> {
        let url = self.session.origin.url(&format!("blobs/{}", self.layer.digest))?;
        match self.session.ask(Method::HEAD, &url, |request| request).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn run(&self) -> Result<(), Error> {
        let Some(url) = self.begin().await? else { return Ok(()) };
        let (url, sums) = self.send_all(url).await?;
        self.commit(url, sums).await
    }

    /// Opens an upload. `None` when the registry took the blob from the repository that the layer came from.
    async fn begin(&self) -> Result<Option<Url>, Error> {
        let mut url = self.session.origin.url("blobs/uploads/")?;
        if let Ok(Name { namespace, model, .. }) = Name::parse(&self.layer.from) {
            let mut query = url.query_pairs_mut();
            query.append_pair("from", &format!("{namespace}/{model}"));
            query.append_pair("mount", &self.layer.digest.to_string());
        }
        let response =
            self.session.ask(Method::POST, &url, |request| request.header(CONTENT_LENGTH, 0)).await?;
        if response.status() == StatusCode::CREATED { Ok(None) } else { location(&response, &NEXT).map(Some) }
    }

    /// Sends every byte. Answers where to commit, and the sums of the pieces unless one of them was cut.
    async fn send_all(&self, url: Url) -> Result<(Url, Option<Vec<Sum>>), Error> {
        let (total, tuning) = (self.layer.size, self.tuning());
        let size = (total / 16).clamp(tuning.min_part_bytes, tuning.max_part_bytes);
        let (mut url, mut offset, mut tries) = (url, 0, 0);
        let mut sums: Option<Vec<(u64, Sum)>> = Some(Vec::new());
        let mut elsewhere = FuturesUnordered::new();
        while offset < total || !elsewhere.is_empty() {
            if offset == total || elsewhere.len() >= tuning.streams {
                let stored: Option<Result<(u64, Sum), Error>> = elsewhere.next().await;
                if let (Some(stored), Some(sums)) = (stored.transpose()?, &mut sums) {
                    sums.push(stored);
                }
                continue;
            }
            let range = offset..total.min(offset + size);
            match self.patch(&url, range.clone()).await {
                Ok(Sent::Here { next, sum }) => {
                    (url, offset, tries) = (next, range.end, 0);
                    sums.iter_mut().for_each(|sums| sums.push((range.start, sum)));
                }
                Ok(Sent::Elsewhere { next, target }) => {
                    (url, offset, tries) = (next, range.end, 0);
                    elsewhere.push(self.put(target, range));
                }
                Err(error) if error.is_retryable() => {
                    tries = self.after_failure(error, tries).await?;
                    let held = self.held(&url).await?;
                    if held != offset {
                        (sums, offset) = (None, held.min(total));
                    }
                    self.sent.store(offset, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        let sums = sums.map(|mut sums| {
            sums.sort_by_key(|(start, _)| *start);
            sums.into_iter().map(|(_, sum)| sum).collect()
        });
        Ok((url, sums))
    }

    /// One piece to the registry.
    async fn patch(&self, url: &Url, range: Range<u64>) -> Result<Sent, Error> {
        let (start, end) = (range.start, range.end);
        let (response, tap) = self
            .send(Method::PATCH, url, range, |request| {
                request
                    .header(CONTENT_RANGE, format!("{start}-{}", end - 1))
                    .header("x-redirect-uploads", "1")
            })
            .await?;
        let next = location(&response, &NEXT)?;
        if response.status() != StatusCode::TEMPORARY_REDIRECT {
            return Ok(Sent::Here { next, sum: tap.sum() });
        }
        tap.take_back();
        Ok(Sent::Elsewhere { next, target: location(&response, &[LOCATION.as_str()])? })
    }

    /// One piece to where the registry keeps its bytes.
    async fn put(&self, target: Url, range: Range<u64>) -> Result<(u64, Sum), Error> {
        let mut tries = 0;
        loop {
            match self.send(Method::PUT, &target, range.clone(), |request| request).await {
                Ok((_, tap)) => return Ok((range.start, tap.sum())),
                Err(error) if error.is_retryable() => tries = self.after_failure(error, tries).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        range: Range<u64>,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<(Response, Arc<Tap>), Error> {
        let length = range.end - range.start;
        // Of the last attempt: the one before it may have been refused for want of a token.
        let tap: Mutex<Arc<Tap>> = Mutex::default();
        let request = |request: RequestBuilder| {
            let fresh = Arc::new(Tap { sent: Arc::clone(&self.sent), ..Tap::default() });
            let mut tap = tap.lock().unwrap_or_else(PoisonError::into_inner);
            tap.take_back();
            *tap = Arc::clone(&fresh);
            let section = self.home.section(&self.layer.digest, self.layer.size, range.clone());
            let body = Body::wrap_stream(section.inspect_ok(move |chunk| fresh.add(chunk)));
            let request = request.header(CONTENT_TYPE, "application/octet-stream");
            build(request.header(CONTENT_LENGTH, length).body(body))
        };
        let outcome = self.watched(&method, url, self.session.send(method.clone(), url, request)).await;
        let tap = tap.into_inner().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(response) => Ok((response, tap)),
            Err(error) => {
                tap.take_back();
                Err(error)
            }
        }
    }

    /// As long as bytes leave, or the registry takes no unreasonable time over what it has.
    async fn watched<T>(
        &self,
        method: &Method,
        url: &Url,
        sending: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut sending = std::pin::pin!(sending);
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            let limit = if before >= self.layer.size { self.tuning().commit } else { self.tuning().stall };
            match timeout(limit, &mut sending).await {
                Ok(outcome) => return outcome,
                Err(_) if self.sent.load(Ordering::Relaxed) == before => {
                    return Err(stalled(method, url, limit));
                }
                Err(_) => {}
            }
        }
    }

    /// How much of the upload the registry has.
    async fn held(&self, url: &Url) -> Result<u64, Error> {
        let response = self.session.ask(Method::GET, url, |request| request).await?;
        let header = response.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let last = header.and_then(|text| text.trim_start_matches("bytes=").strip_prefix("0-"));
        let last: Option<u64> = last.and_then(|last| last.parse().ok());
        let last = last.ok_or(Error::Lacking { what: "the registry's upload", missing: "Range" })?;
        // Nothing at all is told as `0-0`.
        Ok(if last == 0 { 0 } else { last.saturating_add(1) })
    }

    /// Verified by the registry, which knows the blob by its digest from now on.
    async fn commit(&self, mut url: Url, sums: Option<Vec<Sum>>) -> Result<(), Error> {
        url.query_pairs_mut().append_pair("digest", &self.layer.digest.to_string());
        if let Some(sums) = sums {
            let sum = hex::encode(Md5::digest(sums.concat()));
            url.query_pairs_mut().append_pair("etag", &format!("{sum}-{}", sums.len()));
        }
        let mut tries = 0;
        loop {
            let limit = self.tuning().commit;
            let put = self.session.send(Method::PUT, &url, |request| request.header(CONTENT_LENGTH, 0));
            match timeout(limit, put).await.unwrap_or_else(|_| Err(stalled(&Method::PUT, &url, limit))) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => tries = self.after_failure(error, tries).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits before the next try, if there is one.
    async fn after_failure(&self, error: Error, tries: u32) -> Result<u32, Error> {
        let tries = tries + 1;
        tracing::debug!(digest = %self.layer.digest, tries, %error, "upload is tried again");
        if tries >= self.tuning().tries {
            return Err(Error::Exhausted(Box::new(error)));
        }
        tokio::time::sleep(self.tuning().pause(tries)).await;
        Ok(tries)
    }

    fn tuning(&self) -> &Tuning {
        &self.session.config.tuning
    }
}

/// Counts and sums the bytes of one attempt.
#[derive(Default)]
struct Tap {
    sent: Arc<AtomicU64>,
    own: AtomicU64,
    sum: Mutex<Md5>,
}

impl Tap {
    fn add(&self, bytes: &[u8]) {
        let count = bytes.len() as u64;
        self.sum.lock().unwrap_or_else(PoisonError::into_inner).update(bytes);
        self.own.fetch_add(count, Ordering::Relaxed);
        self.sent.fetch_add(count, Ordering::Relaxed);
    }

    /// The attempt has failed: its bytes were not sent.
    fn take_back(&self) {
        self.sent.fetch_sub(self.own.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn sum(&self) -> Sum {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize().into()
    }
}

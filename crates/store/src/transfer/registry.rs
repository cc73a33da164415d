//! Blobs of a registry as downloads read them: one request for each part, and the answer looked at before a byte of it is
//! read.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::Error;
use super::download::{Answer, Source};
use super::parts::Part;
use super::session::{Session, broken, plain};
use crate::Digest;

/// One repository.
pub(super) struct Registry(pub(super) Arc<Session>);

impl Source for Registry {
    fn open<'a>(
        &'a self,
        digest: &'a Digest,
        total: u64,
        part: &'a Part,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        async move {
            let url = self.0.origin.url(&format!("blobs/{digest}"))?;
            let asked = format!("{}-{}", part.next(), part.end() - 1);
            let range = format!("bytes={asked}").parse().expect("two numbers and a dash are a header");
            let response = self.0.get(url.clone(), &HeaderMap::from_iter([(RANGE, range)])).await?;
            check(&response, digest, total, (part, &asked))?;
            let is_whole = response.status() != StatusCode::PARTIAL_CONTENT;
            let chunks = response.bytes_stream().map_err(move |error| broken(&Method::GET, &url, &error));
            Ok(Answer { is_whole, chunks: chunks.boxed() })
        }
        .boxed()
    }

    fn url(&self, digest: &Digest) -> String {
        let url = self.0.origin.url(&format!("blobs/{digest}"));
        url.map_or_else(|_| digest.to_string(), |url| plain(&url))
    }
}

/// Whether the answer is what was asked for.
fn check(
    response: &Response,
    digest: &Digest,
    total: u64,
    (part, asked): (&Part, &str),
) -> Result<(), Error> {
    let digest = || digest.to_string();
    let lies = |got| Error::Size { digest: digest(), expected: total, got };
    if response.status() != StatusCode::PARTIAL_CONTENT {
        if part.size != total {
            return Err(Error::NoRanges { digest: digest() });
        }
        return match response.content_length() {
            Some(length) if length != total => Err(lies(length)),
            _ => Ok(()),
        };
    }
    let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let got = header.and_then(|text| text.strip_prefix("bytes ")).unwrap_or_default();
    let (range, length) = got.split_once('/').unwrap_or((got, "*"));
    match length.parse() {
        Ok(length) if length != total => Err(lies(length)),
        _ if range != asked => {
            Err(Error::Range { digest: digest(), asked: asked.to_owned(), got: got.to_owned() })
        }
        _ => Ok(()),
    }
}

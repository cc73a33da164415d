//! `POST` and `HEAD /api/blobs/:digest`: the bytes of models, streamed to the store as they come.

use std::sync::Arc;
use std::time::Duration;

use api::{Error, Result};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use store::Digest;
use tokio::time::timeout;

use crate::app::App;
use crate::intake::{self, Intake};
use crate::respond::{self, Native};

/// How long a body is read that nobody needs: a gigabyte comes in that time from the same network, and what comes over a
/// slow line should not be sent to its end for nothing.
const LONGEST_DISCARD: Duration = Duration::from_secs(30);

pub async fn exists(
    State(app): State<Arc<App>>,
    digest: Result<Path<String>, PathRejection>,
) -> Result<Response, Native> {
    let digest = Digest::parse(&super::text(digest))?;
    if !app.store.has_blob(&digest).await {
        return Err(Error::not_found(format!("blob {digest} not found")).into());
    }
    Ok(respond::empty())
}

/// A body of any length. Whatever goes wrong, a client that leaves included, the half of a blob is not kept.
pub async fn upload(
    State(app): State<Arc<App>>,
    digest: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Native> {
    let digest = Digest::parse(&super::text(digest))?;
    if app.store.has_blob(&digest).await {
        discard(&headers, body).await;
        return Ok(respond::empty());
    }
    let mut upload = app.store.upload(digest).await?;
    let mut intake = Intake::new(body, intake::BLOB);
    while let Some(bytes) = intake.next().await? {
        upload.write(bytes).await?;
    }
    let is_new = upload.commit().await?;
    Ok(if is_new { StatusCode::CREATED.into_response() } else { respond::empty() })
}

/// Lets a client that writes before it reads write to its end. One that asks before it sends, as curl does, is spared that.
async fn discard(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(header::EXPECT) {
        let _ = timeout(LONGEST_DISCARD, Intake::new(body, intake::BLOB).discard(usize::MAX)).await;
    }
}

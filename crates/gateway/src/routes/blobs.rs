//! `POST` and `HEAD /api/blobs/:digest`: the bytes of models, streamed to the store as they come.

use std::sync::Arc;

use api::{Error, Result};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use store::Digest;

use crate::app::App;
use crate::intake::{self, Intake};
use crate::respond::{self, Native};

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
    body: Body,
) -> Result<Response, Native> {
    let digest = Digest::parse(&super::text(digest))?;
    if app.store.has_blob(&digest).await {
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

//! `POST /api/save` and `/api/load`: models as one file, for machines without a network. Ollama has no such routes.
//!
//! A file goes to the server whole, not blob by blob through a create: only so does the manifest stay as it was, byte
//! for byte, and with it the digest of the model.

use std::sync::Arc;

use api::ollama::SaveRequest;
use api::{Error, Result, gojson};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, header};
use store::bundle::Reader;
use store::transfer::Tell;

use crate::app::App;
use crate::intake::{BLOB, Intake};
use crate::progress;
use crate::resolve;
use crate::respond::Native;

const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");

pub async fn save(State(app): State<Arc<App>>, request: Request) -> Result<Response, Native> {
    let SaveRequest { models } = app.read(request, gojson::MISSING_BODY).await?;
    if models.is_empty() {
        return Err(Error::invalid("`models` must name one model or more").into());
    }
    let names = models.iter().map(|model| resolve::name(model.trim())).collect::<Result<_>>()?;
    let bundle = app.store.bundle(names).await?;
    let length = HeaderValue::from(bundle.bytes);
    let mut response = Response::new(Body::from_stream(bundle.into_stream()));
    response.headers_mut().insert(header::CONTENT_TYPE, TAR);
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    Ok(response)
}

pub async fn load(State(app): State<Arc<App>>, body: Body) -> Result<Response, Native> {
    let work = |lines| async move {
        let tell = Tell::new(lines);
        let loaded =
            Arc::new(Reader::new(Intake::new(body, BLOB).into_stream()).load(&app.store, &tell).await?);
        for name in loaded.names() {
            tell.status("writing manifest").await?;
            app.write_model(&name, app.store.settle(Arc::clone(&loaded), name.clone())).await?;
        }
        Ok(())
    };
    Ok(progress::respond(true, work).await?)
}

//! `/` and `/api/version`: what clients ask to see whether anybody is there.

use api::ollama::OLLAMA_VERSION;
use axum::response::Response;
use serde_json::json;

use crate::respond;

pub async fn running() -> &'static str {
    "Ollama is running"
}

pub async fn version() -> Response {
    respond::native(&json!({ "version": OLLAMA_VERSION }))
}

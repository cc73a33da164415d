//! What Ollama asks ollama.com for: accounts, searches, recommended models. There is no cloud behind this server, and
//! these routes say so in the words of an Ollama whose cloud is switched off (reference: api.md section 9).

use api::{Error, Result};
use axum::response::Response;
use serde_json::json;

use crate::respond::{self, Native};

/// `GET /api/status`. It is not an environment variable that switches the cloud off here.
pub async fn status() -> Response {
    respond::native(&json!({ "cloud": { "disabled": true, "source": "config" } }))
}

/// `POST /api/me`. Ollama adds the address to sign in at; signing in there would change nothing here.
pub async fn me() -> Result<Response, Native> {
    Err(Error::unauthorized("unauthorized").into())
}

/// `POST /api/signout`, and `DELETE /api/user/keys/:key`, which is its old name.
pub async fn sign_out() -> Result<Response, Native> {
    Err(Error::unauthorized("you are not currently signed in").into())
}

pub async fn web_search() -> Result<Response, Native> {
    Err(Error::forbidden("ollama cloud is disabled: web search is unavailable").into())
}

pub async fn web_fetch() -> Result<Response, Native> {
    Err(Error::forbidden("ollama cloud is disabled: web fetch is unavailable").into())
}

/// Which models are worth pulling is for the operator to say.
pub async fn recommendations() -> Response {
    respond::native(&json!({ "recommendations": [] }))
}

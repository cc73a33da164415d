//! The handlers, one module per noun. Each reads a request, asks the parts that know, and shapes the answer;
//! none writes a status number.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;

pub mod anthropic;
pub mod audio;
pub mod blobs;
pub mod bundle;
pub mod chat;
pub mod cloud;
pub mod create;
pub mod embed;
pub mod generate;
pub mod manage;
pub mod openai;
pub mod rerank;
pub mod status;
pub mod transfer;

/// What stands in a path. Bytes that are no text become the sign for that, which is in no name and no digest.
fn text(parameter: Result<Path<String>, PathRejection>) -> String {
    parameter.map_or_else(|_| "\u{fffd}".to_owned(), |Path(text)| text)
}

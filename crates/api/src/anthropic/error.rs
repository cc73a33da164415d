//! The envelope of Anthropic's errors.

use serde::Serialize;

use crate::error::Error;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// Always `error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub error: ErrorDetail,
    pub request_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorDetail {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub message: String,
}

impl ErrorBody {
    /// `request_id` is `req_<24 hexadecimal digits>`.
    pub fn new(error: &Error, request_id: String) -> ErrorBody {
        let kind = match error.code.http_status() {
            400 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            _ => "api_error",
        };
        ErrorBody { kind: "error", error: ErrorDetail { kind, message: error.message.clone() }, request_id }
    }
}

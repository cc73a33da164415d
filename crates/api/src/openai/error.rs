//! The envelope of OpenAI's errors.

use serde::Serialize;

use crate::error::{Code, Error};

#[derive(Clone, Debug, Serialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Clone, Debug, Serialize)]
pub struct ErrorDetail {
    pub message: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Always `null`, as in Ollama.
    pub param: Option<String>,
    pub code: Option<String>,
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> ErrorBody {
        let kind = match error.code.http_status() {
            400 => "invalid_request_error",
            401 => "authentication_error",
            404 => "not_found_error",
            _ => "api_error",
        };
        // Ollama has no keys and so no such error; this is what OpenAI says.
        let code = (error.code == Code::Unauthorized).then(|| "invalid_api_key".to_owned());
        ErrorBody { error: ErrorDetail { message: error.message.clone(), kind, param: None, code } }
    }
}

//! `POST /v1/audio/transcriptions`: the form is checked in Ollama's order, and then refused, for no architecture that
//! is run here listens.

use std::sync::Arc;

use api::{Code, Error, Result};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, header};
use multer::{Constraints, Multipart, SizeLimit};

use crate::app::App;
use crate::intake::{BLOB, Intake};
use crate::resolve::{self, Wording};
use crate::respond::OpenAi;

/// The longest name that a model can have is far shorter.
const MAX_NAME_BYTES: u64 = 64 << 10;

/// What of a form is looked at.
#[derive(Debug, Default)]
struct Form {
    model: String,
    /// How long the file is; `None` when there is none.
    file_bytes: Option<usize>,
}

pub async fn transcriptions(State(app): State<Arc<App>>, request: Request) -> Result<Response, OpenAi> {
    let (parts, body) = request.into_parts();
    let form = read(&parts.headers, body, app.config.max_body_bytes).await?;
    if form.model.is_empty() {
        return Err(Error::invalid("model is required").into());
    }
    match form.file_bytes {
        None => return Err(Error::invalid("file is required: http: no such file").into()),
        Some(0) => return Err(Error::invalid("audio file is empty").into()),
        Some(_) => {}
    }
    let model = resolve::model(&app, &form.model, Wording::Usual).await?;
    Err(Error::invalid(format!("{} does not support audio", model.name.full())).into())
}

/// Reads a form to its end, keeping no more of it than is asked for.
async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Form> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind).map_err(|error| unreadable(error, limit))?;
    let bounds = SizeLimit::new().whole_stream(limit as u64).for_field("model", MAX_NAME_BYTES);
    let constraints = Constraints::new().size_limit(bounds);
    let mut parts = Multipart::with_constraints(Intake::new(body, BLOB).into_stream(), boundary, constraints);
    let mut form = Form::default();
    while let Some(mut part) = parts.next_field().await.map_err(|error| unreadable(error, limit))? {
        match part.name() {
            Some("model") if form.model.is_empty() && part.file_name().is_none() => {
                form.model = part.text().await.map_err(|error| unreadable(error, limit))?;
            }
            // A file without a name is text to Go's forms.
            Some("file") if form.file_bytes.is_none() && part.file_name().is_some() => {
                let mut length = 0;
                while let Some(chunk) = part.chunk().await.map_err(|error| unreadable(error, limit))? {
                    length += chunk.len();
                }
                form.file_bytes = Some(length);
            }
            _ => {}
        }
    }
    Ok(form)
}

/// In the words of Go's parser, where it has some.
fn unreadable(error: multer::Error, limit: usize) -> Error {
    let reason = match error {
        multer::Error::StreamSizeExceeded { .. } => {
            let text = format!("request body must be at most {limit} bytes, got more");
            return Error::new(Code::TooLarge, text);
        }
        multer::Error::StreamReadFailed(source) if source.is::<Error>() => {
            return source
                .downcast()
                .map_or_else(|source| Error::invalid(source.to_string()), |error| *error);
        }
        multer::Error::NoMultipart | multer::Error::DecodeContentType(_) => {
            "request Content-Type isn't multipart/form-data".to_owned()
        }
        multer::Error::NoBoundary => "no multipart boundary param in Content-Type".to_owned(),
        multer::Error::IncompleteStream
        | multer::Error::IncompleteHeaders
        | multer::Error::IncompleteFieldData { .. } => "multipart: NextPart: EOF".to_owned(),
        other => other.to_string(),
    };
    Error::invalid(format!("failed to parse multipart form: {reason}"))
}

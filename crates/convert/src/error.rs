//! What can be wrong with a model that is to be converted. Each text names the file and the key or the tensor.

use std::io;

use api::Code;
use engine::quantize::QuantizeError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("quantization is only supported for F16, BF16 and F32 models")]
    Quantized,
    #[error("no files provided to convert")]
    NoFiles,
    #[error("unsupported architecture {0:?}")]
    Architecture(String),
    #[error("unknown architecture")]
    NoArchitecture,
    #[error("file `{0}` is missing, a checkpoint needs it")]
    MissingFile(&'static str),
    #[error("a checkpoint needs tokenizer.json or tokenizer.model, neither is there")]
    NoTokenizer,
    /// Anything that a file says wrongly.
    #[error("{file}: {problem}")]
    File { file: String, problem: String },
    #[error("tensor `{tensor}` {problem}")]
    Tensor { tensor: String, problem: String },
    #[error("tensor `{tensor}` {source}")]
    Quantize { tensor: String, source: QuantizeError },
    #[error("{file}: {source}")]
    Gguf { file: String, source: gguf::Error },
    #[error("write the model: {0}")]
    Write(gguf::Error),
    #[error("read `{file}`: {source}")]
    Read { file: String, source: io::Error },
    #[error("the conversion was given up")]
    Canceled,
}

impl Error {
    pub(crate) fn file(file: &str, problem: impl Into<String>) -> Error {
        Error::File { file: file.to_owned(), problem: problem.into() }
    }

    pub(crate) fn tensor(tensor: &str, problem: impl Into<String>) -> Error {
        Error::Tensor { tensor: tensor.to_owned(), problem: problem.into() }
    }

    pub fn code(&self) -> Code {
        match self {
            Error::Read { .. } | Error::Write(gguf::Error::Write(_)) => Code::Internal,
            Error::Canceled => Code::Canceled,
            _ => Code::Invalid,
        }
    }
}

impl From<gguf::Error> for Error {
    fn from(error: gguf::Error) -> Error {
        Error::Write(error)
    }
}

impl From<Error> for api::Error {
    fn from(error: Error) -> api::Error {
        let text = match &error {
            // Its own text does not say what the disk said.
            Error::Write(gguf::Error::Write(source)) => format!("write the model: {source}"),
            _ => error.to_string(),
        };
        api::Error::new(error.code(), text)
    }
}

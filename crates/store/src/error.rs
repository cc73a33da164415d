//! What can go wrong in the store, with Ollama's text where Ollama has one.

use std::io;
use std::path::{Path, PathBuf};

use api::Code;

use crate::golang::quote;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid model name")]
    Name,
    /// What `DELETE /api/delete` says about a bad name.
    #[error("name {} is invalid", quote(.0))]
    NameIn(String),
    /// What `POST /api/copy` says about a bad name.
    #[error("source {} is invalid", quote(.0))]
    Source(String),
    #[error("destination {} is invalid", quote(.0))]
    Destination(String),
    #[error("model '{0}' not found")]
    NotFound(String),
    /// `POST /api/copy` has a text of its own.
    #[error("model {} not found", quote(.0))]
    SourceNotFound(String),
    /// The manifest is there, a blob that it names is not.
    #[error("model {} not found, try pulling it first", quote(name))]
    Incomplete { name: String, digest: String },
    #[error("invalid digest format")]
    Digest,
    #[error("digest mismatch, expected {expected:?}, got {actual:?}")]
    Mismatch { expected: String, actual: String },
    #[error("neither 'from' or 'files' was specified")]
    NoSource,
    #[error("no files provided to convert")]
    NoFiles,
    #[error("file path must be relative")]
    FilePath,
    #[error("only one adapter is currently supported")]
    Adapters,
    #[error(
        "file `adapter_config.json`: an adapter goes into `adapters` (ADAPTER in a Modelfile), beside the model that it changes"
    )]
    AdapterAlone,
    #[error("--draft-quantize requires a DRAFT model")]
    NoDraft,
    #[error("supplied file was not in GGUF format")]
    NotGguf,
    #[error("unknown type")]
    UnknownType,
    #[error("file `{file}`: blob {digest} not found, upload it first")]
    BlobNotFound { file: String, digest: String },
    #[error("file `{file}`: {source}")]
    Gguf { file: String, source: gguf::Error },
    #[error("unsupported architecture {}", quote(.0))]
    Architecture(String),
    #[error(
        "file `{0}`: PyTorch's own format can hold programs and is not read, save the model as safetensors"
    )]
    Pickle(String),
    #[error("{0} is not supported yet")]
    Unsupported(String),
    #[error(
        "unsupported quantization type {0} - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0, BF16, Q4_0, Q5_K_M, Q6_K"
    )]
    Quantization(String),
    #[error("quantization is only supported for F16, BF16 and F32 models")]
    Quantized,
    /// Who asks for a create has asked for the conversion before.
    #[error("the files must be converted first, which only a worker does")]
    Unconverted,
    /// A worker on a machine with another models folder.
    #[error(
        "the converted model {digest} is not in this store; workers must share the gateway's models folder"
    )]
    Unmade { digest: String },
    #[error("`info.{key}` must be {expected}, got {got}")]
    Info { key: String, expected: String, got: String },
    #[error("template error: {0}")]
    Template(template::Error),
    #[error("unknown renderer {}", quote(.0))]
    Renderer(String),
    #[error(
        "renderer {} stands for the chat template in the model's file, which has none; create the model anew without \
         RENDERER and with a TEMPLATE",
        quote(.0)
    )]
    RendererWithout(String),
    #[error(
        "parser {} reads answers of an architecture that is not run here; create the model anew without PARSER",
        quote(.0)
    )]
    Parser(String),
    /// Worded by the table of options.
    #[error("{0}")]
    Parameters(api::Error),
    #[error("`{field}` must be at most {limit} {unit}, got {got}")]
    TooLong { field: &'static str, unit: &'static str, limit: u64, got: u64 },
    #[error("{what} `{}` must be at most {limit} bytes, got {got}", path.display())]
    Oversized { what: &'static str, path: PathBuf, limit: u64, got: u64 },
    #[error("request canceled")]
    Canceled,
    /// A bucket that cannot be reached, or says no. Never with credentials.
    #[error("{action} {url}: {reason}")]
    Bucket { action: &'static str, url: String, reason: String },
    #[error("{digest} is not in {place}")]
    Absent { digest: String, place: String },
    #[error(
        "{digest} needs {bytes} bytes of the cache, which may have {bound} (`--cache-bytes`, `CARAVAN_CACHE_BYTES`) and has {used} in use; allow more, or unload a model"
    )]
    NoRoom { digest: String, bytes: u64, bound: u64, used: u64 },
    #[error("{what} `{}`: {source}", path.display())]
    Json { what: &'static str, path: PathBuf, source: serde_json::Error },
    #[error("{action} `{}`: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Transfer(#[from] crate::transfer::Error),
    /// What `POST /api/pull` says in front of what went wrong; clients look for it.
    #[error("pull model manifest: {0}")]
    PullManifest(crate::transfer::Error),
    #[error(transparent)]
    Bundle(#[from] crate::bundle::Error),
    /// Of a download that others wait for, too.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// A blocking task of ours panicked or the runtime is going down.
    #[error("store task ended early")]
    Task,
}

impl Error {
    /// For `map_err`: verb and object, and where.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    pub fn code(&self) -> Code {
        match self {
            Error::Name
            | Error::NameIn(_)
            | Error::Source(_)
            | Error::Destination(_)
            | Error::Digest
            | Error::Mismatch { .. }
            | Error::NoSource
            | Error::NoFiles
            | Error::FilePath
            | Error::Adapters
            | Error::AdapterAlone
            | Error::NoDraft
            | Error::NotGguf
            | Error::UnknownType
            | Error::BlobNotFound { .. }
            | Error::Gguf { .. }
            | Error::Architecture(_)
            | Error::Unsupported(_)
            | Error::Quantization(_)
            | Error::Quantized
            | Error::Pickle(_)
            | Error::Info { .. }
            | Error::Template(_)
            | Error::Renderer(_)
            | Error::RendererWithout(_)
            | Error::Parser(_)
            | Error::Parameters(_)
            | Error::Bundle(_)
            | Error::TooLong { .. } => Code::Invalid,
            Error::NotFound(_)
            | Error::SourceNotFound(_)
            | Error::Incomplete { .. }
            | Error::Absent { .. } => Code::NotFound,
            Error::Canceled => Code::Canceled,
            Error::Json { .. }
            | Error::Io { .. }
            | Error::Oversized { .. }
            | Error::NoRoom { .. }
            | Error::Task
            | Error::Unconverted
            | Error::Unmade { .. } => Code::Internal,
            Error::Transfer(_) | Error::PullManifest(_) | Error::Bucket { .. } => Code::Remote,
            Error::Shared(error) => error.code(),
        }
    }
}

impl From<Error> for api::Error {
    fn from(error: Error) -> api::Error {
        api::Error::new(error.code(), error.to_string())
    }
}

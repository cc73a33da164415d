//! Why a template was refused or could not be rendered.

/// The text starts with the line, so that `template error: ` can be put before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line}: {text}")]
    Syntax { line: usize, text: String },
    #[error("line {line}: {text}")]
    Execution { line: usize, text: String },
    /// The template, or what it makes of these values, is larger than it may be.
    #[error("line {line}: more than {bound} {unit}")]
    Limit { line: usize, unit: &'static str, bound: usize },
}

// === impl Error ===

impl Error {
    /// The line of the template, from 1.
    pub fn line(&self) -> usize {
        match self {
            Error::Syntax { line, .. } | Error::Execution { line, .. } | Error::Limit { line, .. } => *line,
        }
    }
}

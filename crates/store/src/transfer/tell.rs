//! Progress, to whoever reads it; and whether anybody does.

use api::ollama::Progress;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::{Digest, Error, Result};

/// The sending end of the progress of one pull or push.
#[derive(Clone, Debug)]
pub struct Tell {
    lines: mpsc::Sender<Progress>,
}

/// How far one blob is, in lines.
pub(crate) struct Bar {
    status: String,
    digest: String,
    total: u64,
}

// === impl Tell ===

impl Tell {
    pub fn new(lines: mpsc::Sender<Progress>) -> Tell {
        Tell { lines }
    }

    /// A line that must arrive.
    ///
    /// # Errors
    /// [`Error::Canceled`] when nobody listens any more.
    pub(crate) async fn say(&self, line: Progress) -> Result<()> {
        self.lines.send(line).await.map_err(|_| Error::Canceled)
    }

    pub async fn status(&self, text: &str) -> Result<()> {
        self.say(Progress::status(text)).await
    }

    /// A line that the next one of its kind makes old: left out when the reader is behind.
    pub(crate) fn tick(&self, line: Progress) -> Result<()> {
        match self.lines.try_send(line) {
            Err(TrySendError::Closed(_)) => Err(Error::Canceled),
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
        }
    }
}

// === impl Bar ===

impl Bar {
    pub(crate) fn new(verb: &str, digest: &Digest, total: u64) -> Bar {
        Bar { status: format!("{verb} {}", &digest.hex()[..12]), digest: digest.to_string(), total }
    }

    pub(crate) fn at(&self, completed: u64) -> Progress {
        Progress {
            status: self.status.clone(),
            digest: self.digest.clone(),
            total: self.total,
            completed: completed.min(self.total),
        }
    }
}

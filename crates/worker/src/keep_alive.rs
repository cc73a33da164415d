//! How long an idle replica stays loaded.

use std::time::Duration;

/// Parsed at the border: on the wire it is a number of nanoseconds, negative for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// Zero = it goes as soon as it is idle.
    For(Duration),
    Forever,
}

impl KeepAlive {
    pub fn from_ns(ns: i64) -> KeepAlive {
        u64::try_from(ns).map_or(KeepAlive::Forever, |ns| KeepAlive::For(Duration::from_nanos(ns)))
    }
}

impl Default for KeepAlive {
    /// Ollama's.
    fn default() -> KeepAlive {
        KeepAlive::For(Duration::from_secs(5 * 60))
    }
}

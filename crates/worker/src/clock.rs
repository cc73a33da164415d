//! Moments of the runtime's clock, which tests can pause, as moments of the calendar.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Read once at the start, so that a wall clock that jumps moves no timer and no answer.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The same moment, since 1970.
    unix: Duration,
}

impl Clock {
    pub fn start() -> Clock {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start: Instant::now(), unix }
    }

    /// Nanoseconds since 1970.
    pub fn unix_ns(&self, at: Instant) -> i64 {
        let at = match at.checked_duration_since(self.start) {
            Some(after) => self.unix.saturating_add(after),
            None => self.unix.saturating_sub(self.start.duration_since(at)),
        };
        i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
    }
}

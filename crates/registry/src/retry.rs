//! How to try again: with growing, jittered pauses, and not for ever.

use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use crate::error::{Error, Result};

/// A lost compare-and-set means that somebody else made progress, so it cannot go on for ever by itself. The bound is
/// against a store that refuses for a reason that does not pass.
const CONTENDED_ATTEMPTS: u32 = 100;

/// Pauses that double from `least` to `most`, each cut at random to between half and all of it.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

/// The bounded loop of a compare-and-set on one key.
pub(crate) struct Retry {
    key: String,
    attempts: u32,
    backoff: Backoff,
}

// === impl Backoff ===

impl Backoff {
    pub fn new(least: Duration, most: Duration) -> Backoff {
        Backoff { least, most, next: least }
    }

    pub fn reset(&mut self) {
        self.next = self.least;
    }

    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.most);
        pause
    }
}

// === impl Retry ===

impl Retry {
    pub fn contended(key: &str) -> Retry {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        Retry { key: key.to_owned(), attempts: 1, backoff }
    }

    pub async fn wait(&mut self) -> Result<()> {
        if self.attempts >= CONTENDED_ATTEMPTS {
            return Err(Error::Contended { key: self.key.clone(), attempts: self.attempts });
        }
        self.attempts += 1;
        sleep(self.backoff.pause()).await;
        Ok(())
    }
}

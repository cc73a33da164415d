//! The only clock of the scripted engine.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Time as the scripted engine sees it.
pub trait Pace: Send {
    /// Since some moment that stays the same.
    fn now(&self) -> Duration;

    /// Blocks the runner's thread; a moment that has passed does not.
    fn sleep_until(&mut self, at: Duration);
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemPace(Instant);

impl Default for SystemPace {
    fn default() -> SystemPace {
        SystemPace(Instant::now())
    }
}

impl Pace for SystemPace {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep_until(&mut self, at: Duration) {
        thread::sleep(at.saturating_sub(self.now()));
    }
}

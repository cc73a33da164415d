//! What a connection is doing, as far as its bounds care. Pure but for the clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Version;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Shared by what reads the connection, its requests and the server.
pub struct Activity {
    state: Mutex<State>,
    leave: Notify,
    /// Told when no request runs any more.
    idle: Arc<Notify>,
}

struct State {
    /// Requests whose head is whole and whose answer is not.
    running: usize,
    /// When the head began that is being read.
    head_since: Option<Instant>,
    idle_since: Instant,
    /// HTTP/2 has frames of its own, which keep a connection alive: their bytes are no head.
    is_framed: bool,
    is_leaving: bool,
}

/// A request that is being answered.
pub struct Running(Arc<Activity>);

// === impl Activity ===

impl Activity {
    /// A connection that begins now, and is expected to say something.
    pub fn new(idle: Arc<Notify>) -> Activity {
        let now = Instant::now();
        let state =
            State { running: 0, head_since: Some(now), idle_since: now, is_framed: false, is_leaving: false };
        Activity { state: Mutex::new(state), leave: Notify::new(), idle }
    }

    /// So many bytes came. While a request runs they are its body.
    pub fn read(&self, bytes: usize) {
        let mut state = self.lock();
        if bytes > 0 && state.running == 0 && !state.is_framed {
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// A head is whole.
    pub fn begin(self: &Arc<Activity>, version: Version) -> Running {
        let mut state = self.lock();
        state.running += 1;
        state.head_since = None;
        state.is_framed = version == Version::HTTP_2;
        Running(self.clone())
    }

    /// When the head that is being read must be whole, if one is; else the first time at which any could be late.
    pub fn due(&self, head: Duration) -> Instant {
        self.lock().head_since.unwrap_or_else(Instant::now) + head
    }

    /// Since when no request runs.
    pub fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.running == 0).then_some(state.idle_since)
    }

    /// Whether it was asked to.
    pub fn is_leaving(&self) -> bool {
        self.lock().is_leaving
    }

    pub fn ask_to_leave(&self) {
        self.lock().is_leaving = true;
        self.leave.notify_one();
    }

    pub async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// No lock is held while anything could panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        if state.running == 0 {
            state.idle_since = Instant::now();
            self.0.idle.notify_one();
        }
    }
}

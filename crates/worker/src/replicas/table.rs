//! The replicas of a worker and when they go: pure, time comes in with every call.
//!
//! Keep-alive is Ollama's: the default counts at load, a request that brings its own replaces it, and the time runs
//! from the moment when the last answer has ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::v1::Model;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Loaded, Progress};
use crate::keep_alive::KeepAlive;

/// How long a replica waits for the request that it was loaded for. Without it a keep-alive of zero would end it
/// before that request is there.
pub const FIRST_USE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Table {
    /// By replica key.
    replicas: BTreeMap<String, Replica>,
    next_id: u64,
    pub draining: bool,
}

/// One life of a replica, from the first wish to the freed memory.
#[derive(Debug)]
pub struct Replica {
    /// Tells this life from an earlier one of the same key.
    pub id: u64,
    pub model: Model,
    pub state: State,
    /// What it will take, while that is not in the machine's numbers yet.
    pub reserved_bytes: u64,
    pub progress: watch::Sender<Progress>,
    /// Told to the task that tends it: end it now.
    pub stop: CancellationToken,
    pub keep_alive: KeepAlive,
    pub last_used: Instant,
    /// Callers that wait for the load.
    waiters: usize,
    /// Requests whose answers have not ended.
    in_use: usize,
    /// It must not go before.
    not_before: Option<Instant>,
}

#[derive(Clone, Debug)]
pub enum State {
    Loading,
    Ready(Arc<Loaded>),
    /// Ends with its last answer, and takes no new ones.
    Unloading(Option<Arc<Loaded>>),
}

/// What a wish for a replica finds.
#[derive(Debug)]
pub enum Found {
    Ready(u64),
    /// Its context is smaller than what is wished.
    TooSmall(u64),
    Loading(u64),
    /// An earlier life has not ended.
    Unloading,
    Nothing,
}

// === impl Table ===

impl Table {
    /// What is there for a request that wants so many positions.
    pub fn find(&self, key: &str, context: usize) -> Found {
        let Some(replica) = self.replicas.get(key) else { return Found::Nothing };
        match &replica.state {
            State::Loading => Found::Loading(replica.id),
            State::Ready(loaded) => {
                let info = loaded.runner.info();
                let fits = context.min(info.train_context_length) <= info.context_length;
                if fits { Found::Ready(replica.id) } else { Found::TooSmall(replica.id) }
            }
            State::Unloading(_) => Found::Unloading,
        }
    }

    /// Begins a life. There must be no other of that key.
    pub fn insert(&mut self, model: Model, keep_alive: KeepAlive, now: Instant) -> u64 {
        self.next_id += 1;
        let replica = Replica {
            id: self.next_id,
            state: State::Loading,
            reserved_bytes: 0,
            progress: watch::Sender::new(Progress::default()),
            stop: CancellationToken::new(),
            keep_alive,
            last_used: now,
            waiters: 0,
            in_use: 0,
            not_before: None,
            model,
        };
        self.replicas.insert(replica.model.replica_key.clone(), replica);
        self.next_id
    }

    pub fn get(&self, key: &str, id: u64) -> Option<&Replica> {
        self.replicas.get(key).filter(|replica| replica.id == id)
    }

    pub fn get_mut(&mut self, key: &str, id: u64) -> Option<&mut Replica> {
        self.replicas.get_mut(key).filter(|replica| replica.id == id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.values()
    }

    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    pub fn remove(&mut self, key: &str, id: u64) {
        if self.get(key, id).is_some() {
            self.replicas.remove(key);
        }
    }

    /// Memory that other replicas have been promised and the machine's numbers do not show: all of a load, and of what
    /// is loaded the part that it has not taken yet.
    pub fn reserved_by_others(&self, id: u64) -> u64 {
        let others = self.replicas.values().filter(|replica| replica.id != id);
        let untaken = |replica: &Replica| replica.loaded().map_or(0, |loaded| loaded.runner.untaken_bytes());
        others.map(|replica| replica.reserved_bytes + untaken(replica)).sum()
    }

    /// The load is done. A replica that was told to stop meanwhile does not become ready.
    pub fn make_ready(&mut self, key: &str, id: u64, loaded: Arc<Loaded>, now: Instant) -> bool {
        let Some(replica) = self.get_mut(key, id) else { return false };
        if !matches!(replica.state, State::Loading) || replica.stop.is_cancelled() {
            return false;
        }
        replica.state = State::Ready(loaded);
        replica.reserved_bytes = 0;
        replica.last_used = now;
        replica.not_before = Some(now + FIRST_USE);
        true
    }

    /// A request begins. `None` when there is no replica that takes it.
    pub fn enter(
        &mut self,
        key: &str,
        keep_alive: Option<KeepAlive>,
        now: Instant,
    ) -> Option<(u64, Arc<Loaded>)> {
        let replica = self.replicas.get_mut(key)?;
        let State::Ready(loaded) = &replica.state else { return None };
        replica.in_use += 1;
        replica.not_before = None;
        replica.last_used = now;
        replica.keep_alive = keep_alive.unwrap_or(replica.keep_alive);
        Some((replica.id, loaded.clone()))
    }

    /// Its answer has ended.
    pub fn leave(&mut self, key: &str, id: u64, now: Instant) {
        if let Some(replica) = self.get_mut(key, id) {
            replica.in_use -= 1;
            replica.last_used = now;
        }
    }

    /// A caller waits for the load, and perhaps says how long the model is to stay.
    pub fn wait(
        &mut self,
        key: &str,
        id: u64,
        keep_alive: Option<KeepAlive>,
    ) -> Option<watch::Receiver<Progress>> {
        let replica = self.get_mut(key, id)?;
        replica.waiters += 1;
        replica.keep_alive = keep_alive.unwrap_or(replica.keep_alive);
        Some(replica.progress.subscribe())
    }

    /// A caller waits no longer. A load that nobody waits for is given up.
    pub fn stop_waiting(&mut self, key: &str, id: u64) {
        let Some(replica) = self.get_mut(key, id) else { return };
        replica.waiters -= 1;
        if replica.waiters == 0 && matches!(replica.state, State::Loading) {
            replica.retire();
        }
    }

    /// No new requests; it goes with the last one that runs. A load is given up. False when there is nothing.
    pub fn retire(&mut self, key: &str) -> bool {
        let Some(replica) = self.replicas.get_mut(key) else { return false };
        replica.retire();
        true
    }

    pub fn retire_all(&mut self) {
        self.replicas.values_mut().for_each(Replica::retire);
    }

    /// Ends everything now, running answers included.
    pub fn stop_all(&mut self) {
        self.retire_all();
        self.replicas.values().for_each(|replica| replica.stop.cancel());
    }

    /// Stops what is to go by now, and tells when to look again.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let mut wake: Option<Instant> = None;
        for replica in self.replicas.values_mut() {
            if replica.is_broken() {
                replica.retire();
                replica.stop.cancel();
            }
            match replica.goes_at(now) {
                Some(at) if at <= now => {
                    replica.retire();
                    replica.stop.cancel();
                }
                at => wake = wake.into_iter().chain(at).min(),
            }
        }
        wake
    }
}

// === impl Replica ===

impl Replica {
    pub fn loaded(&self) -> Option<&Arc<Loaded>> {
        match &self.state {
            State::Loading => None,
            State::Ready(loaded) => Some(loaded),
            State::Unloading(loaded) => loaded.as_ref(),
        }
    }

    /// When it would go if nothing else happened; `None` = never.
    pub fn expires_at(&self, now: Instant) -> Option<Instant> {
        let KeepAlive::For(time) = self.keep_alive else { return None };
        let from = if self.in_use > 0 { now } else { self.last_used };
        // A time that the clock cannot hold never comes.
        let at = from.checked_add(time)?;
        Some(at.max(self.not_before.unwrap_or(at)))
    }

    /// When it is to be stopped, as things are; `None` = something must happen first.
    fn goes_at(&self, now: Instant) -> Option<Instant> {
        if self.stop.is_cancelled() || self.in_use > 0 {
            return None;
        }
        match self.state {
            State::Loading => None,
            State::Ready(_) => self.expires_at(now),
            State::Unloading(_) => Some(now),
        }
    }

    /// The engine has ended by itself.
    fn is_broken(&self) -> bool {
        !self.stop.is_cancelled() && self.loaded().is_some_and(|loaded| loaded.runner.has_ended())
    }

    fn retire(&mut self) {
        match std::mem::replace(&mut self.state, State::Unloading(None)) {
            State::Loading => self.stop.cancel(),
            State::Ready(loaded) => self.state = State::Unloading(Some(loaded)),
            unloading @ State::Unloading(_) => self.state = unloading,
        }
    }
}

#[cfg(test)]
mod tests;

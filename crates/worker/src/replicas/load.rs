//! One caller that wants a replica: joins a load, starts one, or waits for an earlier life to end first. Callers of
//! one key share one load; a load that its last caller has left is given up.

use std::time::Duration;

use api::{Code, Error};
use protocol::v1::{LoadProgress, LoadRequest};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Life, Progress, Replicas, draining,
    plan::{check_reload, wished_context},
    table::Found,
    tend::tend,
};
use crate::keep_alive::KeepAlive;

/// How often a caller starts over because what it waited for was gone again, or too small, when it looked. More
/// than a few times means that others fight over the replica.
const MAX_ROUNDS: usize = 8;

/// No device runs more sequences at once; a larger number is a mistake that would eat the memory.
const MAX_SLOTS: u32 = 1024;

/// A call of `Load`. Dropped, the caller has left.
pub struct Load {
    replicas: Replicas,
    request: LoadRequest,
    watch: Option<Watch>,
    rounds: usize,
    done: bool,
}

/// A caller's place at a load.
struct Watch {
    replicas: Replicas,
    key: String,
    id: u64,
    progress: watch::Receiver<Progress>,
    told: Option<f32>,
}

// === impl Replicas ===

impl Replicas {
    pub fn load(&self, request: LoadRequest) -> Result<Load, Error> {
        if request.model.as_ref().is_none_or(|model| model.replica_key.is_empty()) {
            return Err(Error::invalid("`replica_key` must not be empty"));
        }
        if request.num_parallel > MAX_SLOTS {
            let text = format!("`num_parallel` must be at most {MAX_SLOTS}, got {}", request.num_parallel);
            return Err(Error::invalid(text));
        }
        let mut load = Load { replicas: self.clone(), request, watch: None, rounds: 0, done: false };
        // At once, so that callers which come together find one another.
        load.look()?;
        Ok(load)
    }
}

// === impl Load ===

/// What a caller can do next.
enum Next {
    Ready(Box<LoadProgress>),
    Watch,
    Reload { id: u64, present_bytes: u64 },
    WaitForTheEnd,
}

impl Load {
    /// How far it is; the last one has `ready`. Nothing comes after that or after an error.
    pub async fn next(&mut self) -> Option<Result<LoadProgress, Error>> {
        if self.done {
            return None;
        }
        let result = self.go_on().await;
        self.done = !matches!(&result, Ok(progress) if progress.ready.is_none());
        Some(result)
    }

    async fn go_on(&mut self) -> Result<LoadProgress, Error> {
        let deadline = Instant::now() + self.replicas.0.config.reload_wait;
        // Before the look, so that no change between the look and the wait is missed.
        let mut changes = self.replicas.0.changes.watch();
        loop {
            if let Some(watch) = &mut self.watch {
                let stall = self.replicas.0.config.load_timeout;
                if let Some(fraction) = watch.next(stall).await? {
                    return Ok(LoadProgress { fraction, ready: None });
                }
                self.watch = None;
            }
            match self.look()? {
                Next::Ready(progress) => return Ok(*progress),
                Next::Watch => {}
                Next::Reload { id, present_bytes } => self.reload(id, present_bytes).await?,
                Next::WaitForTheEnd => {
                    // The sender lives in `self`, so only the time can be up.
                    let _ =
                        timeout_at(deadline, changes.changed()).await.map_err(|_| self.still_running())?;
                }
            }
        }
    }

    fn look(&mut self) -> Result<Next, Error> {
        let options = self.request.options.unwrap_or_default();
        let wished = wished_context(&options, self.replicas.0.config.context_length);
        let keep_alive = self.request.keep_alive_ns.map(KeepAlive::from_ns);
        let model = self.request.model.clone().unwrap_or_default();
        let key = model.replica_key.clone();
        let replicas = self.replicas.clone();
        let mut table = replicas.table();
        if table.draining {
            return Err(draining());
        }
        match table.find(&key, wished) {
            Found::Ready(id) => {
                if let (Some(replica), Some(keep_alive)) = (table.get_mut(&key, id), keep_alive) {
                    replica.keep_alive = keep_alive;
                }
                let ready = table.get(&key, id).map(|replica| replicas.status_of(replica, Instant::now()));
                Ok(Next::Ready(Box::new(LoadProgress { fraction: 1.0, ready })))
            }
            Found::TooSmall(id) => {
                let loaded = table.get(&key, id).and_then(|replica| replica.loaded());
                let present_bytes = loaded.map_or(0, |loaded| loaded.runner.info().size_bytes);
                Ok(Next::Reload { id, present_bytes })
            }
            Found::Unloading => Ok(Next::WaitForTheEnd),
            found => {
                if self.rounds >= MAX_ROUNDS {
                    let text = format!("`{}` was gone again after each of {MAX_ROUNDS} loads", model.name);
                    return Err(Error::unavailable(text));
                }
                self.rounds += 1;
                let id = match found {
                    Found::Loading(id) => id,
                    _ => {
                        let keep_alive = keep_alive.unwrap_or(replicas.0.config.keep_alive);
                        let id = table.insert(model, keep_alive, Instant::now());
                        let stop =
                            table.get(&key, id).map(|replica| replica.stop.clone()).unwrap_or_default();
                        let life = Life { key: key.clone(), id, stop };
                        replicas.0.tasks.spawn(tend(replicas.clone(), self.request.clone(), life));
                        replicas.0.changes.notify();
                        id
                    }
                };
                let progress = table.wait(&key, id, keep_alive);
                drop(table);
                let told = None;
                self.watch = progress.map(|progress| Watch { replicas, key, id, progress, told });
                Ok(Next::Watch)
            }
        }
    }

    /// Ends the smaller replica with its last answer, if its larger twin would fit; else it stays.
    async fn reload(&mut self, id: u64, present_bytes: u64) -> Result<(), Error> {
        let (replicas, request) = (self.replicas.clone(), self.request.clone());
        let checked = spawn_blocking(move || check_reload(&replicas, &request, present_bytes)).await;
        checked.unwrap_or_else(|_| Err(Error::internal("the memory check panicked")))?;
        let key = self.request.model.as_ref().map_or("", |model| &model.replica_key);
        let mut table = self.replicas.table();
        if table.get(key, id).is_some() {
            table.retire(key);
        }
        drop(table);
        self.replicas.0.changes.notify();
        Ok(())
    }

    fn still_running(&self) -> Error {
        let seconds = self.replicas.0.config.reload_wait.as_secs();
        let name = self.request.model.as_ref().map_or("", |model| &model.name);
        let text = format!("`{name}` cannot be loaded anew: its answers still run after {seconds} s");
        Error::new(Code::Timeout, text)
    }
}

// === impl Watch ===

impl Watch {
    /// How far it is, when that is news; `None` when the load is over.
    async fn next(&mut self, stall: Duration) -> Result<Option<f32>, Error> {
        loop {
            let Progress { fraction, end } = self.progress.borrow_and_update().clone();
            match end {
                Some(Ok(())) => return Ok(None),
                Some(Err(error)) => return Err(error),
                None if self.told != Some(fraction) => {
                    self.told = Some(fraction);
                    return Ok(Some(fraction));
                }
                None => {}
            }
            match timeout(stall, self.progress.changed()).await {
                Ok(Ok(())) => {}
                // The task is gone without a word; the next look tells what is there.
                Ok(Err(_)) => return Ok(None),
                Err(_) => {
                    let text = format!(
                        "timed out waiting for the model to load: no progress in {} s",
                        stall.as_secs()
                    );
                    return Err(Error::new(Code::Timeout, text));
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.replicas.table().stop_waiting(&self.key, self.id);
        self.replicas.0.changes.notify();
    }
}

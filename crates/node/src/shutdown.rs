//! How a process ends: it drains, then it stops, and no task outlives either by more than a bound.
//!
//! *Drain* (the first SIGINT or SIGTERM) means: admit nothing more, finish what is admitted. Tasks that serve requests
//! end here. *Stop* comes after that, since what they need, such as a lease kept alive, must last as long as they do.
//! A second signal ends the process at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One per process, cloned into whatever has tasks.
#[derive(Clone, Debug)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
    serving: Tasks,
    supporting: Tasks,
}

/// How long each phase may last.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub drain: Duration,
    pub stop: Duration,
}

/// Tasks that did not end in time, by name. The process may end all the same: it has waited long enough.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("still running at the end: {}", .0.join(", "))]
pub struct Unfinished(pub Vec<&'static str>);

#[derive(Clone, Debug, Default)]
struct Tasks {
    tracker: TaskTracker,
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    next: u64,
    running: BTreeMap<u64, &'static str>,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        let stop = CancellationToken::new();
        Shutdown { drain: stop.child_token(), stop, serving: Tasks::default(), supporting: Tasks::default() }
    }
}

// === impl Shutdown ===

impl Shutdown {
    /// Begins the drain; calling it again changes nothing.
    pub fn begin(&self) {
        self.drain.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Cancelled when the drain begins. A part of the process that is cut off alone gets a `child_token` of it.
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Cancelled when everything admitted is finished.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a task that ends by itself soon after the drain begins: a server, a request.
    pub fn serve<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.serving.spawn(name, future, || ())
    }

    /// Spawns a task that others rely on and that ends when [`Shutdown::stop_token`] is cancelled: a lease, a watch.
    /// If it panics the process drains, because without it the rest would go on in a broken state.
    pub fn support<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let drain = self.drain.clone();
        self.supporting.spawn(name, future, move || drain.cancel())
    }

    /// Waits for the drain to begin and takes the process through both phases.
    pub async fn ended(&self, limits: Limits) -> Result<(), Unfinished> {
        self.drain.cancelled().await;
        let mut unfinished = self.serving.ended(limits.drain).await;
        self.stop.cancel();
        unfinished.extend(self.supporting.ended(limits.stop).await);
        if unfinished.is_empty() { Ok(()) } else { Err(Unfinished(unfinished)) }
    }

    /// From now on SIGINT and SIGTERM drain this process, and a second one ends it.
    pub fn obey_signals(&self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let next = async move || {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
            }
        };
        self.support("signals", obey(self.clone(), next, |code| std::process::exit(code)));
        Ok(())
    }
}

async fn obey<N, E>(shutdown: Shutdown, mut next: N, exit: E)
where
    N: AsyncFnMut() -> SignalKind,
    E: FnOnce(i32),
{
    let stop = shutdown.stop_token();
    let Some(first) = stop.run_until_cancelled(next()).await else { return };
    tracing::info!(signal = first.as_raw_value(), "draining; a second signal ends the process at once");
    shutdown.begin();
    let Some(second) = stop.run_until_cancelled(next()).await else { return };
    tracing::warn!(signal = second.as_raw_value(), "ending at once");
    // What a shell shows for a process that died of this signal.
    exit(128 + second.as_raw_value());
}

// === impl Tasks ===

impl Tasks {
    fn spawn<F>(
        &self,
        name: &'static str,
        future: F,
        on_panic: impl FnOnce() + Send + 'static,
    ) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let running = Running::enter(name, self.names.clone(), on_panic);
        self.tracker.spawn(async move {
            let _running = running;
            future.await
        })
    }

    /// Waits until all have ended, at most for `limit`; the names of those that have not.
    async fn ended(&self, limit: Duration) -> Vec<&'static str> {
        self.tracker.close();
        match tokio::time::timeout(limit, self.tracker.wait()).await {
            Ok(()) => Vec::new(),
            Err(_) => lock(&self.names).running.values().copied().collect(),
        }
    }
}

/// The mark of a running task, gone with it however it ends.
struct Running<P: FnOnce()> {
    name: &'static str,
    number: u64,
    names: Arc<Mutex<Names>>,
    on_panic: Option<P>,
}

impl<P: FnOnce()> Running<P> {
    fn enter(name: &'static str, names: Arc<Mutex<Names>>, on_panic: P) -> Running<P> {
        let mut entries = lock(&names);
        let number = entries.next;
        entries.next += 1;
        entries.running.insert(number, name);
        drop(entries);
        Running { name, number, names, on_panic: Some(on_panic) }
    }
}

impl<P: FnOnce()> Drop for Running<P> {
    fn drop(&mut self) {
        lock(&self.names).running.remove(&self.number);
        if std::thread::panicking() {
            tracing::error!(task = self.name, "task panicked");
            if let Some(on_panic) = self.on_panic.take() {
                on_panic();
            }
        }
    }
}

/// Nothing can leave the names half changed, so a panic elsewhere does not spoil them.
fn lock(names: &Mutex<Names>) -> std::sync::MutexGuard<'_, Names> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const LIMITS: Limits = Limits { drain: Duration::from_secs(30), stop: Duration::from_secs(5) };

    #[tokio::test(start_paused = true)]
    async fn support_lasts_until_the_last_request_has_ended() {
        let shutdown = Shutdown::default();
        let (finish, finished) = oneshot::channel::<()>();
        let stopped = Arc::new(AtomicBool::new(false));
        shutdown.support("lease", {
            let (stop, stopped) = (shutdown.stop_token(), stopped.clone());
            async move {
                stop.cancelled().await;
                stopped.store(true, Ordering::SeqCst);
            }
        });
        let request = shutdown.serve("request", finished);
        shutdown.begin();
        let ended = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.ended(LIMITS).await }
        });
        tokio::task::yield_now().await;
        assert!(shutdown.is_draining() && !stopped.load(Ordering::SeqCst));
        finish.send(()).unwrap();
        request.await.unwrap().unwrap();
        assert_eq!(ended.await.unwrap(), Ok(()));
        assert!(stopped.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_named() {
        let shutdown = Shutdown::default();
        shutdown.serve("slow request", std::future::pending::<()>());
        shutdown.serve("request", std::future::ready(()));
        shutdown.support("deaf watch", std::future::pending::<()>());
        shutdown.begin();
        let before = tokio::time::Instant::now();
        let unfinished = shutdown.ended(LIMITS).await.unwrap_err();
        assert_eq!(unfinished.to_string(), "still running at the end: slow request, deaf watch");
        assert_eq!(before.elapsed(), LIMITS.drain + LIMITS.stop);
    }

    #[tokio::test]
    async fn a_support_that_panics_drains_the_process_and_a_request_does_not() {
        let shutdown = Shutdown::default();
        shutdown.serve("request", async { panic!("a bug in a request") }).await.unwrap_err();
        assert!(!shutdown.is_draining());
        shutdown.support("lease", async { panic!("a bug in a support") }).await.unwrap_err();
        assert!(shutdown.is_draining());
        assert_eq!(shutdown.ended(LIMITS).await, Ok(()));
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_exits() {
        let shutdown = Shutdown::default();
        let (send, mut signals) = mpsc::channel(1);
        let (exited, exit) = oneshot::channel();
        let next = async move || signals.recv().await.unwrap();
        shutdown.support("signals", obey(shutdown.clone(), next, |code| exited.send(code).unwrap()));
        send.send(SignalKind::interrupt()).await.unwrap();
        shutdown.drain_token().cancelled().await;
        assert!(!shutdown.stop_token().is_cancelled());
        send.send(SignalKind::terminate()).await.unwrap();
        assert_eq!(exit.await, Ok(128 + 15));
    }

    #[tokio::test]
    async fn a_real_signal_drains_this_process() {
        let shutdown = Shutdown::default();
        shutdown.obey_signals().unwrap();
        let own = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &own]).status().unwrap().success());
        assert_eq!(shutdown.ended(LIMITS).await, Ok(()));
    }
}

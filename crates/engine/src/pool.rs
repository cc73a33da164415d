//! The threads of one engine, and the one way in which they write to shared memory.
//!
//! Our own, because a decode step hands out work some hundred times for some microseconds each: between two pieces of
//! work a thread spins for as long as the next usually takes to come, and only then parks. Nobody waits for a thread
//! that has not taken a piece, so when another process holds a core the others do its share, and nobody spins for
//! long without offering the core to others.

use std::{
    any::Any,
    marker::PhantomData,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use crate::Error;

/// A thread takes this part of its share of what is left: large pieces first, which are cheap to hand out, small ones
/// at the end, so that all are done at about the same time and a thread that was held up holds up little.
const PART: usize = 3;

/// Looks at the state before a waiting thread begins to offer its core to others, and offers before it parks: some
/// 20 and 100 microseconds, more than most gaps within a step, less than anybody notices of an idle engine.
const SPINS: usize = 1_000;
const YIELDS: usize = 200;

pub(crate) struct Pool {
    threads: usize,
    shared: Arc<Common>,
    /// One [`Pool::split`] at a time.
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

/// What the threads have in common. A job is open while `epoch` is odd.
struct Common {
    epoch: AtomicUsize,
    /// Written by the caller of `split` while `epoch` is even and `inside` is 0, read by who is inside.
    job: Mutex<Option<Job>>,
    /// The next item of the open job that nobody has taken.
    next: AtomicUsize,
    /// Workers that may run pieces of the open job.
    inside: AtomicUsize,
    stop: AtomicBool,
    /// Workers that sleep, or are about to.
    asleep: Mutex<usize>,
    wake: Condvar,
    /// What a worker panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The work of one `split`, with its lifetime taken off.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    items: usize,
    grain: usize,
    threads: usize,
}

type Work<'a> = dyn Fn(usize, Range<usize>) + Sync + 'a;

// SAFETY: the pointer leads to a `Sync` closure, and `Pool::run` outlives every use of it.
unsafe impl Send for Job {}

// === impl Pool ===

impl Pool {
    pub fn new(threads: usize) -> Result<Pool, Error> {
        let threads = threads.max(1);
        let shared = Arc::new(Common {
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let mut pool = Pool { threads, shared, turn: Mutex::new(()), workers: Vec::new() };
        for at in 1..threads {
            let shared = pool.shared.clone();
            let builder = std::thread::Builder::new().name(format!("engine-{at}"));
            let worker = builder
                .spawn(move || shared.serve(at))
                .map_err(|error| Error::Compute(format!("start {threads} threads: {error}")))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work` with the number of the thread that runs it, below [`Pool::threads`], and with ranges that cover
    /// `0..items` once each, of at least `grain` items unless it is the last.
    ///
    /// # Panics
    /// When a piece of work panics; all of them have ended then. Called within a piece of work it would wait for itself.
    pub fn split(&self, items: usize, grain: usize, work: impl Fn(usize, Range<usize>) + Sync) {
        let grain = grain.max(1);
        let _turn = lock(&self.turn);
        if self.workers.is_empty() || items <= grain {
            if items > 0 {
                work(0, 0..items);
            }
        } else {
            self.run((items, grain), &work);
        }
    }

    /// Lets every thread take pieces of `work` until none is left, and waits for those that took any.
    fn run(&self, (items, grain): (usize, usize), work: &Work<'_>) {
        // SAFETY: only the lifetime changes. `Close` below ends the job and waits until no worker is inside, before
        // `work` goes away, also when a piece panics.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let job = Job { work, items, grain, threads: self.threads };
        // Left by a job whose own thread panicked too.
        lock(&self.shared.panic).take();
        *lock(&self.shared.job) = Some(job);
        self.shared.open();
        let close = Close(&self.shared);
        self.shared.take(job, 0);
        drop(close);
        if let Some(panic) = lock(&self.shared.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        drop(lock(&self.shared.asleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what its work panics with; there is nothing to learn from it here.
            let _ = worker.join();
        }
    }
}

/// Ends the open job when it is dropped.
struct Close<'a>(&'a Common);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        // Pieces that nobody took stay undone: that is so only when one of them panicked.
        self.0.epoch.fetch_add(1, SeqCst);
        let mut wait = Wait::default();
        while self.0.inside.load(SeqCst) > 0 {
            wait.spin();
        }
    }
}

// === impl Common ===

impl Common {
    fn open(&self) {
        self.next.store(0, SeqCst);
        self.epoch.fetch_add(1, SeqCst);
        // A worker counts itself before it looks at `epoch` for the last time, so it sees the new one or is seen here.
        if *lock(&self.asleep) > 0 {
            self.wake.notify_all();
        }
    }

    /// Runs pieces until none is left.
    fn take(&self, job: Job, thread: usize) {
        let mut start = self.next.load(SeqCst);
        while start < job.items {
            let left = job.items - start;
            let end = start + (left / (job.threads * PART)).max(job.grain).min(left);
            if let Err(now) = self.next.compare_exchange(start, end, SeqCst, SeqCst) {
                start = now;
                continue;
            }
            // SAFETY: the job is open: who opened it is in `Pool::run`, and waits for us there.
            unsafe { (*job.work)(thread, start..end) };
            start = self.next.load(SeqCst);
        }
    }

    /// What a worker does all its life.
    fn serve(&self, thread: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.wait_for_job(seen) {
            seen = epoch;
            self.inside.fetch_add(1, SeqCst);
            // Closed meanwhile? Then who closed it may have found nobody inside, and the job is gone.
            if self.epoch.load(SeqCst) == epoch {
                let job = *lock(&self.job);
                let work = AssertUnwindSafe(|| job.map(|job| self.take(job, thread)));
                if let Err(panic) = catch_unwind(work) {
                    *lock(&self.panic) = Some(panic);
                }
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    /// The epoch of an open job that is not `seen`; `None` when the pool goes away.
    fn wait_for_job(&self, seen: usize) -> Option<usize> {
        let mut wait = Wait::default();
        loop {
            let epoch = self.epoch.load(SeqCst);
            if epoch % 2 == 1 && epoch != seen {
                return Some(epoch);
            }
            if self.stop.load(SeqCst) {
                return None;
            }
            if !wait.spin() {
                self.sleep(epoch);
                wait = Wait::default();
            }
        }
    }

    /// Sleeps unless `epoch` is over.
    fn sleep(&self, epoch: usize) {
        let mut asleep = lock(&self.asleep);
        *asleep += 1;
        while self.epoch.load(SeqCst) == epoch && !self.stop.load(SeqCst) {
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        *asleep -= 1;
    }
}

/// Waiting without sleeping.
#[derive(Default)]
struct Wait {
    looks: usize,
}

impl Wait {
    /// Lets some time pass. False when it has been long enough to sleep.
    fn spin(&mut self) -> bool {
        self.looks += 1;
        if self.looks < SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
        self.looks < SPINS + YIELDS
    }
}

/// No state behind these locks is ever half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slice that the pieces of one [`Pool::split`] write to, each its own elements.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: `Shared` stands for an exclusive borrow of the slice; handing it to several threads gives them no more
// than `part` gives, whose caller promises disjoint ranges. `T: Send` lets the elements be written elsewhere.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Shared<'a, T> {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the returned slice lives, no other call may return an element of `range`.
    #[expect(clippy::mut_from_ref, reason = "the contract above is what makes it exclusive")]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: the range lies inside the slice, which is borrowed exclusively for 'a, and the caller promises
        // that nobody else has these elements.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_visited_once_whatever_the_threads_and_grain() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads).unwrap();
            for (items, grain) in [(0, 1), (1, 1), (7, 3), (100, 1), (101, 64)] {
                let mut seen = vec![0u8; items];
                let shared = Shared::new(&mut seen);
                pool.split(items, grain, |thread, range| {
                    assert!(thread < threads);
                    // SAFETY: the ranges of one split do not overlap.
                    unsafe { shared.part(range) }.iter_mut().for_each(|count| *count += 1);
                });
                assert!(seen.iter().all(|&count| count == 1), "{threads} threads, {items} items");
            }
        }
    }

    #[test]
    fn many_short_jobs_and_pauses_lose_nothing() {
        let pool = Pool::new(4).unwrap();
        for round in 0..20_000usize {
            let sum = AtomicUsize::new(0);
            pool.split(round % 37, 1, |_, range| {
                sum.fetch_add(range.sum(), SeqCst);
            });
            let items = round % 37;
            assert_eq!(sum.into_inner(), items * items.saturating_sub(1) / 2, "round {round}");
            if round % 5_000 == 0 {
                // Long enough for the others to fall asleep, as far as this thread can tell.
                (0..2_000).for_each(|_| std::thread::yield_now());
            }
        }
    }

    #[test]
    fn no_thread_number_is_used_twice_at_once() {
        let pool = Pool::new(3).unwrap();
        let busy: Vec<AtomicBool> = (0..3).map(|_| AtomicBool::new(false)).collect();
        for _ in 0..200 {
            pool.split(60, 1, |thread, _| {
                assert!(!busy[thread].swap(true, SeqCst));
                std::thread::yield_now();
                busy[thread].store(false, SeqCst);
            });
        }
    }

    #[test]
    fn a_panic_comes_out_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for at in [0, 40, 99] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.split(100, 1, |_, range| assert!(!range.contains(&at), "piece {at}"));
            }));
            assert!(caught.is_err());
            let count = AtomicUsize::new(0);
            pool.split(100, 1, |_, range| {
                count.fetch_add(range.len(), SeqCst);
            });
            assert_eq!(count.into_inner(), 100);
        }
    }

    #[test]
    #[should_panic(expected = "of 4")]
    fn a_part_outside_the_slice_panics() {
        let mut values = [0f32; 4];
        let shared = Shared::new(&mut values);
        // SAFETY: nothing else has these elements.
        let _ = unsafe { shared.part(3..5) };
    }
}

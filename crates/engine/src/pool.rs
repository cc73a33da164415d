//! The threads of one engine, and the one way in which they write to shared memory.
//!
//! Rayon, because it needs no `unsafe` here, parks when idle, and waits only for work that a thread really took:
//! when another process holds a core, the rest of the pool does that core's share. The pool is the engine's own,
//! sized by `LoadOptions::threads`; candle's own pools are never woken, since no candle operation with threads runs
//! in a step.

use std::{marker::PhantomData, ops::Range};

use rayon::prelude::*;

use crate::Error;

/// Pieces of work per thread: enough that a thread that was held up does not hold up the rest, few enough that
/// handing them out stays cheap.
const PIECES_PER_THREAD: usize = 4;

/// Rows per piece at least where a row is only a few thousand operations: below, waking a thread costs more.
const ROW_GRAIN: usize = 8;

#[derive(Debug)]
pub(crate) struct Pool {
    threads: usize,
    /// `None` for one thread: the caller's.
    workers: Option<rayon::ThreadPool>,
}

impl Pool {
    pub fn new(threads: usize) -> Result<Pool, Error> {
        let threads = threads.max(1);
        let build = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|at| format!("engine-{at}"))
                .build()
        };
        let workers = (threads > 1)
            .then(build)
            .transpose()
            .map_err(|error| Error::Compute(format!("start {threads} threads: {error}")))?;
        Ok(Pool { threads, workers })
    }

    /// Runs `work` on a thread of the pool, so that every [`Pool::split`] in it starts without a hand-over.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.workers {
            Some(workers) => workers.install(work),
            None => work(),
        }
    }

    /// Calls `work` with ranges that cover `0..items` once each, of at least `grain` items unless it is the last.
    pub fn split(&self, items: usize, grain: usize, work: impl Fn(Range<usize>) + Sync + Send) {
        let piece = items.div_ceil(self.threads * PIECES_PER_THREAD).max(grain).max(1);
        let pieces = items.div_ceil(piece);
        let range = |at: usize| at * piece..items.min((at + 1) * piece);
        match &self.workers {
            Some(workers) if pieces > 1 => {
                workers.install(|| (0..pieces).into_par_iter().for_each(|at| work(range(at))));
            }
            _ => (0..pieces).for_each(|at| work(range(at))),
        }
    }

    /// Calls `work` with parts of `values`, [n, cols], each some whole rows, and the number of the first one.
    pub fn rows<T: Send>(&self, values: &mut [T], cols: usize, work: impl Fn(usize, &mut [T]) + Sync + Send) {
        let n = values.len() / cols;
        let shared = Shared::new(values);
        self.split(n, ROW_GRAIN, |range| {
            // SAFETY: the ranges of one split do not overlap.
            work(range.start, unsafe { shared.part(range.start * cols..range.end * cols) });
        });
    }
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
                pool.split(items, grain, |range| {
                    // SAFETY: the ranges of one split do not overlap.
                    unsafe { shared.part(range) }.iter_mut().for_each(|count| *count += 1);
                });
                assert!(seen.iter().all(|&count| count == 1), "{threads} threads, {items} items");
            }
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

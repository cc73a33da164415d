//! How fast this machine reads memory: the bound of decoding, where every token reads every weight once.

use std::{hint::black_box, sync::Barrier, time::Instant};

use crate::Result;

/// Runs of memory that a thread reads at the same time: one alone leaves prefetchers and channels idle.
const STREAMS: usize = 4;
/// 64 bytes: a cache line, and the widest load.
const LINE: usize = 8;

/// Reads all of its streams, line by line in turn, and makes one number of them.
type Pass = fn([&[u64]; STREAMS]) -> u64;

/// A buffer far larger than any cache, and threads to read it with.
pub struct Reader {
    threads: usize,
    buffer: Vec<u64>,
    pass: Pass,
    loads: &'static str,
}

impl Reader {
    pub fn new(threads: usize, mib: usize) -> Result<Reader> {
        if !(1..=1024).contains(&threads) || !(64..=65_536).contains(&mib) {
            let bounds = "`--threads` must be between 1 and 1024 and `--mib` between 64 and 65536";
            return Err(format!("{bounds}, got {threads} and {mib}").into());
        }
        // Written, not only reserved: untouched pages would all be the one page of zeros.
        let buffer = (0..(mib << 20) as u64 / 8).collect();
        let (pass, loads) = fastest();
        Ok(Reader { threads, buffer, pass, loads })
    }

    pub fn loads(&self) -> &'static str {
        self.loads
    }

    /// GB/s of each of `passes` over the buffer, all threads together.
    pub fn read(&self, passes: usize) -> Vec<f64> {
        (0..passes).map(|_| self.read_once()).collect()
    }

    fn read_once(&self) -> f64 {
        let lines = self.buffer.len() / LINE;
        let part = lines / (self.threads * STREAMS) * LINE;
        let parts: Vec<&[u64]> = self.buffer.chunks_exact(part).take(self.threads * STREAMS).collect();
        let barrier = Barrier::new(self.threads);
        let times: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
            let mut running = Vec::with_capacity(self.threads);
            for parts in parts.chunks_exact(STREAMS) {
                let streams: [&[u64]; STREAMS] = std::array::from_fn(|at| parts[at]);
                let barrier = &barrier;
                running.push(scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    black_box((self.pass)(streams));
                    (start, Instant::now())
                }));
            }
            running.into_iter().map(|thread| thread.join().expect("a reader cannot panic")).collect()
        });
        let start = times.iter().map(|(start, _)| *start).min().expect("there is at least one thread");
        let end = times.iter().map(|(_, end)| *end).max().expect("there is at least one thread");
        let bytes = part * 8 * STREAMS * self.threads;
        bytes as f64 / (end - start).as_secs_f64() / 1e9
    }
}

/// The widest loads of this processor, and their name.
fn fastest() -> (Pass, &'static str) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor was just asked for the instructions.
        return (|streams| unsafe { x86::read_avx512(streams) }, "64 bytes, AVX-512");
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was just asked for the instructions.
        return (|streams| unsafe { x86::read_avx2(streams) }, "32 bytes, AVX2");
    }
    (read, "as the compiler likes")
}

/// The exclusive or of everything, which is cheaper than any load.
#[inline(always)]
fn read(streams: [&[u64]; STREAMS]) -> u64 {
    let mut sums = [[0u64; LINE]; STREAMS];
    for at in (0..streams[0].len()).step_by(LINE) {
        for (sum, stream) in sums.iter_mut().zip(streams) {
            let line = &stream[at..at + LINE];
            sum.iter_mut().zip(line).for_each(|(sum, value)| *sum ^= value);
        }
    }
    sums.iter().flatten().fold(0, |sum, value| sum ^ value)
}

/// The same with wide registers.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LINE, STREAMS};

    #[target_feature(enable = "avx512f")]
    pub fn read_avx512(streams: [&[u64]; STREAMS]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); STREAMS];
        for at in 0..streams[0].len() / LINE {
            for (sum, stream) in sums.iter_mut().zip(streams) {
                let line = &stream[at * LINE..(at + 1) * LINE];
                // SAFETY: the slice has the 64 bytes that are loaded; the load needs no alignment.
                *sum = _mm512_xor_si512(*sum, unsafe { _mm512_loadu_si512(line.as_ptr().cast()) });
            }
        }
        let sum = sums.into_iter().fold(_mm512_setzero_si512(), |sum, value| _mm512_xor_si512(sum, value));
        _mm512_reduce_add_epi64(sum) as u64
    }

    #[target_feature(enable = "avx2")]
    pub fn read_avx2(streams: [&[u64]; STREAMS]) -> u64 {
        super::read(streams)
    }
}

//! [`run_many`]: many clusters over several threads, each of them in one.

use std::{
    num::NonZero,
    ops::Range,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    thread,
};

use parking_lot::Mutex;

use crate::{Failure, Report, run};

/// As many threads as there are cores.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs each of the seeds, so many at a time; `seen` hears of each that went well, in any order. Answers with the clusters
/// that went wrong; after so many of them, at least one, no others begin.
pub fn run_many(
    seeds: Range<u64>,
    threads: usize,
    failures_max: usize,
    seen: impl Fn(u64, &Report) + Sync,
) -> Vec<Failure> {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let failures: Mutex<Vec<Failure>> = Mutex::default();
    let work = || {
        while !stop.load(SeqCst) {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            match run(seed) {
                Ok(report) => seen(seed, &report),
                Err(failure) => {
                    let mut failures = failures.lock();
                    failures.push(failure);
                    stop.fetch_or(failures.len() >= failures_max, SeqCst);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut failures = failures.into_inner();
    failures.sort_unstable_by_key(|failure| failure.seed);
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_once() {
        let seen = Mutex::new(Vec::new());
        assert!(run_many(3..8, 3, 1, |seed, _| seen.lock().push(seed)).is_empty());
        let mut seen = seen.into_inner();
        seen.sort_unstable();
        assert_eq!(seen, [3, 4, 5, 6, 7]);
    }
}

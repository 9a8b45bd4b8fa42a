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

/// Runs each of the seeds, so many at a time; `seen` hears of each that went well, in any order.
///
/// # Errors
/// The first cluster that went wrong; those that had not begun then never do.
pub fn run_many(seeds: Range<u64>, threads: usize, seen: impl Fn(u64, &Report) + Sync) -> Result<(), Failure> {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let failures: Mutex<Vec<Failure>> = Mutex::default();
    let work = || {
        while !failed.load(SeqCst) {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            match run(seed) {
                Ok(report) => seen(seed, &report),
                Err(failure) => {
                    failed.store(true, SeqCst);
                    failures.lock().push(failure);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    failures.into_inner().into_iter().min_by_key(|failure| failure.seed).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_once() {
        let seen = Mutex::new(Vec::new());
        run_many(3..8, 3, |seed, _| seen.lock().push(seed)).unwrap();
        let mut seen = seen.into_inner();
        seen.sort_unstable();
        assert_eq!(seen, [3, 4, 5, 6, 7]);
    }
}

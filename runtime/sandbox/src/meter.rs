//! Measures the CPU time of a guest's polls.
//!
//! The thread's CPU clock is exact, and asking for it costs a system call. So a poll of a guest that has not computed
//! lately is taken by the wall clock, which costs a tenth of that and can only say too much, by what interrupts took. Only
//! if it turns out not to be short is the CPU clock asked: what was used until then is then at most what the thread has
//! used since it was last asked, and from then on it is exact. Nobody is billed less than they used.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use crate::{container::Container, cpu::thread_cpu_ns};

/// A poll that took longer may have been interrupted by other threads.
const SHORT_NS: u64 = 100_000;

thread_local! {
    /// This thread's CPU clock when it was last asked for.
    static LAST_CPU_NS: Cell<u64> = const { Cell::new(0) };
    /// Whether a guest is being polled: what this thread uses is measured.
    static MEASURED: Cell<bool> = const { Cell::new(false) };
}

/// Says that what this thread does is a guest's, until it is dropped.
pub(crate) struct Measured(bool);

impl Measured {
    pub(crate) fn begin() -> Self {
        Self(MEASURED.replace(true))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        MEASURED.set(self.0);
    }
}

/// Does something for a guest that may be done within its poll or in a task beside it: what that uses is billed once.
pub(crate) fn beside<R>(container: &Container, work: impl FnOnce() -> R) -> R {
    if MEASURED.get() {
        return work();
    }
    let before_ns = thread_cpu_ns();
    let done = work();
    container.cpu.charge(thread_cpu_ns().saturating_sub(before_ns), Instant::now);
    done
}

/// The state of one guest's measurement: touched only by the thread that polls it.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// A clock's reading at the last booking.
    mark_ns: AtomicU64,
    /// Whether that was the CPU clock.
    exact: AtomicBool,
}

impl Meter {
    /// A poll begins. `exact`: the guest has computed lately, and is measured by the CPU clock.
    pub(crate) fn begin(&self, exact: bool) {
        self.exact.store(exact, Relaxed);
        self.mark_ns.store(if exact { cpu_ns() } else { wall_ns() }, Relaxed);
    }

    /// What was used since the poll began or this was last asked.
    pub(crate) fn used_ns(&self) -> u64 {
        let mark_ns = self.mark_ns.load(Relaxed);
        if self.exact.load(Relaxed) {
            let now_ns = cpu_ns();
            self.mark_ns.store(now_ns, Relaxed);
            return now_ns.saturating_sub(mark_ns);
        }
        let now_ns = wall_ns();
        let wall_ns = now_ns.saturating_sub(mark_ns);
        if wall_ns < SHORT_NS {
            self.mark_ns.store(now_ns, Relaxed);
            return wall_ns;
        }
        let last_ns = LAST_CPU_NS.get();
        let now_ns = cpu_ns();
        self.mark_ns.store(now_ns, Relaxed);
        self.exact.store(true, Relaxed);
        wall_ns.min(now_ns.saturating_sub(last_ns))
    }
}

fn cpu_ns() -> u64 {
    let now_ns = thread_cpu_ns();
    LAST_CPU_NS.set(now_ns);
    now_ns
}

fn wall_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(ns: u64) -> u64 {
        let start = thread_cpu_ns();
        while thread_cpu_ns() - start < ns {}
        thread_cpu_ns() - start
    }

    #[test]
    fn nobody_is_billed_less_than_they_used() {
        let meter = Meter::default();
        for (exact, ns) in [(false, 20_000), (false, 3_000_000), (true, 20_000), (true, 3_000_000)] {
            let (mut least, mut billed_less) = (u64::MAX, 0);
            for _ in 0..50 {
                meter.begin(exact);
                let used = compute(ns);
                let billed = meter.used_ns();
                billed_less += u32::from(billed < used);
                least = least.min(billed);
            }
            assert_eq!(billed_less, 0, "{exact} {ns}");
            // Clocks have to be asked, which takes time as well; and threads are interrupted, but not always.
            assert!(least <= ns + 100_000, "{exact} {ns}: {least}");
        }
    }

    #[test]
    fn waiting_in_a_long_poll_is_not_billed() {
        let meter = Meter::default();
        let mut least = u64::MAX;
        for _ in 0..5 {
            cpu_ns();
            meter.begin(false);
            let waited = std::sync::mpsc::channel::<()>().1.recv_timeout(std::time::Duration::from_millis(5));
            assert!(waited.is_err());
            least = least.min(meter.used_ns());
        }
        assert!(least < 2_000_000, "{least}");
    }
}

//! CPU of one container: what it used, and whether it may use more now.
//!
//! A quota is a bucket of CPU time that fills at the quota's rate and holds at most one period's worth. A container that
//! has emptied it waits until there is a millisecond again: over any longer time it gets its quota exactly, a burst
//! after idling is bounded by one period, and no wait is longer than it takes to earn that millisecond.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::CpuLimit;

/// What a throttled container earns before it runs again.
const RESUME_NS: i64 = 1_000_000;

/// CPU time that the current thread has used.
pub(crate) fn thread_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// CPU account of a container, over all its instances, or of a group, over all its containers.
#[derive(Debug)]
pub(crate) struct CpuAccount {
    parent: Option<Arc<CpuAccount>>,
    used_ns: AtomicU64,
    throttled_ns: AtomicU64,
    quota: Option<Mutex<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    /// Nanoseconds earned per thousand nanoseconds that pass.
    rate_millis: i64,
    capacity_ns: i64,
    /// May be negative: what was used before it could be stopped.
    level_ns: i64,
    filled_at: Instant,
}

impl CpuAccount {
    pub(crate) fn new(limit: CpuLimit, period: Duration, now: Instant, parent: Option<Arc<Self>>) -> Self {
        let quota = limit.quota_millicores.map(|millicores| Mutex::new(Bucket::new(millicores, period, now)));
        Self { parent, used_ns: AtomicU64::new(0), throttled_ns: AtomicU64::new(0), quota }
    }

    /// Books CPU time. Returns whether the quota is used up.
    pub(crate) fn charge(&self, ns: u64, now: impl Fn() -> Instant + Copy) -> bool {
        self.used_ns.fetch_add(ns, Ordering::Relaxed);
        let parent = self.parent.as_ref().is_some_and(|parent| parent.charge(ns, now));
        let Some(quota) = &self.quota else { return parent };
        let mut bucket = quota.lock();
        bucket.fill(now());
        bucket.level_ns -= i64::try_from(ns).unwrap_or(i64::MAX);
        bucket.level_ns <= 0 || parent
    }

    /// How long the container has to wait before it may run; `None`: it may run now.
    pub(crate) fn wait(&self, now: impl Fn() -> Instant + Copy, waited: bool) -> Option<Duration> {
        let parent = self.parent.as_ref().and_then(|parent| parent.wait(now, waited));
        let own = self.quota.as_ref().and_then(|quota| {
            let mut bucket = quota.lock();
            bucket.fill(now());
            bucket.wait(waited)
        });
        parent.max(own)
    }

    /// Books time spent waiting.
    pub(crate) fn throttled(&self, time: Duration) {
        self.throttled_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn throttled_total(&self) -> Duration {
        Duration::from_nanos(self.throttled_ns.load(Ordering::Relaxed))
    }
}

impl Bucket {
    fn new(millicores: u32, period: Duration, now: Instant) -> Self {
        let rate_millis = i64::from(millicores.max(1));
        let period_ns = i64::try_from(period.as_nanos()).unwrap_or(i64::MAX / 1_000_000);
        let capacity_ns = (period_ns.saturating_mul(rate_millis) / 1000).max(RESUME_NS);
        Self { rate_millis, capacity_ns, level_ns: capacity_ns, filled_at: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at);
        let passed_ns = i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX / 1_000_000);
        self.level_ns =
            (self.level_ns.saturating_add(passed_ns.saturating_mul(self.rate_millis) / 1000)).min(self.capacity_ns);
        self.filled_at = now.max(self.filled_at);
    }

    /// Whoever waits already goes on only with a millisecond in hand, so that throttled guests do not flutter.
    fn wait(&self, waited: bool) -> Option<Duration> {
        let enough = if waited { RESUME_NS } else { 1 };
        if self.level_ns >= enough {
            return None;
        }
        let missing = RESUME_NS - self.level_ns;
        let ns = missing.saturating_mul(1000) / self.rate_millis + 1;
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn account(millicores: u32, start: Instant) -> CpuAccount {
        let limit = CpuLimit { quota_millicores: Some(millicores), weight_millicores: 100 };
        CpuAccount::new(limit, Duration::from_millis(40), start, None)
    }

    /// Runs a guest that always wants CPU, a millisecond at a time, and returns what it got.
    fn spin(millicores: u32, wall: Duration) -> Duration {
        let start = Instant::now();
        let account = account(millicores, start);
        let mut now = start;
        let mut waited = false;
        while now < start + wall {
            if let Some(wait) = account.wait(|| now, waited) {
                now += wait;
                waited = true;
                continue;
            }
            waited = false;
            now += Duration::from_millis(1);
            account.charge(MS, || now);
        }
        account.used()
    }

    #[test]
    fn a_spinner_gets_its_quota() {
        for (millicores, wanted_ms) in [(10, 20.0), (100, 200.0), (250, 500.0), (500, 1000.0), (1000, 2000.0)] {
            let got = spin(millicores, Duration::from_secs(2)).as_secs_f64() * 1000.0;
            let burst = f64::from(millicores) * 0.04 + 2.0;
            assert!((got - wanted_ms).abs() <= burst, "{millicores}m: {got} ms, wanted {wanted_ms} within {burst}");
        }
    }

    #[test]
    fn idling_saves_up_one_period_at_most() {
        let start = Instant::now();
        let account = account(250, start);
        let later = start + Duration::from_secs(60);
        assert!(!account.charge(9 * MS, || later), "a period's worth is 10 ms");
        assert!(account.charge(2 * MS, || later));
        let wait = account.wait(|| later, true).expect("must wait");
        assert_eq!(wait.as_millis(), 8, "2 ms of CPU at a quarter of a core");
    }

    #[test]
    fn no_quota_never_waits() {
        let limit = CpuLimit { quota_millicores: None, weight_millicores: 100 };
        let account = CpuAccount::new(limit, Duration::from_millis(40), Instant::now(), None);
        assert!(!account.charge(u64::MAX / 4, Instant::now));
        assert_eq!(account.wait(Instant::now, false), None);
    }
}

//! CPU of one container, or of a group: what it used, and whether it may use more now.
//!
//! A quota is a bucket of CPU time that fills at the quota's rate and holds at most one period's worth. A container that
//! has emptied it waits until there is a millisecond again: over any longer time it gets its quota exactly, a burst
//! after idling is bounded by one period, and no wait is longer than it takes to earn that millisecond and what was used
//! before the guest could be stopped. What is in the bucket is counted in picoseconds, so that nothing is lost by
//! rounding however often it is filled.
//!
//! Not here: who gets the CPU when the node is busy. See `task`.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{CpuLimit, turns::Share};

/// What a throttled container earns before it runs again.
const RESUME_PS: i64 = 1_000_000_000;
const PS_PER_NS: i64 = 1000;
/// More than any machine has: the quota of an account that had one and has none now.
const NO_QUOTA: u32 = 1_000_000;

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
    /// Both are there only for those that need them: there are many that never do.
    waits: OnceLock<Box<Mutex<Waits>>>,
    quota: OnceLock<Box<Mutex<Bucket>>>,
    period: Duration,
    share: Arc<Share>,
}

/// Time spent waiting: once, however many instances wait at the same time.
#[derive(Debug, Default)]
struct Waits {
    waiting: u32,
    since: Option<Instant>,
    total: Duration,
}

#[derive(Debug)]
struct Bucket {
    /// Picoseconds earned per nanosecond that passes: the quota in thousandths of a core.
    rate_millis: i64,
    capacity_ps: i64,
    /// May be negative: what was used before it could be stopped.
    level_ps: i64,
    filled_at: Instant,
    periods: Periods,
}

/// Periods as the kernel counts them for a cgroup's `cpu.stat`.
#[derive(Debug)]
struct Periods {
    start: Instant,
    length: Duration,
    /// Those in which the container ran or wanted to.
    active: Count,
    /// Those in which it had to wait.
    throttled: Count,
}

/// Counts numbered periods, each once; numbers only go up.
#[derive(Debug, Default)]
struct Count {
    total: u64,
    next: u64,
}

/// What an account says of its quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Throttling {
    pub(crate) periods: u64,
    pub(crate) periods_throttled: u64,
    pub(crate) time: Duration,
}

impl CpuAccount {
    pub(crate) fn new(limit: CpuLimit, period: Duration, now: Instant, parent: Option<Arc<Self>>) -> Self {
        let quota = limit.quota_millicores.map(|millicores| Box::new(Mutex::new(Bucket::new(millicores, period, now))));
        let share = Share::new(limit.weight_millicores, parent.as_ref().map(|parent| parent.share.clone()));
        Self {
            parent,
            used_ns: AtomicU64::new(0),
            waits: OnceLock::new(),
            quota: quota.map_or_else(OnceLock::new, OnceLock::from),
            period,
            share: Arc::new(share),
        }
    }

    /// Changes quota and weight from now on. What was earned so far stays, as far as it fits.
    pub(crate) fn resize(&self, limit: CpuLimit, now: Instant) {
        self.share.set_weight(limit.weight_millicores);
        match (self.quota.get(), limit.quota_millicores) {
            (Some(bucket), millicores) => bucket.lock().resize(millicores.unwrap_or(NO_QUOTA), self.period, now),
            (None, Some(millicores)) => {
                self.quota.get_or_init(|| Box::new(Mutex::new(Bucket::new(millicores, self.period, now))));
            }
            (None, None) => {}
        }
    }

    /// Its part of a busy node.
    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Books CPU time. Returns whether the quota is used up.
    pub(crate) fn charge(&self, ns: u64, now: impl Fn() -> Instant + Copy) -> bool {
        self.used_ns.fetch_add(ns, Ordering::Relaxed);
        let parent = self.parent.as_ref().is_some_and(|parent| parent.charge(ns, now));
        let Some(quota) = self.quota.get() else { return parent };
        let mut bucket = quota.lock();
        bucket.fill(now());
        bucket.take(ns);
        bucket.level_ps <= 0 || parent
    }

    /// How long the container has to wait before it may run; `None`: it may run now.
    pub(crate) fn wait(&self, now: Instant, waited: bool) -> Option<Duration> {
        let parent = self.parent.as_ref().and_then(|parent| parent.wait(now, waited));
        let own = self.quota.get().and_then(|quota| {
            let mut bucket = quota.lock();
            bucket.fill(now);
            bucket.wait(waited)
        });
        parent.max(own)
    }

    /// An instance begins to wait. To be followed by [`CpuAccount::resumed`].
    pub(crate) fn paused(&self, now: Instant) {
        let mut waits = self.waits.get_or_init(Box::default).lock();
        waits.waiting += 1;
        waits.since.get_or_insert(now);
    }

    /// An instance waits no longer.
    pub(crate) fn resumed(&self, since: Instant, now: Instant) {
        if let Some(waits) = self.waits.get() {
            let mut waits = waits.lock();
            waits.waiting = waits.waiting.saturating_sub(1);
            if waits.waiting == 0
                && let Some(since) = waits.since.take()
            {
                waits.total += now.saturating_duration_since(since);
            }
        }
        if let Some(quota) = self.quota.get() {
            quota.lock().periods.throttled(since, now);
        }
    }

    /// The account above, when it has used up its quota: it waits as well then.
    pub(crate) fn exhausted_parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref().filter(|parent| {
            let level = parent.quota.get().map(|quota| quota.lock().level_ps);
            level.is_some_and(|level| level < RESUME_PS)
        })
    }

    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn throttling(&self) -> Throttling {
        let time = self.waits.get().map_or(Duration::ZERO, |waits| {
            let waits = waits.lock();
            waits.total + waits.since.map_or(Duration::ZERO, |since| since.elapsed())
        });
        let Some(quota) = self.quota.get() else { return Throttling { time, ..Throttling::default() } };
        let periods = &quota.lock().periods;
        Throttling { periods: periods.active.total, periods_throttled: periods.throttled.total, time }
    }
}

impl Bucket {
    fn new(millicores: u32, period: Duration, now: Instant) -> Self {
        let rate_millis = i64::from(millicores.max(1));
        let capacity_ps = Self::capacity_ps(rate_millis, period);
        let periods = Periods {
            start: now,
            length: period.max(Duration::from_millis(1)),
            active: Count::default(),
            throttled: Count::default(),
        };
        Self { rate_millis, capacity_ps, level_ps: capacity_ps, filled_at: now, periods }
    }

    /// Twice at least: what is earned while the first millisecond is spent must not run over.
    fn capacity_ps(rate_millis: i64, period: Duration) -> i64 {
        nanos(period).saturating_mul(rate_millis).max(2 * RESUME_PS)
    }

    fn resize(&mut self, millicores: u32, period: Duration, now: Instant) {
        self.fill(now);
        self.rate_millis = i64::from(millicores.max(1));
        self.capacity_ps = Self::capacity_ps(self.rate_millis, period);
        self.level_ps = self.level_ps.min(self.capacity_ps);
    }

    fn fill(&mut self, now: Instant) {
        let earned_ps = nanos(now.saturating_duration_since(self.filled_at)).saturating_mul(self.rate_millis);
        self.level_ps = self.level_ps.saturating_add(earned_ps).min(self.capacity_ps);
        self.filled_at = now.max(self.filled_at);
    }

    fn take(&mut self, ns: u64) {
        let ps = i64::try_from(ns).unwrap_or(i64::MAX).saturating_mul(PS_PER_NS);
        self.level_ps = self.level_ps.saturating_sub(ps);
        let now = self.filled_at;
        self.periods.active(now, now);
    }

    /// Whoever waits already goes on only with a millisecond in hand, so that throttled guests do not flutter.
    fn wait(&self, waited: bool) -> Option<Duration> {
        let enough = if waited { RESUME_PS } else { 1 };
        if self.level_ps >= enough {
            return None;
        }
        let missing = RESUME_PS.saturating_sub(self.level_ps);
        let ns = missing / self.rate_millis + 1;
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(1)))
    }
}

impl Periods {
    fn number(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.start).as_nanos();
        u64::try_from(passed / self.length.as_nanos()).unwrap_or(u64::MAX - 1)
    }

    fn active(&mut self, from: Instant, to: Instant) {
        let (from, to) = (self.number(from), self.number(to));
        self.active.add(from, to);
    }

    fn throttled(&mut self, from: Instant, to: Instant) {
        self.active(from, to);
        let (from, to) = (self.number(from), self.number(to));
        self.throttled.add(from, to);
    }
}

impl Count {
    fn add(&mut self, from: u64, to: u64) {
        let from = from.max(self.next);
        if to >= from {
            self.total += to - from + 1;
            self.next = to + 1;
        }
    }
}

fn nanos(time: Duration) -> i64 {
    // A year in picoseconds of a thousand cores does not fit; whoever idles longer has a full bucket anyway.
    const MAX: i64 = i64::MAX / 1_000_000;
    i64::try_from(time.as_nanos()).unwrap_or(MAX).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const PERIOD: Duration = Duration::from_millis(40);

    fn account(millicores: u32, start: Instant) -> CpuAccount {
        let limit = CpuLimit { quota_millicores: Some(millicores), weight_millicores: 100 };
        CpuAccount::new(limit, PERIOD, start, None)
    }

    /// Runs guests that always want CPU, `step` at a time each on a core of its own, and returns what they got, less
    /// what was in the bucket at the start.
    fn spin(account: &CpuAccount, start: Instant, cores: u64, step: Duration, wall: Duration) -> Duration {
        let mut now = start;
        let mut waited = false;
        while now < start + wall {
            if let Some(wait) = account.wait(now, waited) {
                now += wait;
                waited = true;
                continue;
            }
            waited = false;
            now += step;
            for _ in 0..cores {
                account.charge(u64::try_from(step.as_nanos()).unwrap(), || now);
            }
        }
        account.used()
    }

    #[test]
    fn a_spinner_gets_its_quota() {
        let steps = [Duration::from_micros(300), Duration::from_millis(1), Duration::from_millis(7)];
        for millicores in [1, 2, 5, 10, 33, 100, 250, 500, 999, 1000, 1500, 2000] {
            for step in steps {
                let start = Instant::now();
                let account = account(millicores, start);
                let cores = u64::from(millicores.div_ceil(1000));
                let wall = Duration::from_secs(2000) / millicores.min(100);
                let got = spin(&account, start, cores, step, wall).as_secs_f64();
                let wanted = wall.as_secs_f64() * f64::from(millicores) / 1000.0;
                // Once, not each period: what is in the bucket at the start, and what runs when it ends.
                let edges = f64::from(millicores) * 40e-6 + 0.003 + step.as_secs_f64() * 2.0;
                assert!((got - wanted).abs() <= edges, "{millicores}m in steps of {step:?}: {got} s, wanted {wanted}");
            }
        }
    }

    #[test]
    fn filling_often_loses_nothing() {
        let start = Instant::now();
        let account = account(1, start);
        account.charge(3 * MS, || start);
        // A millicore earns a thousandth of a nanosecond in each of these steps.
        let mut now = start;
        for _ in 0..1_000_000 {
            now += Duration::from_nanos(1);
            account.wait(now, true);
        }
        let level = account.quota.get().unwrap().lock().level_ps;
        assert_eq!(level, -1_000_000_000 + 1_000_000, "two milliseconds were saved up");
    }

    #[test]
    fn a_quota_may_change_while_it_is_used() {
        let start = Instant::now();
        let account = account(250, start);
        let limit = |quota_millicores| CpuLimit { quota_millicores, weight_millicores: 7 };
        account.resize(limit(Some(100)), start);
        assert!(account.charge(5 * MS, || start), "a period's worth is 4 ms by now");
        account.resize(limit(None), start);
        let later = start + Duration::from_millis(1);
        assert_eq!((account.wait(later, true), account.share.weight()), (None, 7));
        let free = CpuAccount::new(limit(None), PERIOD, start, None);
        free.resize(limit(Some(100)), start);
        assert!(free.charge(5 * MS, || start));
    }

    #[test]
    fn idling_saves_up_one_period_at_most() {
        let start = Instant::now();
        let account = account(250, start);
        let later = start + Duration::from_secs(60);
        assert!(!account.charge(9 * MS, || later), "a period's worth is 10 ms");
        assert!(account.charge(2 * MS, || later));
        let wait = account.wait(later, true).expect("must wait");
        assert_eq!(wait.as_millis(), 8, "2 ms of CPU at a quarter of a core");
    }

    #[test]
    fn no_quota_never_waits() {
        let limit = CpuLimit { quota_millicores: None, weight_millicores: 100 };
        let account = CpuAccount::new(limit, PERIOD, Instant::now(), None);
        assert!(!account.charge(u64::MAX / 4, Instant::now));
        assert_eq!(account.wait(Instant::now(), false), None);
    }

    #[test]
    fn a_group_holds_its_containers_together() {
        let start = Instant::now();
        let group = Arc::new(account(100, start));
        let free = CpuLimit { quota_millicores: None, weight_millicores: 100 };
        let [one, two] = [(); 2].map(|()| CpuAccount::new(free, PERIOD, start, Some(group.clone())));
        assert!(!one.charge(3 * MS, || start));
        assert!(two.charge(3 * MS, || start), "together they have used the group's 4 ms");
        assert!(one.wait(start, false).is_some() && one.exhausted_parent().is_some());
        assert_eq!((one.used(), group.used()), (Duration::from_millis(3), Duration::from_millis(6)));
        let earned = start + Duration::from_millis(30);
        assert_eq!((one.wait(earned, true), two.wait(earned, true)), (None, None));
    }

    #[test]
    fn periods_are_counted_as_a_cgroup_counts_them() {
        let start = Instant::now();
        let account = account(10, start);
        let at = |millis| start + Duration::from_millis(millis);
        for millis in [1, 5, 45] {
            account.charge(MS / 10, || at(millis));
        }
        let seen = |account: &CpuAccount| {
            let seen = account.throttling();
            (seen.periods, seen.periods_throttled, seen.time.as_millis())
        };
        assert_eq!(seen(&account), (2, 0, 0));
        // Two instances wait at the same time, from the second period to the fifth.
        account.paused(at(50));
        account.paused(at(60));
        account.resumed(at(50), at(170));
        account.resumed(at(60), at(180));
        assert_eq!(seen(&account), (5, 4, 130));
        // Idle ones do not count.
        account.charge(MS, || at(1000));
        assert_eq!(seen(&account), (6, 4, 130));
    }
}

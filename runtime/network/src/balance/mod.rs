//! Which endpoint gets the next request or connection: the better of two random ones by peak-EWMA latency times requests
//! under way; those that keep failing are passed over for a while, new ones are begun slowly where that is asked for.
//!
//! All times are handed in, so that everything here can be simulated.
//!
//! # Source
//! Finagle's `P2C` and `PeakEwma`, as in tower's `balance` and `load` modules; Envoy's outlier detection (ejection times
//! that grow, a bounded share) and slow start (linear).

pub(crate) mod affinity;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod settings;
#[cfg(test)]
mod sim;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, RngExt as _};
use tokio::time::Instant;

use self::settings::Outliers;
use crate::tunnel::line::Reach;

/// Latency assumed of an endpoint that has not answered yet.
const FIRST_GUESS: Duration = Duration::from_millis(1);
/// Latencies below are as good as each other: what a first request or a busy processor adds to so short a time says nothing
/// of an endpoint, and must not keep it from its share.
const ALIKE: Duration = Duration::from_millis(2);
/// How fast old latencies are forgotten.
const DECAY: Duration = Duration::from_secs(10);
/// The least share that a new endpoint has of what an old one has.
const FIRST_SHARE: f64 = 0.1;
/// Random endpoints that are looked at before all are.
const LOOKS: usize = 4;

/// A moment, in nanoseconds since the process looked at the clock first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    pub(crate) fn now() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        Self(nanos(START.get_or_init(Instant::now).elapsed()))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// One endpoint of a Service's port, with what is known of it. Survives changes of the slice it came from.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    under_way: AtomicU32,
    /// Peak-EWMA of the latency in nanoseconds.
    latency_nanos: AtomicU64,
    updated: AtomicU64,
    born: Moment,
    /// Whether it is begun slowly: it came to others.
    joined: AtomicBool,
    /// One after the other, without an answer between.
    failures: AtomicU32,
    /// Until then it is passed over.
    ejected_until: AtomicU64,
    /// How often it was ejected of late.
    ejections: AtomicU32,
    /// Whether its node can be reached, when that is another.
    pub(crate) reach: OnceLock<Arc<Reach>>,
    /// Whether it is a socket that listens, when that has been asked of another node.
    pub(crate) is_socket: OnceLock<bool>,
}

/// How something ended for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered.
    Answered,
    /// It did not, or said that it could not.
    Failed,
    /// Nothing can be said: the caller went away.
    Unknown,
}

impl Endpoint {
    /// `joined`: others were there before it.
    pub(crate) fn new(address: SocketAddr, joined: bool, now: Moment) -> Self {
        Self {
            address,
            under_way: AtomicU32::new(0),
            latency_nanos: AtomicU64::new(nanos(FIRST_GUESS)),
            updated: AtomicU64::new(now.0),
            born: now,
            joined: AtomicBool::new(joined),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            reach: OnceLock::new(),
            is_socket: OnceLock::new(),
        }
    }

    /// Counts a request until the returned guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, now: Moment) -> Load {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Load { endpoint: self.clone(), since: now }
    }

    /// Counts a connection until the returned guard is dropped. How long it lasts says nothing of the endpoint.
    pub(crate) fn hold(self: &Arc<Self>) -> Open {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    pub(crate) fn is_ejected(&self, now: Moment) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now.0 || self.reach.get().is_some_and(|reach| reach.is_lost())
    }

    /// What is under way, the latency, failures in a row, and until when it is passed over.
    pub(crate) fn figures(&self) -> (u32, Duration, u32, Moment) {
        let latency = Duration::from_nanos(self.latency_nanos.load(Ordering::Relaxed));
        let ejected_until = Moment(self.ejected_until.load(Ordering::Relaxed));
        (self.under_way.load(Ordering::Relaxed), latency, self.failures.load(Ordering::Relaxed), ejected_until)
    }

    /// One that has nothing to do is asked again some time, however slow it was; one request is enough to find out.
    fn cost(&self, slow_start: Duration, now: Moment) -> f64 {
        let (latency, alike) = (self.latency_nanos.load(Ordering::Relaxed) as f64, nanos(ALIKE) as f64);
        let load = match self.under_way.load(Ordering::Relaxed) {
            0 => (latency * kept(now.0.saturating_sub(self.updated.load(Ordering::Relaxed)))).max(alike),
            under_way => latency.max(alike) * f64::from(under_way + 1),
        };
        load / self.share(slow_start, now)
    }

    /// What it is to have of what an old one has.
    fn share(&self, slow_start: Duration, now: Moment) -> f64 {
        if slow_start.is_zero() || !self.joined.load(Ordering::Relaxed) {
            return 1.0;
        }
        let age = now.since(self.born);
        if age >= slow_start {
            self.joined.store(false, Ordering::Relaxed);
            return 1.0;
        }
        (age.as_secs_f64() / slow_start.as_secs_f64()).max(FIRST_SHARE)
    }

    /// Takes in how something ended. Returns whether it failed so often that it is to be passed over.
    fn take_in(&self, outcome: Outcome, latency: Duration, now: Moment, outliers: &Outliers) -> bool {
        let elapsed = now.0.saturating_sub(self.updated.load(Ordering::Relaxed));
        let old = self.latency_nanos.load(Ordering::Relaxed);
        // To fail fast is no merit.
        if outcome != Outcome::Failed || nanos(latency) > old {
            self.updated.store(now.0, Ordering::Relaxed);
            self.latency_nanos.store(peak_ewma(old, nanos(latency), elapsed), Ordering::Relaxed);
        }
        match outcome {
            Outcome::Unknown => false,
            Outcome::Answered => {
                if self.failures.swap(0, Ordering::Relaxed) > 0 || self.ejections.load(Ordering::Relaxed) > 0 {
                    self.forgive(now, outliers);
                }
                false
            }
            Outcome::Failed => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                outliers.failures_max > 0 && failures >= outliers.failures_max && !self.is_ejected(now)
            }
        }
    }

    /// One that has answered for long enough since it came back is as good as any.
    fn forgive(&self, now: Moment, outliers: &Outliers) {
        let back = Moment(self.ejected_until.load(Ordering::Relaxed));
        if now.since(back) >= outliers.ejection && now > back {
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// Passes it over, longer each time. When it comes back, one more failure is enough.
    fn eject(&self, now: Moment, outliers: &Outliers) {
        let times = self.ejections.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let time = outliers.ejection.saturating_mul(times).min(outliers.ejection_max);
        self.ejected_until.store(now.after(time).0, Ordering::Relaxed);
        self.failures.store(outliers.failures_max.saturating_sub(1), Ordering::Relaxed);
    }
}

/// A slower answer counts at once, a faster one gradually.
fn peak_ewma(old_nanos: u64, new_nanos: u64, elapsed_nanos: u64) -> u64 {
    if new_nanos > old_nanos {
        return new_nanos;
    }
    let keep = kept(elapsed_nanos);
    (old_nanos as f64 * keep + new_nanos as f64 * (1.0 - keep)) as u64
}

/// What of an old latency counts after so long.
fn kept(elapsed_nanos: u64) -> f64 {
    (-(elapsed_nanos as f64) / nanos(DECAY) as f64).exp()
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// A request counted against its endpoint.
pub(crate) struct Load {
    endpoint: Arc<Endpoint>,
    since: Moment,
}

impl Load {
    /// The request is over. Passes the endpoint over for a while when it has failed too often and enough others of
    /// `all` are left; returns whether it did.
    pub(crate) fn end(self, outcome: Outcome, all: &[Arc<Endpoint>], outliers: &Outliers, now: Moment) -> bool {
        let latency = now.since(self.since);
        let eject = self.endpoint.take_in(outcome, latency, now, outliers) && room_to_eject(all, outliers, now);
        if eject {
            self.endpoint.eject(now, outliers);
        }
        eject
    }
}

fn room_to_eject(all: &[Arc<Endpoint>], outliers: &Outliers, now: Moment) -> bool {
    let ejected = all.iter().filter(|endpoint| endpoint.is_ejected(now)).count();
    (ejected + 1) * 100 <= all.len() * usize::from(outliers.share_max_percent.min(100)) && ejected + 1 < all.len()
}

impl Drop for Load {
    fn drop(&mut self) {
        self.endpoint.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection counted against its endpoint.
pub(crate) struct Open(Arc<Endpoint>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who is to choose, and when.
pub(crate) struct Chooser<'a, R> {
    pub(crate) slow_start: Duration,
    pub(crate) now: Moment,
    pub(crate) rng: &'a mut R,
}

impl<R: Rng> Chooser<'_, R> {
    /// Picks one of `endpoints` that is not in `tried`; `None` when all are. Those that are passed over get something only
    /// when nobody else is left.
    pub(crate) fn pick(&mut self, endpoints: &[Arc<Endpoint>], tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        let now = self.now;
        let fine = |e: &&Arc<Endpoint>| !e.is_ejected(now) && !tried.contains(&e.address);
        match endpoints {
            [] => None,
            [only] => Some(only).filter(|e| !tried.contains(&e.address)).cloned(),
            _ => {
                if tried.is_empty()
                    && let Some(found) = self.two_random(endpoints)
                {
                    return Some(found);
                }
                let best = endpoints.iter().filter(fine).reduce(|a, b| self.better(a, b));
                let any = || endpoints.iter().find(|e| !tried.contains(&e.address));
                best.or_else(any).cloned()
            }
        }
    }

    /// The better of two random ones that are not passed over; `None` when no two are found soon.
    fn two_random(&mut self, endpoints: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        for _ in 0..LOOKS {
            let a = self.rng.random_range(0..endpoints.len());
            let b = (a + self.rng.random_range(1..endpoints.len())) % endpoints.len();
            let (a, b) = (&endpoints[a], &endpoints[b]);
            match (a.is_ejected(self.now), b.is_ejected(self.now)) {
                (false, false) => return Some(self.better(a, b).clone()),
                (false, true) => return Some(a.clone()),
                (true, false) => return Some(b.clone()),
                (true, true) => {}
            }
        }
        None
    }

    fn better<'e>(&self, a: &'e Arc<Endpoint>, b: &'e Arc<Endpoint>) -> &'e Arc<Endpoint> {
        if b.cost(self.slow_start, self.now) < a.cost(self.slow_start, self.now) { b } else { a }
    }
}

#[cfg(test)]
mod tests;

//! Which endpoint gets the next request: the better of two random ones by peak-EWMA latency times requests under way.
//!
//! # Source
//! Finagle's `P2C` and `PeakEwma`, as in tower's `balance` and `load` modules; written here without tower's `&mut`
//! readiness protocol, since one endpoint answers many requests at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::RngExt as _;

/// Latency assumed of an endpoint that has not answered yet.
const FIRST_GUESS: Duration = Duration::from_millis(1);
/// How fast old latencies are forgotten.
const DECAY: Duration = Duration::from_secs(10);

/// One endpoint of a Service's port, with what is known of its load. Survives changes of the slice it came from.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    under_way: AtomicU32,
    /// Peak-EWMA of the latency in nanoseconds.
    latency_nanos: AtomicU64,
    /// When it was last updated, in nanoseconds since `born`.
    updated_nanos: AtomicU64,
    born: Instant,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            under_way: AtomicU32::new(0),
            latency_nanos: AtomicU64::new(nanos(FIRST_GUESS)),
            updated_nanos: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    /// Counts a request until the returned guard is dropped, when its latency is taken in.
    pub(crate) fn begin(self: &Arc<Self>) -> Load {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Load { endpoint: self.clone(), since: Instant::now() }
    }

    /// Counts a connection until the returned guard is dropped. How long it lasts says nothing of the endpoint.
    pub(crate) fn hold(self: &Arc<Self>) -> Open {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    fn cost(&self) -> f64 {
        self.latency_nanos.load(Ordering::Relaxed) as f64 * f64::from(self.under_way.load(Ordering::Relaxed) + 1)
    }

    fn observe(&self, latency: Duration) {
        let now = nanos(self.born.elapsed());
        let elapsed = now.saturating_sub(self.updated_nanos.swap(now, Ordering::Relaxed));
        let old = self.latency_nanos.load(Ordering::Relaxed);
        self.latency_nanos.store(peak_ewma(old, nanos(latency), elapsed), Ordering::Relaxed);
    }
}

/// A slower answer counts at once, a faster one gradually.
fn peak_ewma(old_nanos: u64, new_nanos: u64, elapsed_nanos: u64) -> u64 {
    if new_nanos > old_nanos {
        return new_nanos;
    }
    let keep = (-(elapsed_nanos as f64) / nanos(DECAY) as f64).exp();
    (old_nanos as f64 * keep + new_nanos as f64 * (1.0 - keep)) as u64
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// A request counted against its endpoint.
pub(crate) struct Load {
    endpoint: Arc<Endpoint>,
    since: Instant,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.endpoint.under_way.fetch_sub(1, Ordering::Relaxed);
        self.endpoint.observe(self.since.elapsed());
    }
}

/// A connection counted against its endpoint.
pub(crate) struct Open(Arc<Endpoint>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Picks an index of `endpoints` that is not in `tried`; `None` when all are.
pub(crate) fn pick(endpoints: &[Arc<Endpoint>], tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
    let free = |e: &&Arc<Endpoint>| !tried.contains(&e.address);
    match endpoints {
        [] => None,
        [only] => Some(only).filter(free).cloned(),
        _ if tried.is_empty() => {
            let mut rng = rand::rng();
            let a = rng.random_range(0..endpoints.len());
            let b = (a + rng.random_range(1..endpoints.len())) % endpoints.len();
            Some(better(&endpoints[a], &endpoints[b]).clone())
        }
        _ => endpoints.iter().filter(free).reduce(better).cloned(),
    }
}

fn better<'a>(a: &'a Arc<Endpoint>, b: &'a Arc<Endpoint>) -> &'a Arc<Endpoint> {
    if b.cost() < a.cost() { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(n: u16) -> Vec<Arc<Endpoint>> {
        (0..n).map(|i| Arc::new(Endpoint::new(([10, 0, 0, 1], 1000 + i).into()))).collect()
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_gradually() {
        let second = 1_000_000_000;
        assert_eq!(peak_ewma(1_000, 9_000, 1), 9_000);
        assert_eq!(peak_ewma(9_000, 1_000, 0), 9_000);
        let faded = peak_ewma(9_000, 1_000, 10 * second);
        assert!((3_900..4_000).contains(&faded), "{faded}");
        assert!(peak_ewma(9_000, 1_000, 1_000 * second) <= 1_001);
    }

    #[test]
    fn the_less_loaded_is_picked() {
        let all = endpoints(2);
        let _busy: Vec<_> = (0..5).map(|_| all[0].begin()).collect();
        for _ in 0..20 {
            assert_eq!(pick(&all, &[]).unwrap().address, all[1].address);
        }
    }

    #[test]
    fn what_was_tried_is_not_picked_again() {
        let all = endpoints(3);
        let tried = [all[0].address, all[2].address];
        assert_eq!(pick(&all, &tried).unwrap().address, all[1].address);
        assert!(pick(&all, &[all[0].address, all[1].address, all[2].address]).is_none());
        assert!(pick(&[], &[]).is_none());
    }

    #[test]
    fn idle_endpoints_share_evenly() {
        let all = endpoints(4);
        let mut counts = [0u32; 4];
        for _ in 0..4_000 {
            let picked = pick(&all, &[]).unwrap();
            counts[usize::from(picked.address.port() - 1000)] += 1;
        }
        assert!(counts.iter().all(|c| (700..1300).contains(c)), "{counts:?}");
    }
}

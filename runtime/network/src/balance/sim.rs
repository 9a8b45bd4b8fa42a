//! Endpoints that come, go, slow down and fail, seen by many requests: with a virtual clock and seeded chance. A failure
//! prints its seed.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use rand::{SeedableRng as _, rngs::StdRng};

use super::{settings::Settings, *};

const MS: u64 = 1_000_000;

/// What one endpoint does.
#[derive(Clone, Copy)]
struct Server {
    latency_ms: u64,
    fails: bool,
}

struct World {
    rng: StdRng,
    now: Moment,
    settings: Settings,
    all: Vec<Arc<Endpoint>>,
    servers: HashMap<u16, Server>,
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    under_way: HashMap<u64, (Load, u16)>,
    next: u64,
    /// Requests that each endpoint got, and those that failed, since they were last looked at.
    got: HashMap<u16, u32>,
    failed: u32,
    latencies_ms: Vec<u64>,
}

impl World {
    fn new(seed: u64, servers: &[(u16, u64)]) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: Moment(0),
            settings: Settings::default(),
            all: Vec::new(),
            servers: HashMap::new(),
            ends: BinaryHeap::new(),
            under_way: HashMap::new(),
            next: 0,
            got: HashMap::new(),
            failed: 0,
            latencies_ms: Vec::new(),
        };
        for (port, latency_ms) in servers {
            world.add(*port, *latency_ms, false);
        }
        world
    }

    fn add(&mut self, port: u16, latency_ms: u64, joined: bool) {
        self.all.push(Arc::new(Endpoint::new(([10, 0, 0, 1], port).into(), joined, self.now)));
        self.servers.insert(port, Server { latency_ms, fails: false });
    }

    fn remove(&mut self, port: u16) {
        self.all.retain(|endpoint| endpoint.address.port() != port);
    }

    fn set(&mut self, port: u16, change: impl FnOnce(&mut Server)) {
        change(self.servers.get_mut(&port).unwrap());
    }

    /// Sends a request each millisecond for so long.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.finish_until(self.now.after(Duration::from_millis(1)));
            self.send();
        }
    }

    fn send(&mut self) {
        let mut chooser = Chooser { slow_start: self.settings.slow_start, now: self.now, rng: &mut self.rng };
        let endpoint = chooser.pick(&self.all, &[]).unwrap();
        let port = endpoint.address.port();
        assert!(self.all.iter().any(|e| e.address.port() == port), "only who is there gets anything");
        let server = self.servers[&port];
        // What is under way at an endpoint slows it down.
        let slowed = server.latency_ms * (1 + u64::from(endpoint.under_way.load(Ordering::Relaxed)) / 4);
        let latency_ms = if server.fails { 0 } else { slowed };
        self.next += 1;
        self.under_way.insert(self.next, (endpoint.begin(self.now), port));
        self.ends.push(Reverse((self.now.0 + latency_ms * MS, self.next)));
        *self.got.entry(port).or_default() += 1;
        self.latencies_ms.push(latency_ms);
    }

    fn finish_until(&mut self, until: Moment) {
        while let Some(Reverse((at, id))) = self.ends.peek().copied().filter(|Reverse((at, _))| *at <= until.0) {
            self.ends.pop();
            self.now = Moment(at.max(self.now.0));
            let (load, port) = self.under_way.remove(&id).unwrap();
            let outcome = if self.servers[&port].fails { Outcome::Failed } else { Outcome::Answered };
            self.failed += u32::from(outcome == Outcome::Failed);
            load.end(outcome, &self.all, &self.settings.outliers, self.now);
            let ejected = self.all.iter().filter(|e| e.is_ejected(self.now)).count();
            assert!(ejected * 2 <= self.all.len().max(1) + 1, "{ejected} of {} are passed over", self.all.len());
        }
        self.now = until;
    }

    fn shares(&mut self) -> HashMap<u16, f64> {
        let total: u32 = self.got.values().sum();
        self.failed = 0;
        self.got.drain().map(|(port, got)| (port, f64::from(got) / f64::from(total))).collect()
    }
}

fn each_seed(check: impl Fn(u64)) {
    for seed in 0..5 {
        eprintln!("seed {seed}");
        check(seed);
    }
}

#[test]
fn a_slow_endpoint_gets_less() {
    each_seed(|seed| {
        let mut world = World::new(seed, &[(1, 5), (2, 5), (3, 5), (4, 50)]);
        world.run(1_000);
        world.shares();
        world.run(4_000);
        let shares = world.shares();
        let slow = shares.get(&4).copied().unwrap_or_default();
        assert!(slow < 0.1, "seed {seed}: {shares:?}");
        assert!((1..4).all(|port| shares[&port] > 0.2), "seed {seed}: {shares:?}");
    });
}

#[test]
fn one_that_slows_down_is_left_and_found_again() {
    each_seed(|seed| {
        let mut world = World::new(seed, &[(1, 5), (2, 5), (3, 5)]);
        world.run(1_000);
        world.set(2, |server| server.latency_ms = 100);
        world.run(500);
        world.shares();
        world.run(3_000);
        let while_slow = world.shares().get(&2).copied().unwrap_or_default();
        world.set(2, |server| server.latency_ms = 5);
        world.run(60_000);
        world.shares();
        world.run(3_000);
        let after = world.shares().get(&2).copied().unwrap_or_default();
        assert!(while_slow < 0.1 && after > 0.2, "seed {seed}: {while_slow} {after}");
    });
}

#[test]
fn one_that_fails_is_passed_over_and_comes_back() {
    each_seed(|seed| {
        let mut world = World::new(seed, &[(1, 5), (2, 5), (3, 5), (4, 5)]);
        world.run(1_000);
        world.set(3, |server| server.fails = true);
        world.shares();
        world.run(60_000);
        let failed = world.failed;
        assert!(failed < 60, "seed {seed}: {failed} of 60000 failed");
        world.set(3, |server| server.fails = false);
        world.run(120_000);
        world.shares();
        world.run(5_000);
        let back = world.shares().get(&3).copied().unwrap_or_default();
        assert!(back > 0.15, "seed {seed}: {back}");
    });
}

#[test]
fn all_fail_and_nobody_is_left_out_of_reach() {
    each_seed(|seed| {
        let mut world = World::new(seed, &[(1, 5), (2, 5), (3, 5), (4, 5)]);
        (1..5).for_each(|port| world.set(port, |server| server.fails = true));
        world.run(5_000);
        assert_eq!(world.shares().len(), 4, "seed {seed}");
        (1..5).for_each(|port| world.set(port, |server| server.fails = false));
        world.run(120_000);
        world.shares();
        world.run(5_000);
        let shares = world.shares();
        assert!((1..5).all(|port| shares[&port] > 0.15), "seed {seed}: {shares:?}");
    });
}

#[test]
fn endpoints_roll_one_by_one() {
    each_seed(|seed| {
        let mut world = World::new(seed, &[(1, 5), (2, 5), (3, 5), (4, 5)]);
        world.settings.slow_start = Duration::from_secs(2);
        for port in 1..=20 {
            world.run(500);
            world.add(port + 4, 5, true);
            world.shares();
            world.run(200);
            let first = world.shares().get(&(port + 4)).copied().unwrap_or_default();
            assert!(first < 0.12, "seed {seed}: it is begun slowly: {first}");
            world.run(300);
            world.remove(port);
        }
        world.run(5_000);
        world.shares();
        world.run(5_000);
        let shares = world.shares();
        assert_eq!(shares.len(), 4, "seed {seed}");
        assert!(shares.values().all(|share| (0.15..0.35).contains(share)), "seed {seed}: {shares:?}");
        world.finish_until(world.now.after(Duration::from_secs(10)));
        let left: u32 = world.all.iter().map(|e| e.under_way.load(Ordering::Relaxed)).sum();
        assert_eq!((left, world.under_way.len()), (0, 0), "seed {seed}: all that began has ended");
    });
}

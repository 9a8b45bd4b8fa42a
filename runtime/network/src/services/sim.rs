//! Services, slices and nodes that come, go and change in any order, seen by clients that have requests under way: after
//! each step the table says what a naive look at everything says. With seeded chance; a failure prints its seed.

use std::collections::BTreeSet;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;
use crate::table::{Endpoint as Listed, Place, ServicePort};

const SEEDS: u64 = 40;
const STEPS: usize = 300;
const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

#[derive(Default)]
struct World {
    table: Services,
    metrics: Metrics,
    services: BTreeMap<Name, Service>,
    slices: BTreeMap<Name, Slice>,
    /// Requests under way: at which endpoint of a Service.
    under_way: Vec<(Name, SocketAddr, crate::balance::Load)>,
}

fn name(of: &str) -> Name {
    Name::new("default", of)
}

fn pod(number: u8) -> IpAddr {
    IpAddr::from([10, 244, 0, number])
}

fn random_service(of: &str, rng: &mut StdRng) -> Service {
    let place = SERVICES.iter().position(|known| *known == of).unwrap() as u16;
    let port = |name: &str, protocol, port, node_port| ServicePort { name: name.into(), protocol, port, node_port };
    let mut ports = vec![port("http", Protocol::Tcp, 80, rng.random_bool(0.5).then_some(30_000 + place))];
    if rng.random_bool(0.5) {
        ports.push(port("dns", Protocol::Udp, 53, rng.random_bool(0.5).then_some(30_000 + place)));
    }
    // Two may have the same address for a while: one that goes is heard of late.
    let cluster_ip = rng.random_bool(0.8).then(|| IpAddr::from([10, 96, 0, rng.random_range(1..5)]));
    let reached_at = (0..rng.random_range(0..3)).map(|_| IpAddr::from([198, 51, 100, rng.random_range(1..4)]));
    let traffic = Traffic { reached_at: reached_at.collect(), ..Traffic::default() };
    Service { name: name(of), cluster_ip, ports, external_name: None, traffic }
}

fn random_slice(of: Name, rng: &mut StdRng) -> Slice {
    let pods: BTreeSet<u8> = (0..rng.random_range(0..5)).map(|_| rng.random_range(1..9)).collect();
    let endpoint = |number: &u8| Listed {
        ip: pod(*number),
        hostname: None,
        ready: rng.random_bool(0.6),
        serving: rng.random_bool(0.7),
        terminating: rng.random_bool(0.3),
        place: Place::default(),
    };
    let endpoints = pods.iter().map(endpoint).collect();
    let service = (*SERVICES.choose(rng).unwrap()).to_owned();
    Slice { name: of, service, ports: vec![("http".into(), 8080), ("dns".into(), 5353)], endpoints }
}

impl World {
    fn step(&mut self, rng: &mut StdRng) {
        let slice = name(&format!("s{}", rng.random_range(0..6)));
        let service = *SERVICES.choose(rng).unwrap();
        match rng.random_range(0..10) {
            0..3 => {
                let new = random_service(service, rng);
                self.services.insert(new.name.clone(), new.clone());
                self.table.put(new, &self.metrics);
            }
            3 => {
                self.services.remove(&name(service));
                self.table.remove(&name(service));
            }
            4..7 => {
                let new = random_slice(slice, rng);
                self.slices.insert(new.name.clone(), new.clone());
                self.table.put_slice(new);
            }
            7 => {
                self.slices.remove(&slice);
                self.table.remove_slice(&slice);
            }
            8 => self.begin(&name(service)),
            _ => drop(self.under_way.pop()),
        }
    }

    /// A request to the first endpoint, whichever that is.
    fn begin(&mut self, service: &Name) {
        let Lookup::Found(port) = self.table.port(service, 80, Protocol::Tcp) else { return };
        if let Some(endpoint) = port.endpoints.first() {
            self.under_way.push((service.clone(), endpoint.address, endpoint.begin(Moment(0))));
        }
    }

    /// The pods that a Service's slices list: those that are ready, else those that end and still answer.
    fn expected(&self, service: &Name, number: u16) -> Vec<SocketAddr> {
        let of = |slice: &&Slice| Name::new(slice.name.namespace.as_str(), slice.service.as_str()) == *service;
        let listed: Vec<_> = self.slices.values().filter(of).flat_map(|slice| &slice.endpoints).collect();
        let any_ready = listed.iter().any(|endpoint| endpoint.ready);
        let sent_to = |e: &&&Listed| if any_ready { e.ready } else { e.serving && e.terminating };
        let all: BTreeSet<_> = listed.iter().filter(sent_to).map(|e| SocketAddr::new(e.ip, number)).collect();
        all.into_iter().collect()
    }

    fn check(&self) {
        for service in SERVICES.map(name) {
            for (number, protocol, target) in [(80, Protocol::Tcp, 8080), (53, Protocol::Udp, 5353)] {
                let known = self.services.get(&service);
                let has_port = known.map(|s| s.ports.iter().any(|p| (p.port, p.protocol) == (number, protocol)));
                match (has_port, self.table.port(&service, number, protocol)) {
                    (None, Lookup::NoService) | (Some(false), Lookup::NoPort) => {}
                    (Some(true), Lookup::Found(port)) => {
                        let found: Vec<_> = port.endpoints.iter().map(|e| e.address).collect();
                        assert_eq!(found, self.expected(&service, target), "{service} {number}");
                    }
                    (has_port, _) => panic!("{service} {number}: found otherwise than {has_port:?}"),
                }
            }
        }
        for number in 1..9 {
            let routed = self.slices.values().flat_map(|s| &s.endpoints).any(|e| e.ready && e.ip == pod(number));
            assert_eq!(self.table.routes_to(pod(number)), routed, "pod {number}");
        }
        self.check_addresses();
        self.check_under_way();
    }

    /// Who names an address has it, one of those that do.
    fn check_addresses(&self) {
        let cluster = (1..5).map(|last| IpAddr::from([10, 96, 0, last]));
        let outer = (1..4).map(|last| IpAddr::from([198, 51, 100, last]));
        for ip in cluster.chain(outer) {
            let names = |s: &&Service| s.cluster_ip == Some(ip) || s.traffic.reached_at.contains(&ip);
            let all: BTreeSet<&Name> = self.services.values().filter(names).map(|s| &s.name).collect();
            match self.table.by_ip(ip, 80, Protocol::Tcp) {
                Lookup::Found(port) => assert!(all.contains(&port.service), "{ip}: {} of {all:?}", port.service),
                _ => assert!(all.is_empty(), "{ip}: nobody of {all:?}"),
            }
        }
        for (place, service) in SERVICES.iter().enumerate() {
            let port = 30_000 + place as u16;
            let has = |s: &Service| s.ports.iter().any(|p| (p.protocol, p.node_port) == (Protocol::Tcp, Some(port)));
            let found =
                matches!(self.table.by_ip(NODE, port, Protocol::Tcp), Lookup::Found(to) if to.service == name(service));
            assert_eq!(found, self.services.get(&name(service)).is_some_and(has), "node port {port}");
        }
    }

    /// An endpoint that stays knows of its requests, whatever else changed.
    fn check_under_way(&self) {
        for service in SERVICES.map(name) {
            let Lookup::Found(port) = self.table.port(&service, 80, Protocol::Tcp) else { continue };
            for endpoint in &port.endpoints {
                let known = endpoint.figures().0 as usize;
                let here = |(of, at, _): &&(Name, SocketAddr, _)| *of == service && *at == endpoint.address;
                let begun = self.under_way.iter().filter(here).count();
                // One that was away meanwhile begins anew.
                assert!(known <= begun, "{service} {}: {known} of {begun}", endpoint.address);
            }
        }
    }
}

#[test]
fn the_table_says_what_everything_together_says() {
    for seed in 0..SEEDS {
        eprintln!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::default();
        world.table.nodes(|nodes| nodes.own = Some(NODE));
        for _ in 0..STEPS {
            world.step(&mut rng);
            world.check();
        }
    }
}

#[test]
fn who_stays_keeps_its_requests() {
    let mut world = World::default();
    let mut rng = StdRng::seed_from_u64(1);
    let with = |pods: &[u8]| {
        let one = |number: &u8| Listed {
            ip: pod(*number),
            hostname: None,
            ready: true,
            serving: true,
            terminating: false,
            place: Place::default(),
        };
        let ports = vec![("http".into(), 8080)];
        Slice { name: name("s"), service: "a".into(), ports, endpoints: pods.iter().map(one).collect() }
    };
    world.table.put(random_service("a", &mut rng), &world.metrics);
    world.table.put_slice(with(&[1]));
    world.begin(&name("a"));
    let under_way = |world: &World| match world.table.port(&name("a"), 80, Protocol::Tcp) {
        Lookup::Found(port) => port.endpoints.iter().map(|e| e.figures().0).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    for pods in [&[1][..], &[1, 2], &[1, 2, 3], &[1, 3]] {
        world.table.put_slice(with(pods));
        world.table.put(random_service("a", &mut rng), &world.metrics);
        let expected: Vec<_> = pods.iter().map(|number| u32::from(*number == 1)).collect();
        assert_eq!(under_way(&world), expected, "{pods:?}");
    }
    world.under_way.clear();
    assert_eq!(under_way(&world), [0, 0]);
}

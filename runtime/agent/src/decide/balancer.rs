//! Which addresses Services have outside the cluster, and what of them this node listens at. Pure.
//!
//! A load balancer's address comes from a pool of the operator's. Services share one where their ports let them, so that a
//! pool of a single address means ports of the host. Who has an address keeps it; who came first gets one first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use podium_network::{
    IpRange,
    table::{Name, Protocol},
};

/// The class of load balancers that are ours, beside none.
const CLASS: &str = "podium.dev/host";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Addresses of a pool.
const POOL_MAX: usize = 4096;

/// Addresses of this host that load balancers may have, such as `192.168.1.5,192.168.1.16/28,192.168.2.1-192.168.2.9`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPool(Vec<IpAddr>);

impl From<IpAddr> for AddressPool {
    fn from(ip: IpAddr) -> Self {
        Self(vec![ip])
    }
}

/// A string that is no pool of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address, no range such as 192.168.1.16/28 or 192.168.1.1-192.168.1.9, or more than {POOL_MAX} addresses"
)]
pub struct BadPool(String);

impl AddressPool {
    /// In their order.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.0
    }
}

impl FromStr for AddressPool {
    type Err = BadPool;

    fn from_str(text: &str) -> Result<Self, BadPool> {
        let mut all = Vec::new();
        for part in text.split(',').map(str::trim) {
            let bad = || BadPool(part.to_owned());
            let addresses = addresses(part).ok_or_else(bad)?;
            if all.len() + addresses.len() > POOL_MAX {
                return Err(bad());
            }
            all.extend(addresses);
        }
        let mut seen = BTreeSet::new();
        all.retain(|ip| seen.insert(*ip));
        Ok(Self(all))
    }
}

impl fmt::Display for AddressPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(","))
    }
}

/// The addresses of one part of a pool; a network's own and its broadcast address are none.
fn addresses(part: &str) -> Option<Vec<IpAddr>> {
    if let Ok(ip) = part.parse() {
        return Some(vec![ip]);
    }
    let between = |first: u32, last: u32| {
        let count = usize::try_from(last.checked_sub(first)?).ok()?;
        let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
        (count < POOL_MAX).then(|| (first..=last).map(ip).collect::<Vec<_>>())
    };
    if let Some((first, last)) = part.split_once('-') {
        return between(v4(first)?, v4(last)?);
    }
    let (base, prefix) = part.split_once('/')?;
    let (base, prefix) = (v4(base)?, prefix.parse::<u32>().ok().filter(|prefix| *prefix <= 32)?);
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    let (first, last) = (base & mask, base | !mask);
    if prefix >= 31 { between(first, last) } else { between(first + 1, last - 1) }
}

fn v4(text: &str) -> Option<u32> {
    text.trim().parse::<Ipv4Addr>().ok().map(u32::from)
}

/// Where something listens.
pub(crate) type At = (SocketAddr, Protocol);

/// What listens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) service: Name,
    pub(crate) port: u16,
    /// Who is let in; all when there are none.
    pub(crate) ranges: Vec<IpRange>,
    /// Whether the operator gave the address, so that it has to be this host's.
    pub(crate) ours: bool,
}

/// What is to be there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) listeners: BTreeMap<At, Wanted>,
    /// Ports at which it is said whether this node has endpoints.
    pub(crate) health: BTreeMap<u16, Name>,
    /// The address of each load balancer of ours; `None` where the pool has none left.
    pub(crate) balancers: BTreeMap<Name, Option<IpAddr>>,
}

/// Whether a Service has, or had, something outside.
pub(crate) fn concerns(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    is_balanced(spec) || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) || !ingress(service).is_empty()
}

/// Whether a load balancer is to be ours.
pub(crate) fn is_ours(spec: &ServiceSpec) -> bool {
    is_balanced(spec) && spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS)
}

fn is_balanced(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

/// What a Service's status says of its load balancer.
pub(crate) fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default()
}

/// Decides for all Services. Without a pool no load balancer is ours.
pub(crate) fn plan(services: &[&Service], pool: Option<&AddressPool>) -> Plan {
    let mut services = services.to_vec();
    services.sort_by_key(|service| (service.metadata.creation_timestamp.clone(), name_of(service)));
    let mut plan = Plan::default();
    if let Some(AddressPool(pool)) = pool {
        let balanced: Vec<_> = services
            .iter()
            .filter_map(|s| s.spec.as_ref().filter(|spec| is_ours(spec)).map(|spec| (*s, spec)))
            .collect();
        // Those that have one first.
        for has_one in [true, false] {
            for (service, spec) in balanced.iter().filter(|(s, _)| ingress(s).is_empty() != has_one) {
                plan.give(service, spec, pool);
            }
        }
    }
    for (service, spec) in services.iter().filter_map(|s| s.spec.as_ref().map(|spec| (*s, spec))) {
        for ip in spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()) {
            plan.listen(service, spec, ip, false);
        }
        let health = spec.health_check_node_port.and_then(port);
        if let Some(health) = health.filter(|_| is_balanced(spec) && pool.is_some()) {
            plan.health.insert(health, name_of(service));
        }
    }
    plan
}

impl Plan {
    /// Gives a load balancer an address whose ports are free: what it asks for, what it has, the one with the fewest others.
    fn give(&mut self, service: &Service, spec: &ServiceSpec, pool: &[IpAddr]) {
        let wanted = spec.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty());
        let has = ingress(service).iter().filter_map(|ingress| ingress.ip.as_deref()?.parse::<IpAddr>().ok()).next();
        let others = |ip: &IpAddr| self.balancers.values().filter(|other| other.as_ref() == Some(ip)).count();
        let fits = |ip: &IpAddr| {
            pool.contains(ip) && ports(spec).all(|(p, n)| !self.listeners.contains_key(&(SocketAddr::new(*ip, n), p)))
        };
        let chosen = match wanted {
            Some(ip) => ip.parse().ok().filter(fits),
            None => has.filter(fits).or_else(|| pool.iter().copied().filter(fits).min_by_key(others)),
        };
        if let Some(ip) = chosen {
            self.listen(service, spec, ip, true);
        }
        self.balancers.insert(name_of(service), chosen);
    }

    fn listen(&mut self, service: &Service, spec: &ServiceSpec, ip: IpAddr, ours: bool) {
        for (protocol, port) in ports(spec) {
            let ranges = if ours { ranges(service, spec) } else { Vec::new() };
            let wanted = Wanted { service: name_of(service), port, ranges, ours };
            self.listeners.entry((SocketAddr::new(ip, port), protocol)).or_insert(wanted);
        }
    }
}

fn ports(spec: &ServiceSpec) -> impl Iterator<Item = (Protocol, u16)> + '_ {
    spec.ports.iter().flatten().filter_map(|p| {
        let protocol = match p.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        };
        Some((protocol, port(p.port)?))
    })
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// Who is let in. A range that cannot be read lets nobody in: it was meant to keep somebody out.
fn ranges(service: &Service, spec: &ServiceSpec) -> Vec<IpRange> {
    let annotation = service.metadata.annotations.as_ref().and_then(|all| all.get(SOURCE_RANGES));
    let given = spec.load_balancer_source_ranges.clone().filter(|ranges| !ranges.is_empty());
    let given = given.or_else(|| annotation.map(|text| text.split(',').map(str::to_owned).collect()));
    let nobody = || IpRange::from_str("255.255.255.255/32").ok();
    let read = |text: &String| Some(text.trim()).filter(|t| !t.is_empty()).and_then(|t| t.parse().ok().or_else(nobody));
    given.iter().flatten().filter_map(read).collect()
}

pub(crate) fn name_of(service: &Service) -> Name {
    let meta = &service.metadata;
    Name::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, spec: Value, ingress: &[&str]) -> Service {
        let ingress: Vec<_> = ingress.iter().map(|ip| json!({ "ip": ip })).collect();
        serde_json::from_value(json!({
            "metadata": { "namespace": "a", "name": name },
            "spec": spec,
            "status": { "loadBalancer": { "ingress": ingress } },
        }))
        .unwrap()
    }

    fn balanced(name: &str, ports: &[i32], has: &[&str]) -> Service {
        let ports: Vec<_> = ports.iter().map(|port| json!({ "port": port })).collect();
        service(name, json!({ "type": "LoadBalancer", "ports": ports }), has)
    }

    fn planned(services: &[Service], pool: Option<&str>) -> Plan {
        plan(&services.iter().collect::<Vec<_>>(), pool.map(|pool| pool.parse().unwrap()).as_ref())
    }

    /// Who has which address.
    fn given(services: &[Service], pool: &str) -> String {
        let plan = planned(services, Some(pool));
        let shown = |(name, ip): (&Name, &Option<IpAddr>)| {
            format!("{}={}", name.name, ip.map_or("none".to_owned(), |ip| ip.to_string()))
        };
        plan.balancers.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pools_are_addresses_and_ranges() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1, 10.0.0.4-10.0.0.5", Some("10.0.0.1,10.0.0.4,10.0.0.5")),
            ("10.0.0.9/30", Some("10.0.0.9,10.0.0.10")),
            ("10.0.0.9/31", Some("10.0.0.8,10.0.0.9")),
            ("10.0.0.9/32,10.0.0.9", Some("10.0.0.9")),
            ("fd00::1", Some("fd00::1")),
            ("10.0.0.5-10.0.0.4", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/8", None),
            ("0.0.0.0/0", None),
            ("", None),
            ("x", None),
        ] {
            let pool = text.parse::<AddressPool>().ok().map(|pool| pool.to_string());
            assert_eq!(pool.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_given_and_kept() {
        let two = "10.0.0.1-10.0.0.2";
        let all = |has: [&[&str]; 3]| {
            [balanced("x", &[80], has[0]), balanced("y", &[80], has[1]), balanced("z", &[80, 81], has[2])]
        };
        assert_eq!(given(&all([&[], &[], &[]]), two), "x=10.0.0.1 y=10.0.0.2 z=none");
        assert_eq!(given(&all([&[], &[], &["10.0.0.1"]]), two), "x=10.0.0.2 y=none z=10.0.0.1");
        assert_eq!(given(&all([&["10.9.9.9"], &[], &[]]), two), "x=10.0.0.1 y=10.0.0.2 z=none", "of another pool");
        let shared = [balanced("x", &[80], &[]), balanced("y", &[81], &[]), balanced("z", &[82], &[])];
        assert_eq!(given(&shared, "10.0.0.1"), "x=10.0.0.1 y=10.0.0.1 z=10.0.0.1", "ports of one host");
        assert_eq!(given(&shared, two), "x=10.0.0.1 y=10.0.0.2 z=10.0.0.1", "the one with the fewest others");
    }

    #[test]
    fn some_ask_for_an_address_or_for_another_balancer() {
        let of = |spec: Value| given(&[service("x", spec, &[])], "10.0.0.1-10.0.0.2");
        let ports = json!([{ "port": 80 }]);
        let kind = "LoadBalancer";
        assert_eq!(of(json!({ "type": kind, "ports": ports, "loadBalancerIP": "10.0.0.2" })), "x=10.0.0.2");
        assert_eq!(of(json!({ "type": kind, "ports": ports, "loadBalancerIP": "10.0.0.3" })), "x=none");
        assert_eq!(of(json!({ "type": kind, "ports": ports, "loadBalancerClass": "podium.dev/host" })), "x=10.0.0.1");
        assert_eq!(of(json!({ "type": kind, "ports": ports, "loadBalancerClass": "example.com/other" })), "");
        assert_eq!(of(json!({ "type": "NodePort", "ports": ports })), "");
        assert_eq!(planned(&[balanced("x", &[80], &[])], None), Plan::default(), "without a pool none is ours");
    }

    #[test]
    fn ports_are_listened_at() {
        let ports = json!([{ "port": 80 }, { "port": 53, "protocol": "UDP" }, { "port": 9, "protocol": "SCTP" }]);
        let spec = json!({
            "type": "LoadBalancer", "ports": ports, "externalIPs": ["192.0.2.1", "10.0.0.1"],
            "loadBalancerSourceRanges": ["10.0.0.0/8", " 192.168.0.0/16"], "healthCheckNodePort": 30100,
        });
        let plan = planned(&[service("x", spec, &[])], Some("10.0.0.1"));
        let shown = |((at, protocol), w): (&At, &Wanted)| format!("{at} {protocol:?} {} {}", w.ours, w.ranges.len());
        let listeners: Vec<_> = plan.listeners.iter().map(shown).collect();
        let expected = [
            "10.0.0.1:53 Udp true 2",
            "10.0.0.1:80 Tcp true 2",
            "192.0.2.1:53 Udp false 0",
            "192.0.2.1:80 Tcp false 0",
        ];
        assert_eq!(listeners, expected);
        assert_eq!(plan.health, BTreeMap::from([(30_100, Name::new("a", "x"))]));
    }

    #[test]
    fn a_range_that_cannot_be_read_lets_nobody_in() {
        let of = |annotation: &str| {
            let mut service = balanced("x", &[80], &[]);
            service.metadata.annotations = Some([(SOURCE_RANGES.to_owned(), annotation.to_owned())].into());
            let spec = service.spec.clone().unwrap();
            ranges(&service, &spec).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("10.0.0.0/8, 10.1.0.0/16"), "10.0.0.0/8 10.1.0.0/16");
        assert_eq!(of("nonsense"), "255.255.255.255/32");
        assert_eq!(of(""), "");
    }
}

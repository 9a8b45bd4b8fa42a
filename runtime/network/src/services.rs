//! The service table: from a Service's name or address and port to its endpoints.
//!
//! Changes rebuild only the Service they concern; a dial takes one short read lock and an `Arc`.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::RwLock;

use crate::{
    balance::{Endpoint, Moment, affinity::Affinity, breaker::Breaker, budget::Budget},
    limit::Limit,
    metrics::{Metrics, ServiceMetrics},
    policy::Source,
    table::{BackendPort, Name, Protocol, Service, Slice, Traffic},
    topology::{self, Here},
};

/// How long lies between two notes that a Service has nobody.
const SAID_EACH: Duration = Duration::from_secs(10);

mod at_nodes;
mod records;
#[cfg(test)]
mod sim;
mod state;

use at_nodes::AtNodes;
pub(crate) use records::{EndpointName, ReadyEndpoint, Stands};
pub use state::{EndpointState, PortState, ServiceState};

#[derive(Default)]
pub(crate) struct Services(RwLock<Table>);

#[derive(Default)]
struct Table {
    entries: HashMap<Name, Entry>,
    by_ip: HashMap<IpAddr, Name>,
    /// Ports at addresses that are not the cluster's.
    by_outer: HashMap<(IpAddr, Protocol, u16), Name>,
    /// How many ready endpoints of any Service have this address.
    routed: HashMap<IpAddr, usize>,
    /// Which Service a slice belongs to.
    slice_service: HashMap<Name, Name>,
    /// Which ready endpoints with names of their own have this address.
    named: HashMap<IpAddr, Vec<EndpointName>>,
    here: Here,
    at_nodes: AtNodes,
}

/// A Service, its slices, or (while its other half has not been seen) only one of both.
#[derive(Default)]
struct Entry {
    service: Option<(Service, Arc<Shared>)>,
    slices: BTreeMap<String, Slice>,
    ports: Ports,
    /// As clients outside see them, where that is something else.
    outer: Ports,
}

type Ports = HashMap<(Protocol, u16), Arc<Port>>;

/// What the ports of a Service have in common, whatever changes of it.
pub(crate) struct Shared {
    service: Name,
    all: Metrics,
    metrics: OnceLock<ServiceMetrics>,
    pub(crate) budget: Budget,
    pub(crate) breaker: Arc<Breaker>,
    /// How often it is said that it has nobody.
    pub(crate) said: Limit,
}

impl Shared {
    fn new(service: Name, all: Metrics) -> Self {
        let (budget, breaker, said) = (Budget::default(), Arc::default(), Limit::new(1, SAID_EACH));
        Self { service, all, metrics: OnceLock::new(), budget, breaker, said }
    }

    /// Made when they are needed: most of many Services are quiet.
    pub(crate) fn metrics(&self) -> &ServiceMetrics {
        self.metrics.get_or_init(|| self.all.service(&self.service))
    }
}

/// One port of a Service with its endpoints. A change makes a new one; endpoints that stay keep their load.
pub(crate) struct Port {
    pub(crate) service: Name,
    pub(crate) number: u16,
    pub(crate) shared: Arc<Shared>,
    pub(crate) traffic: Traffic,
    /// Those to send to.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    affinity: Arc<Affinity>,
    protocol: Protocol,
    /// Whether it is for clients outside.
    outer: bool,
}

impl Port {
    /// The endpoint that a client came to last, where it is to come back to that.
    pub(crate) fn kept(&self, from: Source, tried: &[SocketAddr], now: Moment) -> Option<Arc<Endpoint>> {
        let timeout = self.traffic.affinity?;
        let address = self.affinity.get(client(from), timeout, now)?;
        let found = self.endpoints.iter().find(|endpoint| endpoint.address == address)?;
        (!found.is_ejected(now) && !tried.contains(&address)).then(|| found.clone())
    }

    /// The endpoint of a client's datagrams: the one that it came to last, where it is to come back to that, else any.
    pub(crate) fn for_datagrams(&self, from: Source, now: Moment) -> Option<SocketAddr> {
        let any = || self.endpoints.get(rand::random_range(0..self.endpoints.len().max(1))).cloned();
        let endpoint = self.kept(from, &[], now).or_else(any)?.address;
        self.keep(from, endpoint, now);
        Some(endpoint)
    }

    /// A client goes to an endpoint.
    pub(crate) fn keep(&self, from: Source, endpoint: SocketAddr, now: Moment) {
        if let Some(timeout) = self.traffic.affinity {
            self.affinity.note(client(from), endpoint, timeout, now);
        }
    }
}

/// Where a Service's ports are reached beside its own address.
fn reached_at(service: &Service) -> Vec<(IpAddr, Protocol, u16)> {
    let ports = || service.ports.iter().map(|port| (port.protocol, port.port));
    let at = |ip: &IpAddr| ports().map(|(protocol, port)| (ip.to_canonical(), protocol, port)).collect::<Vec<_>>();
    service.traffic.reached_at.iter().flat_map(at).collect()
}

/// The node is one client.
fn client(from: Source) -> IpAddr {
    match from {
        Source::Ip(ip) => ip,
        Source::Node => IpAddr::from([0, 0, 0, 0]),
    }
}

/// A node port and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePort {
    pub(crate) protocol: Protocol,
    pub(crate) node_port: u16,
    pub(crate) service: Name,
    pub(crate) port: u16,
}

impl Services {
    /// Adds or replaces a Service; answers with all node ports there are now.
    pub(crate) fn put(&self, service: Service, metrics: &Metrics) -> Vec<NodePort> {
        let mut table = self.0.write();
        let (name, here) = (service.name.clone(), table.here.clone());
        let Table { entries, at_nodes, .. } = &mut *table;
        let entry = entries.entry(name.clone()).or_default();
        let (new_ip, now) = (service.cluster_ip, reached_at(&service));
        let (before, shared) = match entry.service.take() {
            Some((before, shared)) => (Some(before), shared),
            None => (None, Arc::new(Shared::new(name.clone(), metrics.clone()))),
        };
        before.iter().for_each(|before| at_nodes.take(before));
        at_nodes.put(&service);
        entry.service = Some((service, shared));
        entry.rebuild(&here);
        if let Some(before) = before {
            let left = reached_at(&before).into_iter().filter(|at| !now.contains(at)).collect();
            table.leave(&name, before.cluster_ip.filter(|ip| new_ip != Some(*ip)), left);
        }
        new_ip.and_then(|ip| table.by_ip.insert(ip, name.clone()));
        for at in now {
            table.by_outer.entry(at).or_insert_with(|| name.clone());
        }
        table.node_ports()
    }

    pub(crate) fn remove(&self, name: &Name) -> Vec<NodePort> {
        let mut table = self.0.write();
        let Table { entries, at_nodes, .. } = &mut *table;
        if let Some(entry) = entries.get_mut(name) {
            let service = entry.service.take().map(|(service, _)| service);
            entry.ports.clear();
            entry.outer.clear();
            if entry.slices.is_empty() {
                entries.remove(name);
            }
            if let Some(service) = service {
                at_nodes.take(&service);
                table.leave(name, service.cluster_ip, reached_at(&service));
            }
        }
        table.node_ports()
    }

    pub(crate) fn put_slice(&self, slice: Slice) {
        let mut table = self.0.write();
        let owner = Name::new(slice.name.namespace.clone(), slice.service.clone());
        if table.slice_service.get(&slice.name).is_some_and(|before| *before != owner) {
            table.take_slice(&slice.name);
        }
        table.slice_service.insert(slice.name.clone(), owner.clone());
        table.count_routes(&slice, 1);
        let here = table.here.clone();
        let entry = table.entries.entry(owner).or_default();
        let before = entry.slices.insert(slice.name.name.clone(), slice);
        entry.rebuild(&here);
        if let Some(before) = before {
            table.count_routes(&before, -1);
        }
    }

    pub(crate) fn remove_slice(&self, name: &Name) {
        self.0.write().take_slice(name);
    }

    /// Says where this node is.
    pub(crate) fn locate(&self, here: Here) {
        let mut table = self.0.write();
        if table.here != here {
            table.entries.values_mut().for_each(|entry| entry.rebuild(&here));
            table.here = here;
        }
    }

    /// The same port in the table of now.
    pub(crate) fn again(&self, port: &Port) -> Lookup {
        match port.outer {
            true => self.outer_port(&port.service, port.number, port.protocol),
            false => self.port(&port.service, port.number, port.protocol),
        }
    }

    /// A port as clients outside see it, who come to this node for it.
    pub(crate) fn outer_port(&self, service: &Name, port: u16, protocol: Protocol) -> Lookup {
        let table = self.0.read();
        let outer = table.entries.get(service).and_then(|entry| entry.outer.get(&(protocol, port)));
        outer.map_or_else(|| table.lookup(service, port, protocol), |port| Lookup::Found(port.clone()))
    }

    /// Whether some Service sends requests to this pod as a ready endpoint.
    pub(crate) fn routes_to(&self, ip: IpAddr) -> bool {
        self.0.read().routed.contains_key(&ip)
    }

    pub(crate) fn port(&self, service: &Name, port: u16, protocol: Protocol) -> Lookup {
        self.0.read().lookup(service, port, protocol)
    }

    /// Whether there is such a Service.
    pub(crate) fn has(&self, name: &Name) -> bool {
        self.0.read().entries.get(name).is_some_and(|entry| entry.service.is_some())
    }

    /// Whether an address is a Service's.
    pub(crate) fn has_ip(&self, ip: IpAddr) -> bool {
        self.0.read().by_ip.contains_key(&ip)
    }

    /// A port that an Ingress names.
    pub(crate) fn backend(&self, service: &Name, port: &BackendPort) -> Lookup {
        let table = self.0.read();
        let number = match port {
            BackendPort::Number(number) => Some(*number),
            BackendPort::Name(name) => table
                .entries
                .get(service)
                .and_then(|e| e.service.as_ref())
                .and_then(|(s, _)| s.ports.iter().find(|p| p.name == *name).map(|p| p.port)),
        };
        number.map_or(Lookup::NoPort, |number| table.lookup(service, number, Protocol::Tcp))
    }

    /// A Service by its stable address, one outside, or a node's.
    pub(crate) fn by_ip(&self, ip: IpAddr, port: u16, protocol: Protocol) -> Lookup {
        let table = self.0.read();
        if let Some(name) = table.by_ip.get(&ip).or_else(|| table.by_outer.get(&(ip, protocol, port))) {
            return table.lookup(name, port, protocol);
        }
        let at_node = table.at_nodes.find(ip, port, protocol);
        at_node.map_or(Lookup::NoService, |(name, port)| table.lookup(name, *port, protocol))
    }

    /// Changes what is known of the nodes' addresses.
    pub(crate) fn nodes(&self, change: impl FnOnce(&mut AtNodes)) {
        change(&mut self.0.write().at_nodes);
    }

    pub(crate) fn ready_endpoints(&self, service: &Name, port: u16) -> Vec<SocketAddr> {
        match self.port(service, port, Protocol::Tcp) {
            Lookup::Found(port) => port.endpoints.iter().map(|e| e.address).collect(),
            _ => Vec::new(),
        }
    }
}

/// The answer to a look-up.
pub(crate) enum Lookup {
    Found(Arc<Port>),
    NoPort,
    NoService,
}

impl Table {
    fn lookup(&self, service: &Name, port: u16, protocol: Protocol) -> Lookup {
        let Some(entry) = self.entries.get(service).filter(|e| e.service.is_some()) else {
            return Lookup::NoService;
        };
        entry.ports.get(&(protocol, port)).map_or(Lookup::NoPort, |p| Lookup::Found(p.clone()))
    }

    /// A Service is not at these addresses any more: another one that names them has them now.
    fn leave(&mut self, name: &Name, ip: Option<IpAddr>, outer: Vec<(IpAddr, Protocol, u16)>) {
        let Self { entries, by_ip, by_outer, .. } = self;
        let heir = |names: &dyn Fn(&Service) -> bool| {
            let all = entries.iter().filter_map(|(of, entry)| Some((of, &entry.service.as_ref()?.0)));
            all.filter(|(of, service)| *of != name && names(service)).map(|(of, _)| of).min().cloned()
        };
        if let Some(ip) = ip.filter(|ip| by_ip.get(ip) == Some(name)) {
            by_ip.remove(&ip);
            heir(&|service| service.cluster_ip == Some(ip)).and_then(|heir| by_ip.insert(ip, heir));
        }
        for at in outer {
            if by_outer.get(&at) == Some(name) {
                by_outer.remove(&at);
                heir(&|service| reached_at(service).contains(&at)).and_then(|heir| by_outer.insert(at, heir));
            }
        }
    }

    fn take_slice(&mut self, name: &Name) {
        let Some(owner) = self.slice_service.remove(name) else { return };
        let Some(entry) = self.entries.get_mut(&owner) else { return };
        let slice = entry.slices.remove(&name.name);
        entry.rebuild(&self.here);
        if entry.service.is_none() && entry.slices.is_empty() {
            self.entries.remove(&owner);
        }
        if let Some(slice) = slice {
            self.count_routes(&slice, -1);
        }
    }

    fn count_routes(&mut self, slice: &Slice, by: isize) {
        for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
            self.count_name(slice, endpoint, by);
            let count = self.routed.entry(endpoint.ip).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.routed.remove(&endpoint.ip);
            }
        }
    }

    fn node_ports(&self) -> Vec<NodePort> {
        let services = self.entries.values().filter_map(|e| e.service.as_ref());
        services.flat_map(|(service, _)| at_nodes::node_ports(service)).collect()
    }
}

impl Entry {
    fn rebuild(&mut self, here: &Here) {
        let Some((service, shared)) = &self.service else { return };
        let all = self.ports.values().chain(self.outer.values()).flat_map(|port| &port.endpoints);
        let mut known: HashMap<SocketAddr, Arc<Endpoint>> = all.map(|e| (e.address, e.clone())).collect();
        let mut build = |before: &Ports, outer: bool| {
            let port = |port: &crate::table::ServicePort| {
                let key = (port.protocol, port.port);
                let (was, now) = (before.get(&key), Moment::now());
                let joins = was.is_some_and(|port| !port.endpoints.is_empty());
                let make = |a: SocketAddr| move || Arc::new(Endpoint::new(a, joins, now));
                let keep = |a: SocketAddr| known.entry(a).or_insert_with(make(a)).clone();
                let addresses = addresses(&self.slices, &port.name, (&service.traffic, here, outer));
                let built = Port {
                    service: service.name.clone(),
                    number: port.port,
                    shared: shared.clone(),
                    traffic: service.traffic.clone(),
                    endpoints: addresses.into_iter().map(keep).collect(),
                    affinity: was.map(|port| port.affinity.clone()).unwrap_or_default(),
                    protocol: port.protocol,
                    outer,
                };
                (key, Arc::new(built))
            };
            service.ports.iter().map(port).collect::<Ports>()
        };
        let ports = build(&self.ports, false);
        let apart = service.traffic.external_local || service.traffic.internal_local;
        let outer = if apart { build(&self.outer, true) } else { Ports::new() };
        (self.ports, self.outer) = (ports, outer);
    }
}

/// The addresses to send to.
fn addresses(
    slices: &BTreeMap<String, Slice>,
    port_name: &str,
    (traffic, here, outside): (&Traffic, &Here, bool),
) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for slice in slices.values() {
        let Some((_, number)) = slice.ports.iter().find(|(name, _)| name == port_name) else { continue };
        all.extend(slice.endpoints.iter().map(|endpoint| (endpoint, *number)));
    }
    let endpoints: Vec<_> = all.iter().map(|(endpoint, _)| *endpoint).collect();
    let chosen = topology::select(&endpoints, traffic, here, outside);
    let mut chosen = chosen.into_iter().peekable();
    // Those chosen are some of all, in their order.
    let number = |(endpoint, number): &(&crate::table::Endpoint, u16)| {
        let is = chosen.next_if(|of| std::ptr::eq(*of, *endpoint)).is_some();
        is.then(|| SocketAddr::new(endpoint.ip, *number))
    };
    let mut addresses: Vec<_> = all.iter().filter_map(number).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

//! The service table: from a Service's name or address and port to its endpoints.
//!
//! Changes rebuild only the Service they concern; a dial takes one short read lock and an `Arc`.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::RwLock;

use crate::{
    balance::Endpoint,
    metrics::{Metrics, ServiceMetrics},
    table::{BackendPort, Name, Protocol, Service, Slice},
};

#[derive(Default)]
pub(crate) struct Services(RwLock<Table>);

#[derive(Default)]
struct Table {
    entries: HashMap<Name, Entry>,
    by_ip: HashMap<IpAddr, Name>,
    /// How many ready endpoints of any Service have this address.
    routed: HashMap<IpAddr, usize>,
    /// Which Service a slice belongs to.
    slice_service: HashMap<Name, Name>,
}

/// A Service, its slices, or (while its other half has not been seen) only one of both.
#[derive(Default)]
struct Entry {
    service: Option<(Service, ServiceMetrics)>,
    slices: BTreeMap<String, Slice>,
    ports: HashMap<(Protocol, u16), Arc<Port>>,
}

/// One port of a Service with its endpoints. A change makes a new one; endpoints that stay keep their load.
pub(crate) struct Port {
    pub(crate) service: Name,
    pub(crate) number: u16,
    pub(crate) metrics: ServiceMetrics,
    /// Those to send to.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
}

/// A node port and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePort {
    pub(crate) node_port: u16,
    pub(crate) service: Name,
    pub(crate) port: u16,
}

impl Services {
    /// Adds or replaces a Service; answers with all node ports there are now.
    pub(crate) fn put(&self, service: Service, metrics: &Metrics) -> Vec<NodePort> {
        let mut table = self.0.write();
        let name = service.name.clone();
        let entry = table.entries.entry(name.clone()).or_default();
        let old_ip = entry.service.as_ref().and_then(|(s, _)| s.cluster_ip);
        let new_ip = service.cluster_ip;
        let metrics = match entry.service.take() {
            Some((_, metrics)) => metrics,
            None => metrics.service(&name),
        };
        entry.service = Some((service, metrics));
        entry.rebuild();
        if old_ip != new_ip {
            old_ip.and_then(|ip| table.by_ip.remove(&ip));
            new_ip.and_then(|ip| table.by_ip.insert(ip, name));
        }
        table.node_ports()
    }

    pub(crate) fn remove(&self, name: &Name) -> Vec<NodePort> {
        let mut table = self.0.write();
        if let Some(entry) = table.entries.get_mut(name) {
            let ip = entry.service.take().and_then(|(s, _)| s.cluster_ip);
            entry.ports.clear();
            let empty = entry.slices.is_empty();
            ip.and_then(|ip| table.by_ip.remove(&ip));
            if empty {
                table.entries.remove(name);
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
        let entry = table.entries.entry(owner).or_default();
        let before = entry.slices.insert(slice.name.name.clone(), slice);
        entry.rebuild();
        if let Some(before) = before {
            table.count_routes(&before, -1);
        }
    }

    pub(crate) fn remove_slice(&self, name: &Name) {
        self.0.write().take_slice(name);
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

    /// What a Service's name resolves to: its own address, or those of its ready pods when it has none.
    pub(crate) fn addresses(&self, name: &Name) -> Vec<IpAddr> {
        let table = self.0.read();
        let Some(entry) = table.entries.get(name) else { return Vec::new() };
        match &entry.service {
            None => Vec::new(),
            Some((Service { cluster_ip: Some(ip), .. }, _)) => vec![*ip],
            Some(_) => {
                let ready = entry.slices.values().flat_map(|slice| &slice.endpoints).filter(|e| e.ready);
                let mut ips: Vec<_> = ready.map(|e| e.ip).collect();
                ips.sort_unstable();
                ips.dedup();
                ips
            }
        }
    }

    /// The ready pod that a headless Service gives a name.
    pub(crate) fn endpoint(&self, name: &Name, hostname: &str) -> Option<IpAddr> {
        let table = self.0.read();
        let entry = table.entries.get(name).filter(|entry| entry.service.is_some())?;
        let mut all = entry.slices.values().flat_map(|slice| &slice.endpoints);
        all.find(|e| e.ready && e.hostname.as_deref() == Some(hostname)).map(|e| e.ip)
    }

    /// The host outside that a Service only names.
    pub(crate) fn external(&self, name: &Name) -> Option<String> {
        self.0.read().entries.get(name)?.service.as_ref()?.0.external_name.clone()
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

    /// A Service by its stable address.
    pub(crate) fn by_ip(&self, ip: IpAddr, port: u16, protocol: Protocol) -> Lookup {
        let table = self.0.read();
        table.by_ip.get(&ip).map_or(Lookup::NoService, |name| table.lookup(name, port, protocol))
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

    fn take_slice(&mut self, name: &Name) {
        let Some(owner) = self.slice_service.remove(name) else { return };
        let Some(entry) = self.entries.get_mut(&owner) else { return };
        let slice = entry.slices.remove(&name.name);
        entry.rebuild();
        if entry.service.is_none() && entry.slices.is_empty() {
            self.entries.remove(&owner);
        }
        if let Some(slice) = slice {
            self.count_routes(&slice, -1);
        }
    }

    fn count_routes(&mut self, slice: &Slice, by: isize) {
        for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
            let count = self.routed.entry(endpoint.ip).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.routed.remove(&endpoint.ip);
            }
        }
    }

    fn node_ports(&self) -> Vec<NodePort> {
        let services = self.entries.values().filter_map(|e| e.service.as_ref());
        let ports = services.flat_map(|(service, _)| {
            service.ports.iter().filter(|p| p.protocol == Protocol::Tcp).filter_map(|p| {
                p.node_port.map(|node_port| NodePort { node_port, service: service.name.clone(), port: p.port })
            })
        });
        ports.collect()
    }
}

impl Entry {
    fn rebuild(&mut self) {
        let Some((service, metrics)) = &self.service else { return };
        let known: HashMap<SocketAddr, Arc<Endpoint>> =
            self.ports.values().flat_map(|p| &p.endpoints).map(|e| (e.address, e.clone())).collect();
        let port = |port: &crate::table::ServicePort| {
            let addresses = addresses(&self.slices, &port.name);
            let keep = |a: SocketAddr| known.get(&a).cloned().unwrap_or_else(|| Arc::new(Endpoint::new(a)));
            let endpoints = addresses.into_iter().map(keep).collect();
            let (service, metrics) = (service.name.clone(), metrics.clone());
            ((port.protocol, port.port), Arc::new(Port { service, number: port.port, metrics, endpoints }))
        };
        let ports = service.ports.iter().map(port).collect();
        self.ports = ports;
    }
}

/// The addresses to send to: the ready ones, or, when none is, those that still serve while they end.
fn addresses(slices: &BTreeMap<String, Slice>, port_name: &str) -> Vec<SocketAddr> {
    let all = || {
        slices.values().flat_map(|slice| {
            let port = slice.ports.iter().find(|(name, _)| name == port_name).map(|(_, number)| *number);
            slice.endpoints.iter().filter_map(move |e| Some((e, SocketAddr::new(e.ip, port?))))
        })
    };
    let mut ready: Vec<_> = all().filter(|(e, _)| e.ready).map(|(_, a)| a).collect();
    if ready.is_empty() {
        ready = all().filter(|(e, _)| e.serving && e.terminating).map(|(_, a)| a).collect();
    }
    ready.sort_unstable();
    ready.dedup();
    ready
}

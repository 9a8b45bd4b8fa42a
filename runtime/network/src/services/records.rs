//! What names say of Services: addresses, ports and named endpoints, for guests and for the DNS listener alike.
//!
//! # Source
//! The DNS specification of Kubernetes, and CoreDNS' `kubernetes` plugin where it is silent: an endpoint that nobody named
//! is called by its address, with dashes.

use std::{collections::HashSet, net::IpAddr};

use super::{Entry, Services, Table};
use crate::{
    names::{dashed, pod_address},
    table::{Endpoint, Name, Protocol, Service, ServicePort, Slice},
};

/// An endpoint by its name below a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointName {
    pub(crate) service: Name,
    pub(crate) hostname: String,
}

/// What a Service's own name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stands {
    /// For itself, at its addresses.
    Addresses(Vec<IpAddr>),
    /// For its ready pods.
    Pods,
    /// For a host outside.
    Host(String),
}

/// A ready endpoint with the ports that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadyEndpoint {
    pub(crate) ip: IpAddr,
    pub(crate) hostname: String,
    pub(crate) ports: Vec<u16>,
}

impl Services {
    /// What a Service's name stands for; `None` when there is no such Service.
    pub(crate) fn stands_for(&self, name: &Name) -> Option<Stands> {
        let table = self.0.read();
        let (service, _) = table.entries.get(name)?.service.as_ref()?;
        Some(match (&service.external_name, service.cluster_ip) {
            (Some(host), _) => Stands::Host(host.clone()),
            (None, Some(ip)) => Stands::Addresses(vec![ip]),
            (None, None) => Stands::Pods,
        })
    }

    /// What a Service's name resolves to: its own address, or those of its ready pods when it has none.
    pub(crate) fn addresses(&self, name: &Name) -> Vec<IpAddr> {
        let table = self.0.read();
        let Some(entry) = table.entries.get(name) else { return Vec::new() };
        match &entry.service {
            None => Vec::new(),
            Some((Service { cluster_ip: Some(ip), .. }, _)) => vec![*ip],
            Some(_) => {
                let mut ips: Vec<_> = entry.ready().map(|(_, e)| e.ip).collect();
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
        let called = Called::new(hostname);
        entry.ready().find(|(_, e)| called.is(e)).map(|(_, e)| e.ip)
    }

    /// The host outside that a Service only names.
    pub(crate) fn external(&self, name: &Name) -> Option<String> {
        self.0.read().entries.get(name)?.service.as_ref()?.0.external_name.clone()
    }

    /// The number of a Service's port by its name.
    pub(crate) fn named_port(&self, name: &Name, port: &str, protocol: Protocol) -> Option<u16> {
        self.service_ports(name).into_iter().find(|p| p.name == port && p.protocol == protocol).map(|p| p.port)
    }

    /// A Service's ports.
    pub(crate) fn service_ports(&self, name: &Name) -> Vec<ServicePort> {
        let table = self.0.read();
        let service = table.entries.get(name).and_then(|entry| entry.service.as_ref());
        service.map(|(service, _)| service.ports.clone()).unwrap_or_default()
    }

    /// The ready endpoints of a Service that are called `hostname`, or all of them, each with the port of that name and
    /// protocol, or with all of its ports.
    pub(crate) fn endpoints(
        &self,
        name: &Name,
        hostname: Option<&str>,
        port: Option<(&str, Protocol)>,
    ) -> Vec<ReadyEndpoint> {
        let table = self.0.read();
        let Some(entry) = table.entries.get(name) else { return Vec::new() };
        let Some((service, _)) = &entry.service else { return Vec::new() };
        // A slice does not say which protocol a port has; the Service's port of the same name does.
        let wanted = |of: &str| match port {
            None => true,
            Some((name, protocol)) => {
                of == name && service.ports.iter().any(|p| p.name == name && p.protocol == protocol)
            }
        };
        let called = hostname.map(Called::new);
        let mut found: Vec<ReadyEndpoint> = Vec::new();
        for (slice, endpoint) in entry.ready().filter(|(_, e)| called.as_ref().is_none_or(|called| called.is(e))) {
            let ports: Vec<u16> =
                slice.ports.iter().filter(|(name, _)| wanted(name)).map(|(_, number)| *number).collect();
            if port.is_some() && ports.is_empty() {
                continue;
            }
            found.push(ReadyEndpoint { ip: endpoint.ip, hostname: hostname_of(endpoint), ports });
        }
        found.sort_unstable_by(|a, b| (a.ip, &a.hostname).cmp(&(b.ip, &b.hostname)));
        found.dedup_by(|b, a| {
            let same = a.ip == b.ip && a.hostname == b.hostname;
            if same {
                a.ports.extend(b.ports.iter().filter(|port| !a.ports.contains(port)).collect::<Vec<_>>());
            }
            same
        });
        found
    }

    /// How many ready endpoints of a Service are on this node.
    pub(crate) fn local_endpoints(&self, name: &Name) -> usize {
        let table = self.0.read();
        let Some(entry) = table.entries.get(name) else { return 0 };
        let local = entry.ready().filter(|(_, endpoint)| table.here.is_node_of(endpoint));
        local.map(|(_, endpoint)| endpoint.ip).collect::<HashSet<_>>().len()
    }

    /// Which names lead to an address: a Service's, or those of endpoints that somebody named.
    pub(crate) fn names_of(&self, ip: IpAddr) -> (Option<Name>, Vec<EndpointName>) {
        let table = self.0.read();
        (table.by_ip.get(&ip).cloned(), table.named.get(&ip).cloned().unwrap_or_default())
    }
}

impl Table {
    /// Notes or forgets (`by` below 0) the name of a ready endpoint.
    pub(super) fn count_name(&mut self, slice: &Slice, endpoint: &Endpoint, by: isize) {
        let Some(hostname) = &endpoint.hostname else { return };
        let service = Name::new(slice.name.namespace.clone(), slice.service.clone());
        let name = EndpointName { service, hostname: hostname.clone() };
        let names = self.named.entry(endpoint.ip).or_default();
        match by {
            ..0 => {
                if let Some(at) = names.iter().position(|of| *of == name) {
                    names.swap_remove(at);
                }
            }
            _ => names.push(name),
        }
        if names.is_empty() {
            self.named.remove(&endpoint.ip);
        }
    }
}

impl Entry {
    fn ready(&self) -> impl Iterator<Item = (&Slice, &Endpoint)> {
        let all = self.slices.values().flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (slice, endpoint)));
        all.filter(|(_, endpoint)| endpoint.ready)
    }
}

/// A name that some endpoint may have: one that it was given, or its address.
struct Called<'a> {
    hostname: &'a str,
    ip: Option<IpAddr>,
}

impl<'a> Called<'a> {
    fn new(hostname: &'a str) -> Self {
        Self { hostname, ip: pod_address(hostname) }
    }

    fn is(&self, endpoint: &Endpoint) -> bool {
        match &endpoint.hostname {
            Some(name) => name.eq_ignore_ascii_case(self.hostname),
            None => self.ip == Some(endpoint.ip),
        }
    }
}

fn hostname_of(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| dashed(endpoint.ip))
}

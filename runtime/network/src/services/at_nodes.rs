//! Services at the nodes' own addresses: a pod that calls a node port, of whatever node, reaches the Service directly.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::NodePort;
use crate::table::{Name, Protocol, Service};

/// The nodes' addresses, and the ports that all of them have.
#[derive(Default)]
pub(crate) struct AtNodes {
    /// This node's.
    pub(crate) own: Option<IpAddr>,
    /// The other nodes'.
    pub(crate) others: HashSet<IpAddr>,
    ports: HashMap<(Protocol, u16), (Name, u16)>,
}

/// The node ports of a Service.
pub(super) fn node_ports(service: &Service) -> impl Iterator<Item = NodePort> {
    service.ports.iter().filter_map(|port| {
        let (protocol, name) = (port.protocol, service.name.clone());
        port.node_port.map(|node_port| NodePort { protocol, node_port, service: name, port: port.port })
    })
}

impl AtNodes {
    pub(super) fn put(&mut self, service: &Service) {
        for NodePort { protocol, node_port, service, port } in node_ports(service) {
            self.ports.insert((protocol, node_port), (service, port));
        }
    }

    pub(super) fn take(&mut self, service: &Service) {
        for NodePort { protocol, node_port, service, .. } in node_ports(service) {
            if self.ports.get(&(protocol, node_port)).is_some_and(|(name, _)| *name == service) {
                self.ports.remove(&(protocol, node_port));
            }
        }
    }

    /// The Service and its port that an address of a node leads to.
    pub(super) fn find(&self, ip: IpAddr, port: u16, protocol: Protocol) -> Option<&(Name, u16)> {
        let is_node = self.own == Some(ip) || self.others.contains(&ip);
        self.ports.get(&(protocol, port)).filter(|_| is_node)
    }
}

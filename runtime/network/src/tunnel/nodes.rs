//! Which nodes there are, and whose an address is.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use parking_lot::RwLock;
use tokio_rustls::TlsAcceptor;

use super::{RemoteNode, TunnelConfig, line::Peer, tls::Role};
use crate::{Inner, IpRange};

/// The tunnels of one node.
#[derive(Default)]
pub(crate) struct Tunnels(RwLock<Table>);

#[derive(Default)]
struct Table {
    config: Option<TunnelConfig>,
    nodes: HashMap<String, RemoteNode>,
    peers: HashMap<(String, Role), Arc<Peer>>,
    /// By podCIDR; the lengths of prefixes that there are.
    by_range: HashMap<(IpAddr, u8), String>,
    prefixes: Vec<u8>,
}

impl Tunnels {
    pub(crate) fn configure(&self, config: TunnelConfig) {
        let mut table = self.0.write();
        let left: Vec<_> = table.peers.drain().collect();
        table.config = Some(config);
        drop(table);
        left.iter().for_each(|(_, peer)| peer.leave());
    }

    pub(crate) fn config(&self) -> Option<TunnelConfig> {
        self.0.read().config.clone()
    }

    /// Replaces the nodes; connections to those that stay as they are stay too.
    pub(crate) fn put(&self, nodes: Vec<RemoteNode>) {
        let mut table = self.0.write();
        table.nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        let Table { nodes, peers, by_range, prefixes, .. } = &mut *table;
        let ranges = |node: &RemoteNode| {
            let keys: Vec<_> = node.pod_cidrs.iter().map(IpRange::key).collect();
            keys.into_iter().map(|key| (key, node.name.clone())).collect::<Vec<_>>()
        };
        *by_range = nodes.values().flat_map(ranges).collect();
        *prefixes = by_range.keys().map(|(_, prefix)| *prefix).collect();
        // The narrowest range has an address.
        prefixes.sort_unstable_by(|a, b| b.cmp(a));
        prefixes.dedup();
        let stays = |(name, _): &(String, Role), peer: &Arc<Peer>| nodes.get(name) == Some(&peer.node);
        let left: Vec<_> = peers.extract_if(|key, peer| !stays(key, peer)).collect();
        drop(table);
        left.iter().for_each(|(_, peer)| peer.leave());
    }

    /// The other node that an address is a pod's of.
    pub(crate) fn of(&self, network: &Weak<Inner>, ip: IpAddr, role: Role) -> Option<Arc<Peer>> {
        let (name, role) = {
            let table = self.0.read();
            let name = table.node_of(ip)?;
            let role = table.role(role);
            if let Some(peer) = table.peers.get(&(name.clone(), role)) {
                return Some(peer.clone());
            }
            (name.clone(), role)
        };
        self.peer(network, &name, role)
    }

    /// Another node by its name.
    pub(crate) fn peer(&self, network: &Weak<Inner>, name: &str, role: Role) -> Option<Arc<Peer>> {
        let mut table = self.0.write();
        let Table { config, nodes, peers, .. } = &mut *table;
        let (config, node) = (config.as_ref()?, nodes.get(name)?);
        if node.name == config.node && role == Role::Node {
            return None;
        }
        let make = || Peer::new(node.clone(), role, config.clone(), network.clone());
        Some(peers.entry((name.to_owned(), role)).or_insert_with(make).clone())
    }

    /// Whether an address is a pod's of another node.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.0.read().node_of(ip).is_some()
    }

    /// Whether an address is one of a node's pods; `None`: nobody knows the node.
    pub(crate) fn owns(&self, node: &str, ip: IpAddr) -> Option<bool> {
        Some(self.0.read().nodes.get(node)?.pod_cidrs.iter().any(|range| range.contains(ip)))
    }
}

impl Table {
    /// Who is no node goes as what it is.
    fn role(&self, role: Role) -> Role {
        let identity = self.config.as_ref().map(|config| &config.identity);
        match identity {
            Some(identity) if identity.client().is_none() && identity.api_server().is_some() => Role::ApiServer,
            _ => role,
        }
    }

    /// `None` for this node's own, and while nobody has said who this node is.
    fn node_of(&self, ip: IpAddr) -> Option<&String> {
        let own = &self.config.as_ref()?.node;
        let ip = ip.to_canonical();
        let find = |prefix: &u8| self.by_range.get(&(IpRange::around(ip, *prefix)?, *prefix));
        self.prefixes.iter().find_map(find).filter(|name| *name != own)
    }
}

/// What a listener needs of TLS.
pub(crate) fn acceptor(config: &TunnelConfig) -> Result<TlsAcceptor, String> {
    Ok(TlsAcceptor::from(Arc::new(super::tls::server(config)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::{TunnelIdentity, TunnelLimits};

    struct Nobody;

    impl TunnelIdentity for Nobody {
        fn server(&self) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }

        fn client(&self) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }
    }

    fn node(name: &str, cidrs: &[&str]) -> RemoteNode {
        let pod_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        RemoteNode { name: name.into(), address: ([127, 0, 0, 1], 1).into(), pod_cidrs }
    }

    #[test]
    fn an_address_is_the_node_s_with_the_narrowest_range() {
        let tunnels = Tunnels::default();
        let find = |ip: &str| {
            let peer = tunnels.of(&Weak::new(), ip.parse().unwrap(), Role::Node);
            peer.map(|peer| peer.node.name.clone()).unwrap_or_default()
        };
        tunnels.put(vec![
            node("own", &["10.244.0.0/24"]),
            node("b", &["10.244.1.0/24", "fd00:1::/64"]),
            node("c", &["10.244.1.128/25", "10.244.2.0/23"]),
        ]);
        assert_eq!(find("10.244.1.5"), "", "nobody has said who this node is");
        tunnels.configure(TunnelConfig {
            node: "own".into(),
            identity: Arc::new(Nobody),
            roots: rustls::RootCertStore::empty(),
            limits: TunnelLimits::default(),
            node_requests: None,
            workloads: None,
        });
        for (ip, of) in [
            ("10.244.0.5", ""),
            ("10.244.1.5", "b"),
            ("::ffff:10.244.1.5", "b"),
            ("10.244.1.200", "c"),
            ("10.244.3.1", "c"),
            ("10.244.4.1", ""),
            ("fd00:1::7", "b"),
            ("fd00:2::7", ""),
        ] {
            assert_eq!(find(ip), of, "{ip}");
        }
        let before = tunnels.peer(&Weak::new(), "b", Role::Node).unwrap();
        tunnels.put(vec![node("b", &["10.244.1.0/24", "fd00:1::/64"]), node("c", &["10.244.2.0/24"])]);
        assert!(Arc::ptr_eq(&before, &tunnels.peer(&Weak::new(), "b", Role::Node).unwrap()), "it is what it was");
        assert_eq!((find("10.244.1.200"), find("10.244.3.1")), ("b".into(), String::new()));
        assert!(tunnels.peer(&Weak::new(), "own", Role::Node).is_none());
    }
}

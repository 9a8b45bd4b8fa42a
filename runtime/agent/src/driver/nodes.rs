//! Tells the network which other nodes there are: their pods' addresses, and where their tunnels listen.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use podium_api::Object;
use podium_client::{Delta, Mirror};
use podium_network::{Network, RemoteNode};

/// Follows the nodes for as long as there is somebody who says what they are. `own`: this node's name.
pub async fn follow_nodes(network: Network, nodes: Arc<dyn Mirror>, own: String) {
    let mut deltas = nodes.subscribe();
    let mut known: BTreeMap<String, RemoteNode> = BTreeMap::new();
    while let Some(delta) = deltas.recv().await {
        let mut changed = apply(&mut known, &delta, &own);
        // Those that come together are told together.
        while let Ok(delta) = deltas.try_recv() {
            changed |= apply(&mut known, &delta, &own);
        }
        if changed {
            network.set_nodes(known.values().cloned().collect());
        }
    }
}

/// Notes a change; answers whether it matters.
fn apply(known: &mut BTreeMap<String, RemoteNode>, delta: &Delta, own: &str) -> bool {
    let node = match delta {
        Delta::Put { new, .. } => remote(&**new),
        Delta::Delete { .. } => None,
    };
    let name = delta.object().meta().name.clone().unwrap_or_default();
    match node.filter(|_| name != own) {
        Some(node) if known.get(&name) == Some(&node) => false,
        Some(node) => {
            known.insert(name, node);
            true
        }
        None => known.remove(&name).is_some(),
    }
}

/// A node that others can reach: one with an address, a port and addresses for pods.
fn remote(object: &dyn Object) -> Option<RemoteNode> {
    let node: &Node = object.downcast_ref()?;
    let status = node.status.as_ref()?;
    let internal = status.addresses.iter().flatten().find(|address| address.type_ == "InternalIP")?;
    let ip: IpAddr = internal.address.parse().ok()?;
    let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    let spec = node.spec.as_ref()?;
    let cidrs = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.is_none()));
    let pod_cidrs: Vec<_> = cidrs.filter_map(|cidr| cidr.parse().ok()).collect();
    let name = node.metadata.name.clone()?;
    (!pod_cidrs.is_empty()).then(|| RemoteNode { name, address: SocketAddr::new(ip, port), pod_cidrs })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, spec: Value, addresses: Value, port: u16) -> Arc<dyn Object> {
        let endpoints = json!({ "kubeletEndpoint": { "Port": port } });
        let status = json!({ "addresses": addresses, "daemonEndpoints": endpoints });
        let node = json!({ "metadata": { "name": name }, "spec": spec, "status": status });
        Arc::new(serde_json::from_value::<Node>(node).unwrap())
    }

    #[test]
    fn only_what_matters_of_other_nodes_is_told() {
        let mut known = BTreeMap::new();
        let at = |ip: &str| json!([{ "type": "Hostname", "address": "x" }, { "type": "InternalIP", "address": ip }]);
        let cidr = json!({ "podCIDR": "10.1.0.0/18", "podCIDRs": ["10.1.0.0/18"] });
        let put = |new: Arc<dyn Object>| Delta::Put { old: None, new };
        let b = node("b", cidr.clone(), at("10.0.0.2"), 10250);
        assert!(apply(&mut known, &put(b.clone()), "a"));
        assert!(!apply(&mut known, &put(b.clone()), "a"), "it is known");
        assert_eq!(known["b"].address, "10.0.0.2:10250".parse().unwrap());
        assert_eq!(known["b"].pod_cidrs, ["10.1.0.0/18".parse().unwrap()]);
        assert!(apply(&mut known, &put(node("b", cidr.clone(), at("10.0.0.3"), 10250)), "a"), "it has moved");
        for (why, other) in [
            ("this node itself", node("a", cidr.clone(), at("10.0.0.1"), 10250)),
            ("no port", node("c", cidr.clone(), at("10.0.0.4"), 0)),
            ("no address", node("c", cidr, json!([]), 10250)),
            ("no pods", node("c", json!({}), at("10.0.0.4"), 10250)),
        ] {
            assert!(!apply(&mut known, &put(other), "a"), "{why}");
        }
        let gone = Delta::Delete { revision: b.revision(), old: b };
        assert!(apply(&mut known, &gone, "a") && known.is_empty());
    }
}

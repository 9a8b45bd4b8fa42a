//! Where endpoints are, and for whom: their zones, and hints where a Service wants its traffic to stay near.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/endpointslice/utils.go` (`podToEndpoint`), `trafficdist/trafficdist.go`.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, Pod, ServiceSpec},
    discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone},
};
use podium_api::{Object, ObjectKey};

use crate::{Key, View, ViewExt, pods::node_name, service_pods::services_of_pod};

const ZONE: &str = "topology.kubernetes.io/zone";

/// The zones of nodes, each looked up once.
pub(super) struct Zones<'a> {
    view: &'a dyn View,
    known: HashMap<String, Option<String>>,
}

impl<'a> Zones<'a> {
    pub(super) fn new(view: &'a dyn View) -> Self {
        Self { view, known: HashMap::new() }
    }

    pub(super) fn of(&mut self, node: &str) -> Option<String> {
        if let Some(zone) = self.known.get(node) {
            return zone.clone();
        }
        let zone = self.view.get_as::<Node>(&ObjectKey::new("", node)).and_then(|node| zone(&*node));
        self.known.insert(node.to_owned(), zone.clone());
        zone
    }
}

fn zone(node: &dyn Object) -> Option<String> {
    node.meta().labels.as_ref()?.get(ZONE).filter(|zone| !zone.is_empty()).cloned()
}

/// Whether something became of a node that endpoints show: heartbeats do not.
pub(super) fn moved(old: Option<&dyn Object>, new: Option<&dyn Object>) -> bool {
    old.and_then(zone) != new.and_then(zone)
}

/// The Services of a node's pods.
pub(super) fn services_of_node(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    let pods: Vec<Arc<Pod>> = view.list_as::<Pod>(None);
    let here = pods.iter().filter(|pod| node_name(pod) == name);
    let mut keys: Vec<Key> = Vec::new();
    for key in here.flat_map(|pod| services_of_pod(&**pod, view)) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// For whom a ready endpoint is meant, where its Service says that near ones are preferred.
pub(super) fn hints(spec: &ServiceSpec, endpoint: &Endpoint) -> Option<EndpointHints> {
    let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(false);
    let for_zones = || endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let for_nodes = || endpoint.node_name.clone().map(|name| vec![ForNode { name }]);
    let hints = match spec.traffic_distribution.as_deref().filter(|_| ready)? {
        "PreferClose" | "PreferSameZone" => EndpointHints { for_zones: for_zones(), for_nodes: None },
        "PreferSameNode" => EndpointHints { for_zones: for_zones(), for_nodes: for_nodes() },
        _ => return None,
    };
    (hints.for_zones.is_some() || hints.for_nodes.is_some()).then_some(hints)
}

//! How Services want their traffic shared out, and what is told of that: settings that cannot be read, Services that are
//! called and have nobody.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{Node, ObjectReference, Service, ServicePort},
    discovery::v1::Endpoint,
};
use podium_api::{ObjectKey, kind_of};
use podium_client::{Delta, Mirror, Note, Recorder};
use podium_network::{
    BadSetting, Observer, Settings,
    table::{Distribution, Name, Place, Traffic},
};

use super::Shared;
use crate::decide::balancer::ingress;

/// How long a client is remembered when its Service does not say.
const AFFINITY: Duration = Duration::from_secs(10_800);
const ZONE: &str = "topology.kubernetes.io/zone";

/// Tells the network where it is, and listens to what it has to say.
pub(crate) async fn connect(shared: &Arc<Shared>) {
    let node = &shared.config.node_name;
    let found = shared.api.get(&kind_of::<Node>(), &ObjectKey::new("", node)).await;
    let zone = found.ok().and_then(|node| node.meta().labels.as_ref()?.get(ZONE).cloned());
    shared.network.locate(node, zone.as_deref());
    shared.network.locate_at(shared.config.node_ip);
    let unserved = Unserved { services: shared.services.clone(), recorder: shared.recorder.clone() };
    shared.network.observe(Arc::new(unserved));
}

/// Records an event for a Service that is called and has nobody.
struct Unserved {
    services: Arc<dyn Mirror>,
    recorder: Recorder,
}

impl Observer for Unserved {
    fn no_endpoints(&self, service: &Name, port: u16) {
        let Some(found) = self.services.get(&ObjectKey::new(&service.namespace, &service.name)) else { return };
        let Some(service) = found.downcast_ref::<Service>() else { return };
        let selector =
            service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|labels| !labels.is_empty());
        let selector =
            selector.map(|labels| labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>());
        let advice = match selector {
            Some(labels) => format!("no pod with the labels {} is ready", labels.join(",")),
            None => "it has no selector, and nobody has given it endpoints that are ready".to_owned(),
        };
        let message = format!("port {port} was called, and there is nobody behind it: {advice}");
        note(&self.recorder, service, (true, "NoEndpoints"), message);
    }
}

/// Records an event about a Service: whether it is a warning, and its reason.
pub(crate) fn note(recorder: &Recorder, service: &Service, (warning, reason): (bool, &str), message: String) {
    let meta = &service.metadata;
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    };
    recorder.note(Note { regarding, warning, reason: reason.to_owned(), message });
}

/// Says what of a Service's annotations cannot be read, once for each change of them.
pub(crate) fn note_bad_settings(recorder: &Recorder, delta: &Delta) {
    let Delta::Put { old, new } = delta else { return };
    let Some(service) = new.downcast_ref::<Service>() else { return };
    let bad = settings(service).1;
    let before = old.as_ref().and_then(|old| old.downcast_ref()).map(|old| settings(old).1).unwrap_or_default();
    for setting in bad.into_iter().filter(|setting| !before.contains(setting)) {
        note(recorder, service, (true, "InvalidAnnotation"), setting.to_string());
    }
}

fn settings(service: &Service) -> (Settings, Vec<BadSetting>) {
    let annotations = service.metadata.annotations.as_ref();
    Settings::read(|name| annotations.and_then(|all| all.get(name)).map(String::as_str))
}

pub(crate) fn traffic(service: &Service) -> Traffic {
    let spec = service.spec.clone().unwrap_or_default();
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let timeout = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
    let timeout = timeout.and_then(|seconds| u64::try_from(seconds).ok()).map_or(AFFINITY, Duration::from_secs);
    Traffic {
        affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then_some(timeout),
        internal_local: is_local(&spec.internal_traffic_policy),
        external_local: is_local(&spec.external_traffic_policy),
        distribution: match spec.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => Some(Distribution::SameZone),
            Some("PreferSameNode") => Some(Distribution::SameNode),
            _ => None,
        },
        reached_at: reached_at(service),
        h2_ports: spec.ports.iter().flatten().filter(|port| speaks_h2(port)).filter_map(number).collect(),
        settings: Arc::new(settings(service).0),
    }
}

/// Where a Service is beside its own addresses: `externalIPs`, and a load balancer's where that is not a proxy.
fn reached_at(service: &Service) -> Vec<IpAddr> {
    let external = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    let balanced = ingress(service).iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    external.chain(balanced.filter_map(|ingress| ingress.ip.as_ref())).filter_map(|ip| ip.parse().ok()).collect()
}

/// Whether a port's pods want HTTP/2 with prior knowledge.
fn speaks_h2(port: &ServicePort) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == "TCP"
        && matches!(port.app_protocol.as_deref(), Some("kubernetes.io/h2c" | "h2c" | "grpc"))
}

fn number(port: &ServicePort) -> Option<u16> {
    u16::try_from(port.port).ok()
}

pub(crate) fn place(endpoint: &Endpoint) -> Place {
    let hints = endpoint.hints.clone().unwrap_or_default();
    Place {
        node: endpoint.node_name.clone(),
        zone: endpoint.zone.clone(),
        zone_hints: hints.for_zones.into_iter().flatten().map(|zone| zone.name).collect(),
        node_hints: hints.for_nodes.into_iter().flatten().map(|node| node.name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(annotations: Value, spec: Value) -> Service {
        let meta = json!({ "name": "web", "annotations": annotations });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
    }

    #[test]
    fn a_service_says_how_its_traffic_is_shared_out() {
        let read = |spec| traffic(&service(json!({}), spec));
        assert_eq!(read(json!({})), Traffic::default());
        let sticky =
            json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 5 } } });
        assert_eq!(read(sticky).affinity, Some(Duration::from_secs(5)));
        assert_eq!(read(json!({ "sessionAffinity": "ClientIP" })).affinity, Some(AFFINITY));
        let local = read(json!({ "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Cluster" }));
        assert_eq!((local.internal_local, local.external_local), (true, false));
        let ports = json!([
            { "port": 80, "appProtocol": "http" }, { "port": 81, "appProtocol": "kubernetes.io/h2c" },
            { "port": 82, "appProtocol": "grpc" }, { "port": 83, "protocol": "UDP", "appProtocol": "h2c" },
        ]);
        assert_eq!(read(json!({ "ports": ports })).h2_ports, [81, 82]);
        for (word, expected) in [
            ("PreferClose", Some(Distribution::SameZone)),
            ("PreferSameZone", Some(Distribution::SameZone)),
            ("PreferSameNode", Some(Distribution::SameNode)),
            ("other", None),
        ] {
            assert_eq!(read(json!({ "trafficDistribution": word })).distribution, expected, "{word}");
        }
    }

    #[test]
    fn a_service_is_at_addresses_outside() {
        let json = json!({
            "metadata": { "name": "web" },
            "spec": { "externalIPs": ["192.0.2.1", "no address"] },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "192.0.2.2", "ipMode": "VIP" }, { "ip": "192.0.2.3" },
                { "ip": "192.0.2.4", "ipMode": "Proxy" }, { "hostname": "lb.example" },
            ] } },
        });
        let found = traffic(&serde_json::from_value(json).unwrap()).reached_at;
        assert_eq!(found, [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last])));
    }

    #[test]
    fn settings_are_annotations() {
        let service = service(json!({ "podium.dev/retries": "0", "podium.dev/slow-start": "soon" }), json!({}));
        let (found, bad) = settings(&service);
        assert_eq!((found.retries, bad.len()), (0, 1));
        assert_eq!(traffic(&service).settings.retries, 0);
    }

    #[test]
    fn endpoints_are_somewhere() {
        let json = json!({ "addresses": [], "nodeName": "n1", "zone": "z1",
            "hints": { "forZones": [{ "name": "z2" }], "forNodes": [{ "name": "n2" }] } });
        let found = place(&serde_json::from_value(json).unwrap());
        let words = |text: &str| vec![text.to_owned()];
        let expected = Place {
            node: Some("n1".into()),
            zone: Some("z1".into()),
            zone_hints: words("z2"),
            node_hints: words("n2"),
        };
        assert_eq!(found, expected);
    }
}

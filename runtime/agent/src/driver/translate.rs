//! Keeps the network's table as the API has it: Services and EndpointSlices as plain data. Ingresses are in `ingress`.

use std::sync::Arc;

use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_client::{Delta, Mirror, Recorder};
use podium_network::{
    NamespaceEgress, Network,
    table::{self, Name, Protocol},
};

use super::{traffic, way_out};

/// What the network's table is made of.
pub(crate) struct Sources {
    pub(crate) namespaces: Arc<dyn Mirror>,
    pub(crate) services: Arc<dyn Mirror>,
    pub(crate) slices: Arc<dyn Mirror>,
}

/// Follows the mirrors until all of them have ended.
pub(crate) async fn follow(network: Network, sources: Sources, recorder: Recorder) {
    let (mut namespaces, mut services) = (sources.namespaces.subscribe(), sources.services.subscribe());
    let mut slices = sources.slices.subscribe();
    loop {
        tokio::select! {
            Some(delta) = namespaces.recv() => apply_namespace(&network, &delta),
            Some(delta) = services.recv() => {
                traffic::note_bad_settings(&recorder, &delta);
                apply_service(&network, &delta);
            }
            Some(delta) = slices.recv() => apply_slice(&network, &delta),
            else => return,
        }
    }
}

fn apply_namespace(network: &Network, delta: &Delta) {
    let (meta, egress) = match delta {
        Delta::Put { new, .. } => {
            let name = new.meta().name.as_deref().unwrap_or_default();
            (new.meta(), way_out::namespace_egress(name, new.meta().annotations.as_ref()))
        }
        Delta::Delete { old, .. } => (old.meta(), NamespaceEgress::default()),
    };
    network.put_namespace(meta.name.as_deref().unwrap_or_default(), egress);
}

fn apply_service(network: &Network, delta: &Delta) {
    match delta {
        Delta::Put { new, .. } => match new.downcast_ref().and_then(service) {
            Some(service) => network.put_service(service),
            None => network.remove_service(&name_of(new.meta())),
        },
        Delta::Delete { old, .. } => network.remove_service(&name_of(old.meta())),
    }
}

fn apply_slice(network: &Network, delta: &Delta) {
    match delta {
        Delta::Put { new, .. } => match new.downcast_ref().and_then(slice) {
            Some(slice) => network.put_slice(slice),
            None => network.remove_slice(&name_of(new.meta())),
        },
        Delta::Delete { old, .. } => network.remove_slice(&name_of(old.meta())),
    }
}

pub(crate) fn name_of(meta: &ObjectMeta) -> Name {
    Name::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

pub(crate) fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|p| *p > 0)
}

/// SCTP is not spoken.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// `None` for an object that says nothing.
fn service(service: &Service) -> Option<table::Service> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    let ports = spec.ports.iter().flatten().filter_map(|p| {
        Some(table::ServicePort {
            name: p.name.clone().unwrap_or_default(),
            protocol: protocol(p.protocol.as_deref())?,
            port: port(p.port)?,
            node_port: p.node_port.and_then(port),
        })
    });
    Some(table::Service {
        name: name_of(&service.metadata),
        cluster_ip: spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()),
        ports: ports.collect(),
        external_name: spec.external_name.clone().filter(|name| external && !name.is_empty()),
        traffic: traffic::traffic(service),
    })
}

/// `None` for a slice that belongs to no Service, or whose endpoints are no addresses.
fn slice(slice: &EndpointSlice) -> Option<table::Slice> {
    let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    let ports = slice.ports.iter().flatten();
    let ports = ports.filter_map(|p| Some((p.name.clone().unwrap_or_default(), port(p.port?)?)));
    let endpoints = slice.endpoints.iter().flatten().flat_map(|endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // Unknown counts as ready.
        let ready = conditions.ready.unwrap_or(true);
        let serving = conditions.serving.unwrap_or(ready);
        let terminating = conditions.terminating.unwrap_or(false);
        let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
        let (hostname, place) = (endpoint.hostname.clone(), traffic::place(endpoint));
        ips.map(move |ip| table::Endpoint {
            ip,
            hostname: hostname.clone(),
            ready,
            serving,
            terminating,
            place: place.clone(),
        })
    });
    Some(table::Slice {
        name: name_of(&slice.metadata),
        service: service.clone(),
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services() {
        let read = |spec| {
            let json = json!({ "metadata": { "namespace": "a", "name": "web" }, "spec": spec });
            service(&serde_json::from_value(json).unwrap())
        };
        let found =
            read(json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 80, "nodePort": 30080 }, { "port": 0 }] }));
        let ports =
            vec![table::ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: Some(30080) }];
        let cluster_ip = Some([10, 96, 0, 1].into());
        let name = Name::new("a", "web");
        let traffic = table::Traffic::default();
        assert_eq!(found, Some(table::Service { name, cluster_ip, ports, external_name: None, traffic }));
        assert_eq!(read(json!({ "clusterIP": "None" })).unwrap().cluster_ip, None);
        let external = read(json!({ "type": "ExternalName", "externalName": "x.example" })).unwrap();
        assert_eq!(external.external_name.as_deref(), Some("x.example"));
        let udp = read(json!({ "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 9, "protocol": "SCTP" }] }));
        assert_eq!(udp.unwrap().ports.iter().map(|p| p.protocol).collect::<Vec<_>>(), [Protocol::Udp]);
    }

    #[test]
    fn slices() {
        let json = json!({
            "metadata": { "namespace": "a", "name": "web-x", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080 }],
            "endpoints": [
                { "addresses": ["10.0.0.2"], "conditions": { "ready": true } },
                { "addresses": ["10.0.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } },
                { "addresses": ["10.0.0.4"] },
                { "addresses": ["not an address"] },
            ],
        });
        let found = slice(&serde_json::from_value(json).unwrap()).unwrap();
        assert_eq!((found.service.as_str(), found.ports), ("web", vec![("http".to_owned(), 8080)]));
        let told: Vec<_> = found.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
        assert_eq!(told, [(true, true, false), (false, true, true), (true, true, false)]);
        let orphan = json!({ "metadata": { "name": "x" }, "addressType": "IPv4", "endpoints": [] });
        assert_eq!(slice(&serde_json::from_value(orphan).unwrap()), None);
    }
}

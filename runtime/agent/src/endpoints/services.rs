//! `/services/NAMESPACE/NAME`: what a Service's endpoints do at this moment, as this node's balancing sees them. A kubelet has
//! nothing like it, having no part in Services.

use podium_network::{
    EndpointState, PortState, ServiceState,
    table::{Name, Protocol},
};
use serde_json::{Value, json};

use crate::driver::Shared;

/// `None` when there is no such Service.
pub(super) fn state(shared: &Shared, namespace: &str, name: &str) -> Option<Value> {
    let state = shared.network.service_state(&Name::new(namespace, name))?;
    Some(shown(&state, &shared.config.node_name, (namespace, name)))
}

fn shown(state: &ServiceState, node: &str, (namespace, name): (&str, &str)) -> Value {
    json!({
        "kind": "ServiceState",
        "apiVersion": "network.podium.dev/v1alpha1",
        "metadata": { "namespace": namespace, "name": name },
        "nodeName": node,
        "requestsUnderWay": state.under_way,
        "requestsWaiting": state.waiting,
        "requestsMax": state.requests_max,
        "ports": state.ports.iter().map(port).collect::<Vec<_>>(),
    })
}

fn port(port: &PortState) -> Value {
    json!({
        "port": port.port,
        "protocol": if port.protocol == Protocol::Udp { "UDP" } else { "TCP" },
        "endpointsTotal": port.endpoints_total,
        "endpoints": port.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn endpoint(endpoint: &EndpointState) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "underWay": endpoint.under_way,
        "latencySeconds": endpoint.latency.as_secs_f64(),
        "failures": endpoint.failures,
        "ejectedSeconds": endpoint.ejected_for.map(|left| left.as_secs_f64()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_state_is_shown_with_its_units() {
        let state = ServiceState {
            under_way: 2,
            waiting: 1,
            requests_max: Some(2),
            ports: vec![PortState {
                port: 80,
                protocol: Protocol::Tcp,
                endpoints_total: 1,
                endpoints: vec![EndpointState {
                    address: "10.244.0.7:8080".parse().unwrap(),
                    under_way: 2,
                    latency: Duration::from_micros(1500),
                    failures: 5,
                    ejected_for: Some(Duration::from_secs(9)),
                }],
            }],
        };
        let expected = json!({
            "kind": "ServiceState", "apiVersion": "network.podium.dev/v1alpha1",
            "metadata": { "namespace": "a", "name": "web" }, "nodeName": "n1",
            "requestsUnderWay": 2, "requestsWaiting": 1, "requestsMax": 2,
            "ports": [{ "port": 80, "protocol": "TCP", "endpointsTotal": 1, "endpoints": [{
                "address": "10.244.0.7:8080", "underWay": 2, "latencySeconds": 0.0015, "failures": 5,
                "ejectedSeconds": 9.0,
            }] }],
        });
        assert_eq!(shown(&state, "n1", ("a", "web")), expected);
    }
}

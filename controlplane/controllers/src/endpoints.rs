//! Endpoints: the pods behind a Service in one object, for clients that know no EndpointSlices.
//!
//! At most [`ADDRESSES_MAX`] addresses; more are left out and an annotation says so. Services without a selector are left
//! alone.
//!
//! # Source
//! Kubernetes `pkg/controller/endpoint/endpoints_controller.go`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{Kind, Object, kind_of};

use crate::{
    Action, Controller, Key, Plan, Trigger, View, ViewExt,
    owners::delete,
    service_pods::{Backend, Port, backends, is_headless, selecting, services_of_pod},
};

/// At most so many addresses are listed.
pub const ADDRESSES_MAX: usize = 1000;

const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The controller of Endpoints.
pub struct EndpointsObjects;

impl Controller for EndpointsObjects {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn component(&self) -> &'static str {
        "endpoint-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        let same_name = |object: &dyn Object, _: &dyn View| vec![Key::new(&Service::NAMES, object.key())];
        vec![
            Trigger { kind: kind_of::<Service>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<Pod>(), keys: services_of_pod },
            Trigger { kind: kind_of::<Endpoints>(), keys: same_name },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let seen = view.get_as::<Endpoints>(&key.object);
        let Some(service) = view.get_as::<Service>(&key.object) else {
            let ours = seen.filter(|e| e.metadata.labels.as_ref().is_some_and(|l| l.contains_key(MANAGED_BY)));
            return Plan { actions: ours.iter().map(|e| delete(&**e)).collect(), requeue_after: None };
        };
        let Some(spec) = selecting(&service) else { return Plan::default() };
        let (subsets, truncated) = subsets(spec, backends(&service, spec, view));
        let wanted = with_content(seen.as_deref(), &service, spec, subsets, truncated);
        let action = match seen {
            Some(seen) if *seen == wanted => None,
            Some(_) => Some(Action::Update(Box::new(wanted) as Box<dyn Object>)),
            None => Some(Action::Create(Box::new(wanted) as Box<dyn Object>)),
        };
        Plan { actions: action.into_iter().collect(), requeue_after: None }
    }
}

fn with_content(
    seen: Option<&Endpoints>,
    service: &Service,
    spec: &ServiceSpec,
    subsets: Vec<EndpointSubset>,
    truncated: bool,
) -> Endpoints {
    let fresh = || ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    };
    let mut metadata = seen.map_or_else(fresh, |e| e.metadata.clone());
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.remove(HEADLESS);
    if is_headless(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.annotations = Some(annotations).filter(|a| !a.is_empty());
    Endpoints { metadata, subsets: Some(subsets).filter(|s| !s.is_empty()) }
}

/// One subset for each set of ports. Ready addresses are the last to be left out. A pod on its way out is listed only when
/// the Service publishes addresses that are not ready.
fn subsets(spec: &ServiceSpec, mut backends: Vec<Backend>) -> (Vec<EndpointSubset>, bool) {
    let publish_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let headless = is_headless(spec);
    backends.retain(|b| (publish_all || !b.terminating) && (headless || !b.ports.is_empty()));
    let is_ready = |b: &Backend| publish_all || b.serving;
    backends.sort_by_key(|b| !is_ready(b));
    let truncated = backends.len() > ADDRESSES_MAX;
    backends.truncate(ADDRESSES_MAX);
    let mut by_ports: BTreeMap<Vec<Port>, EndpointSubset> = BTreeMap::new();
    for backend in backends {
        let ready = is_ready(&backend);
        let address = EndpointAddress {
            ip: backend.ip,
            hostname: backend.hostname,
            node_name: backend.node,
            target_ref: Some(backend.target),
        };
        let subset = by_ports.entry(backend.ports).or_default();
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let finish = |(ports, mut subset): (Vec<Port>, EndpointSubset)| {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
        subset.ports = Some(ports.into_iter().map(wire).collect::<Vec<_>>()).filter(|p| !p.is_empty());
        subset
    };
    (by_ports.into_iter().map(finish).collect(), truncated)
}

fn wire(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|n| !n.is_empty()),
        port: port.number,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

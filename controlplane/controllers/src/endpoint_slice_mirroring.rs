//! EndpointSlices of Endpoints that somebody keeps by hand: readers know slices only.
//!
//! Only of a Service without a selector: those of the others come from their pods. One slice for each set of ports and each
//! family of addresses; addresses past [`ADDRESSES_MAX`] are left out.
//!
//! # Source
//! Kubernetes `pkg/controller/endpointslicemirroring`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{EndpointAddress, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{Kind, Object, kind_of};

use crate::{
    Action, Controller, Key, Plan, Trigger, View, ViewExt,
    endpoint_slice::{MANAGED_BY, SERVICE_NAME, ports_key, service_name},
    owners::{controller_ref, delete},
};

/// The value of [`MANAGED_BY`] for ours.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// At most so many addresses of one family and set of ports.
pub const ADDRESSES_MAX: usize = 1000;

/// Label of Endpoints that want no slices.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints themselves.
const OWN: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

/// The controller.
pub struct Mirroring;

impl Controller for Mirroring {
    fn name(&self) -> &'static str {
        "endpointslicemirroring"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<Endpoints>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<Service>(), keys: of_service },
            Trigger { kind: kind_of::<EndpointSlice>(), keys: of_slice },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let service = view.get_as::<Service>(&key.object);
        let endpoints = view.get_as::<Endpoints>(&key.object).filter(|e| is_mirrored(e, service.as_deref()));
        let mut seen = view.list_as::<EndpointSlice>(Some(&key.object.namespace));
        seen.retain(|slice| is_ours(&slice.metadata) && service_name(&slice.metadata) == Some(&key.object.name));
        Plan { actions: settle(endpoints.as_deref(), seen), requeue_after: None }
    }
}

fn is_ours(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == MANAGER)
}

fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let meta = &endpoints.metadata;
    let skips = meta.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|value| value == "true");
    let lock = meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    let by_hand = |s: &Service| s.spec.as_ref().is_some_and(|s| s.selector.as_ref().is_none_or(BTreeMap::is_empty));
    !skips && !lock && meta.deletion_timestamp.is_none() && service.is_some_and(by_hand)
}

fn of_service(object: &dyn Object, _view: &dyn View) -> Vec<Key> {
    vec![Key::new(&Endpoints::NAMES, object.key())]
}

fn of_slice(object: &dyn Object, _view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    let name = service_name(meta).filter(|_| is_ours(meta));
    let key = |name: &str| podium_api::ObjectKey::new(meta.namespace.clone().unwrap_or_default(), name);
    name.map(|name| Key::new(&Endpoints::NAMES, key(name))).into_iter().collect()
}

/// A slice's family and ports, as they can be compared.
type Group = (&'static str, String);

/// What is to be in the slices.
fn wanted(endpoints: &Endpoints) -> BTreeMap<Group, (Vec<EndpointPort>, Vec<Endpoint>)> {
    let mut groups: BTreeMap<Group, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let others = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(others) {
            let Some(family) = family(&address.ip) else { continue };
            let group = groups.entry((family, ports_key(&ports))).or_insert_with(|| (ports.clone(), Vec::new()));
            if group.1.len() < ADDRESSES_MAX {
                group.1.push(endpoint(address, ready));
            }
        }
    }
    groups
}

fn family(ip: &str) -> Option<&'static str> {
    Some(if ip.parse::<IpAddr>().ok()?.is_ipv4() { "IPv4" } else { "IPv6" })
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// Slices that fit stay and are brought up to date, others go, missing ones are made.
fn settle(endpoints: Option<&Endpoints>, seen: Vec<Arc<EndpointSlice>>) -> Vec<Action> {
    let mut wanted = endpoints.map(wanted).unwrap_or_default();
    let mut actions = Vec::new();
    for slice in seen {
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        let group = (family, ports_key(slice.ports.as_deref().unwrap_or_default()));
        match (endpoints, wanted.remove(&group)) {
            (Some(owner), Some((ports, endpoints))) => {
                let metadata = ObjectMeta {
                    labels: Some(labels(owner)),
                    annotations: annotations(owner),
                    ..slice.metadata.clone()
                };
                let new =
                    EndpointSlice { metadata, endpoints: Some(endpoints), ports: Some(ports), ..(*slice).clone() };
                if new != *slice {
                    actions.push(Action::Update(Box::new(new)));
                }
            }
            _ => actions.push(delete(&*slice)),
        }
    }
    if let Some(owner) = endpoints {
        let make = |((family, _), (ports, endpoints))| Action::Create(Box::new(make(owner, family, ports, endpoints)));
        actions.extend(wanted.into_iter().map(make));
    }
    actions
}

fn make(owner: &Endpoints, family: &str, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let metadata = ObjectMeta {
        generate_name: owner.metadata.name.as_ref().map(|name| format!("{name}-")),
        namespace: owner.metadata.namespace.clone(),
        labels: Some(labels(owner)),
        annotations: annotations(owner),
        owner_references: Some(vec![controller_ref(owner)]),
        ..ObjectMeta::default()
    };
    EndpointSlice { metadata, address_type: family.to_owned(), endpoints: Some(endpoints), ports: Some(ports) }
}

fn labels(owner: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = owner.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), owner.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn annotations(owner: &Endpoints) -> Option<BTreeMap<String, String>> {
    let mut annotations = owner.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN.contains(&name.as_str()));
    Some(annotations).filter(|a| !a.is_empty())
}

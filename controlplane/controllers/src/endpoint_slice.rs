//! EndpointSlices: the pods behind a Service, in slices of at most [`ENDPOINTS_MAX`], changed as little as possible.
//!
//! IPv4 only. Slices of others (another `managed-by`) and Services without a selector are left alone. When a Service
//! goes, its slices go by their owner references.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/endpointslice/reconciler.go`.

mod place;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod, Service, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{Kind, Object, ObjectKey, kind_of};

use self::place::Zones;
use crate::{
    Action, Controller, Key, Plan, Trigger, View, ViewExt,
    owners::{controller_ref, delete, is_controlled_by},
    service_pods::{Backend, Port, backends, is_headless, selecting, services_of_pod},
};

/// Label that names the Service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that says who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] for ours.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// At most so many endpoints are in one slice.
pub const ENDPOINTS_MAX: usize = 100;

const HEADLESS: &str = "service.kubernetes.io/headless";

/// The controller of EndpointSlices.
pub struct EndpointSlices;

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<Service>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<Pod>(), keys: services_of_pod },
            Trigger { kind: kind_of::<EndpointSlice>(), keys: of_slice },
            Trigger { kind: kind_of::<Node>(), keys: place::services_of_node },
        ]
    }

    fn concerns(&self, old: Option<&dyn Object>, new: Option<&dyn Object>) -> bool {
        let is_node = new.or(old).is_some_and(|object| object.downcast_ref::<Node>().is_some());
        !is_node || place::moved(old, new)
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let Some(service) = view.get_as::<Service>(&key.object) else { return Plan::default() };
        let Some(spec) = selecting(&service) else { return Plan::default() };
        if service.metadata.deletion_timestamp.is_some() {
            return Plan::default();
        }
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let mut seen = view.owned_as::<EndpointSlice>(uid);
        seen.retain(|slice| is_ours(slice, uid));
        let drafts = fill(group(spec, backends(&service, spec, view), Zones::new(view)), seen);
        Plan { actions: settle(&service, spec, drafts), requeue_after: None }
    }
}

fn is_ours(slice: &EndpointSlice, service_uid: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    is_controlled_by(&slice.metadata, service_uid)
        && slice.metadata.deletion_timestamp.is_none()
        && labels.is_some_and(|l| l.get(MANAGED_BY).is_some_and(|m| m == MANAGER))
}

fn of_slice(object: &dyn Object, _view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    let name = service_name(meta);
    let key = |name: &str| ObjectKey::new(meta.namespace.clone().unwrap_or_default(), name);
    name.map(|name| Key::new(&Service::NAMES, key(name))).into_iter().collect()
}

/// The Service that a slice is about.
pub(crate) fn service_name(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// Endpoints by the ports that they offer, then by the uid of their pod: all of one slice offer the same.
type Groups = BTreeMap<Vec<Port>, BTreeMap<String, Endpoint>>;

fn group(spec: &ServiceSpec, backends: Vec<Backend>, mut zones: Zones<'_>) -> Groups {
    let publish_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut groups = Groups::new();
    for backend in backends {
        let uid = backend.target.uid.clone().unwrap_or_default();
        let conditions = EndpointConditions {
            ready: Some(publish_all || (backend.serving && !backend.terminating)),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        };
        let mut endpoint = Endpoint {
            addresses: vec![backend.ip],
            conditions: Some(conditions),
            hostname: backend.hostname,
            zone: backend.node.as_deref().and_then(|node| zones.of(node)),
            node_name: backend.node,
            target_ref: Some(backend.target),
            ..Endpoint::default()
        };
        endpoint.hints = place::hints(spec, &endpoint);
        groups.entry(backend.ports).or_default().insert(uid, endpoint);
    }
    groups
}

/// A slice as it is to be.
struct Draft {
    seen: Option<Arc<EndpointSlice>>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// Endpoints stay in the slice where they are; new ones go to slices that are written anyway, then to any with room,
/// then to new slices.
fn fill(groups: Groups, seen: Vec<Arc<EndpointSlice>>) -> Vec<Draft> {
    let mut by_ports: HashMap<String, Vec<Arc<EndpointSlice>>> = HashMap::new();
    for slice in seen {
        by_ports.entry(ports_key(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
    }
    let mut drafts = Vec::new();
    for (ports, mut endpoints) in groups {
        let ports = wire_ports(&ports);
        let slices = by_ports.remove(&ports_key(&ports)).unwrap_or_default();
        let mut kept: Vec<Draft> = slices.into_iter().map(|slice| keep(slice, &mut endpoints)).collect();
        place(&mut kept, ports, endpoints);
        drafts.extend(kept);
    }
    // Nobody offers these ports any more.
    let stale = by_ports.into_values().flatten();
    drafts.extend(stale.map(|slice| keep(slice, &mut BTreeMap::new())));
    drafts
}

/// What remains of a slice, taken out of the wanted endpoints.
fn keep(slice: Arc<EndpointSlice>, wanted: &mut BTreeMap<String, Endpoint>) -> Draft {
    let uid = |e: &Endpoint| e.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
    let before = slice.endpoints.as_deref().unwrap_or_default();
    let endpoints: Vec<Endpoint> = before.iter().filter_map(|e| wanted.remove(&uid(e))).collect();
    let changed = endpoints != before;
    Draft { ports: slice.ports.clone().unwrap_or_default(), seen: Some(slice), endpoints, changed }
}

fn place(drafts: &mut Vec<Draft>, ports: Vec<EndpointPort>, endpoints: BTreeMap<String, Endpoint>) {
    let mut rest = endpoints.into_values();
    let mut order: Vec<&mut Draft> = drafts.iter_mut().collect();
    order.sort_by_key(|d| !d.changed);
    for draft in order {
        let room = ENDPOINTS_MAX.saturating_sub(draft.endpoints.len());
        let before = draft.endpoints.len();
        draft.endpoints.extend(rest.by_ref().take(room));
        draft.changed |= draft.endpoints.len() > before;
    }
    loop {
        let endpoints: Vec<Endpoint> = rest.by_ref().take(ENDPOINTS_MAX).collect();
        if endpoints.is_empty() {
            return;
        }
        drafts.push(Draft { seen: None, ports: ports.clone(), endpoints, changed: true });
    }
}

/// Empty slices go, but for one: a Service without endpoints has one empty slice, so that readers know it was looked at.
fn settle(service: &Service, spec: &ServiceSpec, mut drafts: Vec<Draft>) -> Vec<Action> {
    let all_empty = drafts.iter().all(|d| d.endpoints.is_empty());
    if drafts.is_empty() {
        drafts.push(Draft { seen: None, ports: Vec::new(), endpoints: Vec::new(), changed: true });
    }
    let mut actions = Vec::new();
    for (i, draft) in drafts.into_iter().enumerate() {
        let needed = !draft.endpoints.is_empty() || (all_empty && i == 0);
        match &draft.seen {
            Some(seen) if !needed => actions.push(delete(&**seen)),
            _ => actions.extend(write(service, spec, draft)),
        }
    }
    actions
}

fn write(service: &Service, spec: &ServiceSpec, draft: Draft) -> Option<Action> {
    let labels = labels(service, spec);
    let Draft { seen, ports, endpoints, changed } = draft;
    let content = |metadata| EndpointSlice {
        metadata,
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports),
    };
    match seen {
        Some(seen) if !changed && seen.metadata.labels.as_ref() == Some(&labels) => None,
        Some(seen) => {
            let metadata = ObjectMeta { labels: Some(labels), ..seen.metadata.clone() };
            Some(Action::Update(Box::new(content(metadata))))
        }
        None => {
            let metadata = ObjectMeta {
                generate_name: service.metadata.name.as_ref().map(|name| format!("{name}-")),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![controller_ref(service)]),
                ..ObjectMeta::default()
            };
            Some(Action::Create(Box::new(content(metadata))))
        }
    }
}

fn labels(service: &Service, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(spec) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn wire_ports(ports: &[Port]) -> Vec<EndpointPort> {
    let wire = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.number),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(wire).collect()
}

/// Equal for equal ports in any order.
pub(crate) fn ports_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<String> =
        ports.iter().map(|p| format!("{:?}", (&p.name, p.port, &p.protocol, &p.app_protocol))).collect();
    keys.sort();
    keys.join(",")
}

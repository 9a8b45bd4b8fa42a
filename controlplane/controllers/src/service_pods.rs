//! The pods behind a Service, as EndpointSlices and Endpoints both see them.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use podium_api::{Kind, Object, ObjectKey, selector::Selector};

use crate::{
    Key, View, ViewExt,
    pods::{is_finished, is_ready, node_name},
};

/// A port of a Service as one pod offers it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) number: i32,
    pub(crate) protocol: String,
    pub(crate) app_protocol: Option<String>,
}

/// One pod behind a Service.
pub(crate) struct Backend {
    pub(crate) ip: String,
    /// Sorted.
    pub(crate) ports: Vec<Port>,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) node: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) target: ObjectReference,
}

/// The spec of a Service whose endpoints are ours to keep: it selects pods and is no alias.
pub(crate) fn selecting(service: &Service) -> Option<&ServiceSpec> {
    let spec = service.spec.as_ref()?;
    let selects = spec.selector.as_ref().is_some_and(|s| !s.is_empty());
    (selects && spec.type_.as_deref() != Some("ExternalName")).then_some(spec)
}

/// Whether it has no address of its own.
pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// The keys of the Services that select a pod.
pub(crate) fn services_of_pod(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    let services = view.list_as::<Service>(meta.namespace.as_deref());
    let selects = |service: &Arc<Service>| {
        let selector = selecting(service).and_then(|s| s.selector.as_ref());
        selector.is_some_and(|s| Selector::from_labels(s).matches_option(meta.labels.as_ref()))
    };
    services.iter().filter(|s| selects(s)).map(|s| Key::new(&Service::NAMES, ObjectKey::of(&s.metadata))).collect()
}

/// All pods behind a Service that have an address and have not ended, in order of their names.
pub(crate) fn backends(service: &Service, spec: &ServiceSpec, view: &dyn View) -> Vec<Backend> {
    let selector = spec.selector.as_ref().map_or_else(Selector::nothing, Selector::from_labels);
    let pods = view.list_as::<Pod>(service.metadata.namespace.as_deref());
    let selected = pods.iter().filter(|pod| !is_finished(pod) && selector.matches_option(pod.metadata.labels.as_ref()));
    selected.filter_map(|pod| backend(service, spec, pod)).collect()
}

fn backend(service: &Service, spec: &ServiceSpec, pod: &Pod) -> Option<Backend> {
    let ip = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    let mut ports: Vec<Port> = spec.ports.iter().flatten().filter_map(|port| resolve(port, pod)).collect();
    ports.sort();
    let pod_spec = pod.spec.as_ref()?;
    let named = pod_spec.subdomain.as_deref() == service.metadata.name.as_deref();
    Some(Backend {
        ip,
        ports,
        serving: is_ready(pod),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        node: Some(node_name(pod).to_owned()).filter(|n| !n.is_empty()),
        hostname: pod_spec.hostname.clone().filter(|h| named && !h.is_empty()),
        target: ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        },
    })
}

/// The pod's port for a port of the Service; `None` when the pod has no port of the name asked for.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|s| &s.containers);
            let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
            let same = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
                p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.find(same)?.container_port
        }
    };
    let (name, app_protocol) = (port.name.clone().unwrap_or_default(), port.app_protocol.clone());
    Some(Port { name, number, protocol: protocol.to_owned(), app_protocol })
}

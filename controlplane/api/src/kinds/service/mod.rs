//! Service: a stable address in front of pods.
//!
//! Addresses and node ports are allocated by the API server, not here; this fills what follows from the spec alone.
//!
//! # Source
//! Kubernetes `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go` (`ValidateService`),
//! `pkg/registry/core/service/{strategy,storage/storage}.go`, `pkg/printers/internalversion/printers.go`.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec, ServiceStatus},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{condition, label_selector, pod};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, Scope, Sub, Verb},
    names::NameRule,
};

mod validation;

impl Kind for Service {
    const NAMES: Names = Names::new("", "v1", "Service", "services", "service")
        .short(&["svc"])
        .name_rule(NameRule::Dns1035Label)
        .categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const RETURNS_DELETED: bool = true;
    const CREATE_ON_UPDATE: bool = true;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::verb("proxy", Verb::Proxy), Sub::STATUS];
    const FIELDS: &'static [Field<Self>] = &[
        Field { path: "spec.clusterIP", value: |s| text(s, |s| s.cluster_ip.as_ref()) },
        Field { path: "spec.type", value: |s| text(s, |s| s.type_.as_ref()) },
    ];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Type", |s, _| Cell::from(text(s, |s| s.type_.as_ref()))).field::<ServiceSpec>("type"),
        Column::<Self>::text("Cluster-IP", |s, _| {
            let ip = text(s, |s| s.cluster_ips.as_ref().and_then(|i| i.first()).or(s.cluster_ip.as_ref()));
            Cell::from(if ip.is_empty() { "<none>".to_owned() } else { ip })
        })
        .field::<ServiceSpec>("clusterIP"),
        Column::<Self>::text("External-IP", |s, _| Cell::from(external_ips(s))).field::<ServiceSpec>("externalIPs"),
        Column::<Self>::text("Port(s)", |s, _| Cell::from(ports(s))).field::<ServiceSpec>("ports"),
        Column::AGE,
        Column::<Self>::wide_text("Selector", |s, _| {
            Cell::from(label_selector::labels_shown(s.spec.as_ref().and_then(|s| s.selector.as_ref())))
        })
        .field::<ServiceSpec>("selector"),
    ];

    fn fill_tree(tree: &mut Cell) {
        condition::fill_times(tree);
    }

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        fill(spec);
        if spec.type_.as_deref() == Some("LoadBalancer") {
            let balancer = self.status.as_mut().and_then(|s| s.load_balancer.as_mut());
            for ingress in balancer.into_iter().flat_map(|b| b.ingress.iter_mut().flatten()) {
                if ingress.ip.is_some() {
                    ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
                }
            }
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(ServiceStatus { load_balancer: Some(Default::default()), ..ServiceStatus::default() });
        normalize_cluster_ips(self.spec.get_or_insert_default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        let Some(old) = &old.spec else { return };
        let spec = self.spec.get_or_insert_default();
        keep_allocated(spec, old);
        drop_what_the_type_has_not(spec, old);
        normalize_cluster_ips(spec);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let default = ServiceSpec::default();
        validation::validate_annotations(self, errs);
        validation::validate(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            validation::validate_update(new, old, &FieldPath::new("spec"), errs);
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        validation::validate_status(self, errs);
    }
}

/// Whether a service of this type has an address of its own.
fn has_cluster_ip(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName")
}

/// Whether a service of this type has ports on the nodes.
fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
}

/// Whether it can be reached from outside the cluster.
fn is_external(spec: &ServiceSpec) -> bool {
    let external_ips = spec.external_ips.as_ref().is_some_and(|i| !i.is_empty());
    has_node_ports(spec) || (spec.type_.as_deref() == Some("ClusterIP") && external_ips)
}

fn fill(spec: &mut ServiceSpec) {
    pod::text_default(&mut spec.session_affinity, "None");
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config = spec.session_affinity_config.get_or_insert_default().client_ip.get_or_insert_default();
        config.timeout_seconds.get_or_insert(10_800);
    } else {
        spec.session_affinity_config = None;
    }
    pod::text_default(&mut spec.type_, "ClusterIP");
    for port in spec.ports.iter_mut().flatten() {
        pod::text_default(&mut port.protocol, "TCP");
        let unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    if is_external(spec) {
        pod::text_default(&mut spec.external_traffic_policy, "Cluster");
    }
    if has_cluster_ip(spec) {
        pod::text_default(&mut spec.internal_traffic_policy, "Cluster");
        fill_families(spec);
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

/// One family; but whoever keeps the endpoints of a headless Service may have addresses of both.
fn fill_families(spec: &mut ServiceSpec) {
    let anybodys = keeps_own_endpoints(spec);
    pod::text_default(&mut spec.ip_family_policy, if anybodys { "RequireDualStack" } else { "SingleStack" });
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.push("IPv4".to_owned());
    }
    if anybodys && families.len() < 2 && spec.ip_family_policy.as_deref() != Some("SingleStack") {
        let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
        families.push(other.to_owned());
    }
}

/// Whether a Service has neither an address nor a selector.
pub fn keeps_own_endpoints(spec: &ServiceSpec) -> bool {
    let first = spec.cluster_ips.as_ref().and_then(|ips| ips.first()).or(spec.cluster_ip.as_ref());
    first.is_some_and(|ip| ip == "None") && spec.selector.as_ref().is_none_or(|labels| labels.is_empty())
}

/// Whether those in front of several nodes ask each whether it has endpoints.
pub fn needs_health_check(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// `clusterIPs` follows `clusterIP`, whichever of both was given.
fn normalize_cluster_ips(spec: &mut ServiceSpec) {
    let one = spec.cluster_ip.clone().unwrap_or_default();
    let many = spec.cluster_ips.clone().unwrap_or_default();
    match (one.as_str(), many.as_slice()) {
        ("", []) => {}
        (_, []) => spec.cluster_ips = Some(vec![one]),
        ("", [first, ..]) => spec.cluster_ip = Some(first.clone()),
        _ => {}
    }
}

/// What was allocated stays when the update does not name it: `kubectl replace` of the first manifest is fine.
fn keep_allocated(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if has_cluster_ip(spec) && has_cluster_ip(old) {
        let unset = |s: &ServiceSpec| s.cluster_ip.as_deref().unwrap_or_default().is_empty();
        if unset(spec) && spec.cluster_ips.as_ref().is_none_or(|i| i.is_empty()) {
            spec.cluster_ip.clone_from(&old.cluster_ip);
            spec.cluster_ips.clone_from(&old.cluster_ips);
        } else if !unset(spec) && spec.cluster_ip != old.cluster_ip && spec.cluster_ips == old.cluster_ips {
            // Only the old field was changed: the new one follows, and validation judges the change.
            spec.cluster_ips = None;
        }
    }
    if needs_health_check(spec) && needs_health_check(old) && spec.health_check_node_port.unwrap_or_default() == 0 {
        spec.health_check_node_port = old.health_check_node_port;
    }
    if !has_node_ports(spec) || !has_node_ports(old) {
        return;
    }
    let taken: Vec<i32> = spec.ports.iter().flatten().filter_map(|p| p.node_port).collect();
    for port in spec.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or_default() == 0) {
        let same = |o: &&ServicePort| o.port == port.port && o.protocol == port.protocol;
        let kept = old.ports.iter().flatten().find(same).and_then(|o| o.node_port);
        port.node_port = kept.filter(|n| !taken.contains(n)).or(port.node_port);
    }
}

/// A change of the type takes away what the new type has not, unless the update set it.
fn drop_what_the_type_has_not(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if !has_cluster_ip(spec) && has_cluster_ip(old) {
        if spec.cluster_ip == old.cluster_ip {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        drop_same(&mut spec.ip_families, &old.ip_families);
        drop_same(&mut spec.ip_family_policy, &old.ip_family_policy);
    }
    if !has_node_ports(spec) && has_node_ports(old) {
        let of_old = |p: &ServicePort| old.ports.iter().flatten().any(|o| o.node_port == p.node_port);
        for port in spec.ports.iter_mut().flatten() {
            if of_old(port) {
                port.node_port = None;
            }
        }
    }
    if !is_external(spec) && is_external(old) {
        drop_same(&mut spec.external_traffic_policy, &old.external_traffic_policy);
    }
    if !needs_health_check(spec) && needs_health_check(old) {
        drop_same(&mut spec.health_check_node_port, &old.health_check_node_port);
    }
    if spec.type_.as_deref() != Some("LoadBalancer") && old.type_.as_deref() == Some("LoadBalancer") {
        drop_same(&mut spec.allocate_load_balancer_node_ports, &old.allocate_load_balancer_node_ports);
        drop_same(&mut spec.load_balancer_class, &old.load_balancer_class);
    }
}

fn drop_same<T: PartialEq>(new: &mut Option<T>, old: &Option<T>) {
    if new == old {
        *new = None;
    }
}

fn text(service: &Service, of: fn(&ServiceSpec) -> Option<&String>) -> String {
    service.spec.as_ref().and_then(of).cloned().unwrap_or_default()
}

fn external_ips(service: &Service) -> String {
    let given = service.spec.as_ref().and_then(|s| s.external_ips.clone()).unwrap_or_default();
    let kind = text(service, |s| s.type_.as_ref());
    match kind.as_str() {
        "ClusterIP" | "NodePort" if given.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => given.join(","),
        "LoadBalancer" => {
            let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default();
            let mut all: Vec<String> = ingress.iter().filter_map(|i| i.ip.clone().or(i.hostname.clone())).collect();
            all.extend(given);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => text(service, |s| s.external_name.as_ref()),
        _ => "<unknown>".to_owned(),
    }
}

fn ports(service: &Service) -> String {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    if ports.is_empty() {
        return "<none>".to_owned();
    }
    let one = |p: &ServicePort| {
        let protocol = p.protocol.as_deref().unwrap_or("TCP");
        match p.node_port.unwrap_or_default() {
            0 => format!("{}/{protocol}", p.port),
            node_port => format!("{}:{node_port}/{protocol}", p.port),
        }
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

//! Validation of services.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateService`, `ValidateServiceUpdate`; the range of node ports:
//! `pkg/registry/core/service/portallocator`.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{has_cluster_ip, has_node_ports, needs_health_check};
use crate::{
    field::{FieldErrors, FieldPath},
    ip::is_cidr,
    kinds::{
        endpoints::validate_address,
        pod::{PROTOCOLS, one_of, validate_port, validate_port_number_or_name},
    },
    meta, names,
};

/// The ports on nodes that services may have.
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;
const AFFINITY_SECONDS_MAX: i32 = 86_400;
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const IP_MODES: [&str; 2] = ["Proxy", "VIP"];

const LOAD_BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// The kubelet's: no load balancer leads there.
const KUBELET_PORT: i32 = 10_250;

/// Checks the annotations that are fields in disguise.
pub(super) fn validate_annotations(service: &Service, errs: &mut FieldErrors) {
    let path = FieldPath::new("metadata").child("annotations");
    let Some(annotations) = &service.metadata.annotations else { return };
    if let (Some(mode), Some(hints)) = (annotations.get(MODE), annotations.get(HINTS))
        && mode != hints
    {
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        errs.invalid(&path.key(MODE), mode.as_str(), &detail);
    }
    let spec = service.spec.as_ref();
    let given = spec.and_then(|s| s.load_balancer_source_ranges.as_ref()).is_some_and(|r| !r.is_empty());
    if let Some(ranges) = annotations.get(SOURCE_RANGES).filter(|_| !given) {
        let at = path.key(SOURCE_RANGES);
        if spec.is_none_or(|s| !is_balanced(s)) {
            errs.forbidden(&at, LOAD_BALANCER_ONLY);
        }
        for range in ranges.split(',').map(str::trim).filter(|_| !ranges.trim().is_empty()) {
            errs.invalid_each(&at, range, is_cidr(range));
        }
    }
}

fn is_balanced(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips.as_deref().is_some_and(|ips| ips == ["None"])
}

/// Checks the spec at `path`.
pub(super) fn validate(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let kind = spec.type_.as_deref().unwrap_or_default();
    let headless = is_headless(spec);
    let ports = spec.ports.as_deref().unwrap_or_default();
    let ports_at = path.child("ports");
    if ports.is_empty() && !headless && has_cluster_ip(spec) {
        errs.required(&ports_at, "");
    }
    for (i, port) in ports.iter().enumerate().filter(|(_, p)| is_balanced(spec) && p.port == KUBELET_PORT) {
        let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
        errs.invalid(&ports_at.index(i), port.port, &detail);
    }
    if headless && has_node_ports(spec) {
        let detail = format!("may not be set to 'None' for {kind} services");
        errs.invalid(&path.child("clusterIPs").index(0), "None", &detail);
    }
    if !has_cluster_ip(spec) {
        validate_external_name(spec, path, errs);
    }
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        validate_service_port(port, ports.len() > 1, &mut names, &ports_at.index(i), errs);
    }
    meta::validate_labels(spec.selector.as_ref(), &path.child("selector"), errs);
    one_of(&path.child("sessionAffinity"), spec.session_affinity.as_deref(), &["ClientIP", "None"], errs);
    let affinity = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = affinity.filter(|s| !(1..=AFFINITY_SECONDS_MAX).contains(s)) {
        let at = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        errs.invalid(&at, seconds, &format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"));
    }
    if has_cluster_ip(spec) {
        validate_addresses(spec, path, errs);
    }
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        validate_address(ip, &path.child("externalIPs").index(i), errs);
    }
    one_of(&path.child("type"), Some(kind), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errs);
    validate_node_ports(spec, &ports_at, errs);
    validate_balancing(spec, path, errs);
    validate_policies(spec, path, errs);
}

fn validate_external_name(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if spec.cluster_ips.as_ref().is_some_and(|i| !i.is_empty()) {
        errs.forbidden(&path.child("clusterIPs"), "may not be set for ExternalName services");
    }
    if spec.ip_families.as_ref().is_some_and(|f| !f.is_empty()) {
        errs.forbidden(&path.child("ipFamilies"), "may not be set for ExternalName services");
    }
    if spec.ip_family_policy.is_some() {
        errs.forbidden(&path.child("ipFamilyPolicy"), "may not be set for ExternalName services");
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errs.required(&path.child("externalName"), "");
    } else {
        errs.invalid_each(&path.child("externalName"), name, names::is_dns1123_subdomain(name));
    }
}

fn validate_service_port<'a>(
    port: &'a ServicePort,
    named: bool,
    seen: &mut BTreeSet<&'a str>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    match port.name.as_deref().unwrap_or_default() {
        "" if named => errs.required(&path.child("name"), ""),
        "" => {}
        name => {
            errs.invalid_each(&path.child("name"), name, names::is_dns1123_label(name));
            if !seen.insert(name) {
                errs.duplicate(&path.child("name"), name);
            }
        }
    }
    validate_port(port.port, &path.child("port"), errs);
    one_of(&path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS, errs);
    if let Some(target) = &port.target_port {
        validate_port_number_or_name(target, &path.child("targetPort"), errs);
    }
    if let Some(protocol) = port.app_protocol.as_deref() {
        errs.invalid_each(&path.child("appProtocol"), protocol, names::is_qualified_name(protocol));
    }
}

fn validate_node_ports(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let ports = || spec.ports.iter().flatten().enumerate().map(|(i, port)| (path.index(i), port));
    let (mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new());
    for (at, port) in ports() {
        let Some(node_port) = port.node_port.filter(|n| *n != 0) else { continue };
        let at = at.child("nodePort");
        if spec.type_.as_deref() == Some("ClusterIP") {
            errs.forbidden(&at, "may not be used when `type` is 'ClusterIP'");
        } else if has_node_ports(spec) && !NODE_PORTS.contains(&node_port) {
            let (min, max) = (NODE_PORTS.start(), NODE_PORTS.end());
            let detail = format!("provided port is not in the valid range. The range of valid ports is {min}-{max}");
            errs.invalid(&at, node_port, &detail);
        }
    }
    let protocol = |port: &ServicePort| port.protocol.clone().unwrap_or_default();
    for (at, port) in ports() {
        if let Some(node_port) = port.node_port.filter(|n| *n != 0 && !node_ports.insert((protocol(port), *n))) {
            errs.duplicate(&at.child("nodePort"), node_port);
        }
    }
    for (at, port) in ports() {
        if !numbers.insert((protocol(port), port.port)) {
            errs.duplicate(&at, serde_json::json!({"protocol": port.protocol, "port": port.port}));
        }
    }
}

/// What only load balancers have.
fn validate_balancing(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let at = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balanced(spec) {
        errs.forbidden(&at, LOAD_BALANCER_ONLY);
    }
    for (i, range) in ranges.iter().enumerate() {
        errs.invalid_each(&at.index(i), range.trim(), is_cidr(range.trim()));
    }
    match spec.allocate_load_balancer_node_ports {
        Some(_) if !is_balanced(spec) => {
            errs.forbidden(&path.child("allocateLoadBalancerNodePorts"), LOAD_BALANCER_ONLY);
        }
        None if is_balanced(spec) => errs.required(&FieldPath::new("allocateLoadBalancerNodePorts"), ""),
        _ => {}
    }
    if let Some(class) = &spec.load_balancer_class {
        let at = path.child("loadBalancerClass");
        if is_balanced(spec) {
            errs.invalid_each(&at, class, names::is_qualified_name(class));
        } else {
            errs.forbidden(&at, LOAD_BALANCER_ONLY);
        }
    }
}

/// Addresses, their families and the policy that says how many of both there are.
fn validate_addresses(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match (spec.cluster_ip.as_deref().unwrap_or_default(), ips) {
        ("", []) => {}
        ("", _) => errs.invalid(&at, ips, "must be empty when `clusterIP` is not specified"),
        (_, []) => errs.required(&at, ""),
        (one, [first, ..]) if one != first => errs.invalid(&at, ips, "first value must match `clusterIP`"),
        _ => {}
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    for (i, family) in families.iter().enumerate() {
        let at = path.child("ipFamilies").index(i);
        if !["IPv4", "IPv6"].contains(&family.as_str()) {
            errs.not_supported(&at, family, &["IPv4", "IPv6"]);
        }
        if families[..i].contains(family) {
            errs.duplicate(&at, family.as_str());
        }
    }
    if let Some(policy) = spec.ip_family_policy.as_deref() {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        if !supported.contains(&policy) {
            errs.not_supported(&path.child("ipFamilyPolicy"), policy, &supported);
        }
    }
    let mut wrong = false;
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                wrong = true;
                errs.invalid(&at, ips, "'None' must be the first and only value");
            }
            continue;
        }
        let messages = names::is_ip(ip);
        wrong |= !messages.is_empty();
        errs.invalid_each(&at.index(i), ip, messages);
    }
    if ips.len() > 2 {
        errs.invalid(&at, ips, "may only hold up to 2 values");
    }
    let is_v6 = |ip: &String| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    if wrong {
        return;
    }
    if ips.len() > 1 && (ips.iter().all(is_v6) || !ips.iter().any(is_v6)) {
        errs.invalid(&at, ips, "may specify no more than one IP for each IP family");
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate().filter(|_| !is_headless(spec)) {
        if (family == "IPv4" && is_v6(ip)) || (family == "IPv6" && !is_v6(ip)) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errs.invalid(&at.index(i), ip.as_str(), &detail);
        }
    }
}

fn validate_policies(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let supported = ["Cluster", "Local"];
    let at = path.child("externalTrafficPolicy");
    let policy = spec.external_traffic_policy.as_deref();
    if super::is_external(spec) {
        one_of(&at, policy, &supported, errs);
    } else if let Some(policy) = policy.filter(|p| !p.is_empty()) {
        errs.invalid(&at, policy, "may only be set for externally-accessible services");
    }
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        let at = path.child("healthCheckNodePort");
        if needs_health_check(spec) {
            validate_port(port, &at, errs);
        } else {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errs.invalid(&at, port, detail);
        }
    }
    match spec.internal_traffic_policy.as_deref() {
        None if has_cluster_ip(spec) => errs.required(&path.child("internalTrafficPolicy"), ""),
        Some(policy) if !supported.contains(&policy) => {
            errs.not_supported(&path.child("internalTrafficPolicy"), policy, &supported);
        }
        _ => {}
    }
    if let Some(distribution) = spec.traffic_distribution.as_deref().filter(|d| !DISTRIBUTIONS.contains(d)) {
        errs.not_supported(&path.child("trafficDistribution"), distribution, &DISTRIBUTIONS);
    }
}

/// An address, once given, stays for as long as the service has one; a second one comes and goes.
pub(super) fn validate_update(new: &ServiceSpec, old: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if has_cluster_ip(new) && has_cluster_ip(old) {
        let was_headless = is_headless(old);
        if !(is_headless(new) && was_headless) {
            validate_same(new, &new.cluster_ips, &old.cluster_ips, ("clusterIPs", "clusterIP"), path, errs);
        }
        if !is_headless(new) && !was_headless {
            validate_same(new, &new.ip_families, &old.ip_families, ("ipFamilies", "ipFamily"), path, errs);
        }
    }
    if is_balanced(old) && is_balanced(new) && old.load_balancer_class != new.load_balancer_class {
        let value = serde_json::to_value(&new.load_balancer_class).unwrap_or_default();
        errs.invalid(&path.child("loadBalancerClass"), value, "may not change once set");
    }
    let changed = old.health_check_node_port != new.health_check_node_port;
    if needs_health_check(old) && needs_health_check(new) && changed {
        errs.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
}

fn validate_same(
    spec: &ServiceSpec,
    new: &Option<Vec<String>>,
    old: &Option<Vec<String>>,
    (field, one): (&str, &str),
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let (new, old) = (new.as_deref().unwrap_or_default(), old.as_deref().unwrap_or_default());
    let at = path.child(field);
    if new.is_empty() && !old.is_empty() {
        return errs.invalid(&at.index(0), serde_json::Value::Null, &format!("primary {one} can not be unset"));
    }
    let compared = if new.len() == old.len() { old.len() } else { 1 };
    for i in (0..compared.min(old.len())).filter(|i| new[*i] != old[*i]) {
        let at = at.index(if field == "clusterIPs" { i } else { 0 });
        errs.invalid(&at, new, "may not change once set");
    }
    if new.len() == 1 && old.len() > 1 && spec.ip_family_policy.as_deref() != Some("SingleStack") {
        let value = serde_json::to_value(&spec.ip_family_policy).unwrap_or_default();
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errs.invalid(&path.child("ipFamilyPolicy"), value, &detail);
    }
}

/// Checks where a load balancer says that it can be reached.
pub(super) fn validate_status(service: &Service, errs: &mut FieldErrors) {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default();
    let path = FieldPath::new("status").child("loadBalancer").child("ingress");
    if !ingress.is_empty() && !service.spec.as_ref().is_some_and(is_balanced) {
        return errs.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for (i, ingress) in ingress.iter().enumerate() {
        let at = path.index(i);
        let ip = ingress.ip.as_deref().filter(|ip| !ip.is_empty());
        if let Some(ip) = ip {
            errs.invalid_each(&at.child("ip"), ip, names::is_ip(ip));
        }
        match (ingress.ip_mode.as_deref(), ip) {
            (None, Some(_)) => errs.required(&at.child("ipMode"), "must be specified when `ip` is set"),
            (Some(_), None) => errs.forbidden(&at.child("ipMode"), "may not be specified when `ip` is not set"),
            (Some(mode), Some(_)) if !IP_MODES.contains(&mode) => {
                errs.not_supported(&at.child("ipMode"), mode, &IP_MODES);
            }
            _ => {}
        }
        if let Some(host) = ingress.hostname.as_deref().filter(|h| !h.is_empty()) {
            errs.invalid_each(&at.child("hostname"), host, names::is_dns1123_subdomain(host));
            if host.parse::<IpAddr>().is_ok() {
                errs.invalid(&at.child("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}

//! Validation of services.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateService`, `ValidateServiceUpdate`; the range of node ports:
//! `pkg/registry/core/service/portallocator`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use super::{has_cluster_ip, has_node_ports};
use crate::{
    field::{FieldErrors, FieldPath},
    kinds::pod::{PROTOCOLS, one_of, validate_port, validate_port_number_or_name},
    meta, names,
};

/// The ports on nodes that services may have.
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;
const AFFINITY_SECONDS_MAX: i32 = 86_400;

/// Checks the spec at `path`.
pub(super) fn validate(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let kind = spec.type_.as_deref().unwrap_or_default();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !headless && has_cluster_ip(spec) {
        errs.required(&path.child("ports"), "");
    }
    if headless && has_node_ports(spec) {
        let detail = format!("may not be set to 'None' for {kind} services");
        errs.invalid(&path.child("clusterIPs").index(0), "None", &detail);
    }
    if !has_cluster_ip(spec) {
        validate_external_name(spec, path, errs);
    }
    for (i, port) in ports.iter().enumerate() {
        validate_service_port(port, ports.len() > 1, spec, &path.child("ports").index(i), errs);
    }
    validate_duplicates(ports, &path.child("ports"), errs);
    meta::validate_labels(spec.selector.as_ref(), &path.child("selector"), errs);
    one_of(&path.child("sessionAffinity"), spec.session_affinity.as_deref(), &["ClientIP", "None"], errs);
    let affinity = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = affinity.filter(|s| !(1..=AFFINITY_SECONDS_MAX).contains(s)) {
        let at = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        errs.invalid(&at, seconds, &format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"));
    }
    one_of(&path.child("type"), Some(kind), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errs);
    validate_addresses(spec, path, errs);
    validate_policies(spec, path, errs);
}

fn validate_external_name(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if spec.cluster_ips.as_ref().is_some_and(|i| !i.is_empty()) {
        errs.forbidden(&path.child("clusterIPs"), "may not be set for ExternalName services");
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errs.required(&path.child("externalName"), "");
    } else {
        errs.invalid_each(&path.child("externalName"), name, names::is_dns1123_subdomain(name));
    }
}

fn validate_service_port(
    port: &ServicePort,
    named: bool,
    spec: &ServiceSpec,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    match port.name.as_deref().unwrap_or_default() {
        "" if named => errs.required(&path.child("name"), ""),
        "" => {}
        name => errs.invalid_each(&path.child("name"), name, names::is_dns1123_label(name)),
    }
    validate_port(port.port, &path.child("port"), errs);
    one_of(&path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS, errs);
    if let Some(target) = &port.target_port {
        validate_port_number_or_name(target, &path.child("targetPort"), errs);
    }
    if let Some(protocol) = port.app_protocol.as_deref() {
        errs.invalid_each(&path.child("appProtocol"), protocol, names::is_qualified_name(protocol));
    }
    let Some(node_port) = port.node_port.filter(|n| *n != 0) else { return };
    let at = path.child("nodePort");
    if !has_node_ports(spec) {
        let kind = spec.type_.as_deref().unwrap_or_default();
        errs.forbidden(&at, &format!("may not be used when `type` is '{kind}'"));
    } else if !NODE_PORTS.contains(&node_port) {
        let (min, max) = (NODE_PORTS.start(), NODE_PORTS.end());
        let detail = format!("provided port is not in the valid range. The range of valid ports is {min}-{max}");
        errs.invalid(&at, node_port, &detail);
    }
}

fn validate_duplicates(ports: &[ServicePort], path: &FieldPath, errs: &mut FieldErrors) {
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty() && !names.insert(*n)) {
            errs.duplicate(&at.child("name"), name);
        }
        if !numbers.insert((protocol, port.port)) {
            errs.duplicate(&at, serde_json::json!({"protocol": protocol, "port": port.port}));
        }
        if let Some(node_port) = port.node_port.filter(|n| *n != 0 && !node_ports.insert((protocol, *n))) {
            errs.duplicate(&at.child("nodePort"), node_port);
        }
    }
}

fn validate_addresses(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    for (i, ip) in ips.iter().enumerate() {
        if ip == "None" {
            if ips.len() > 1 {
                errs.invalid(&at, ips, "'None' must be the first and only value");
            }
        } else {
            errs.invalid_each(&at.index(i), ip, names::is_ip(ip));
        }
    }
    let one = spec.cluster_ip.as_deref().unwrap_or_default();
    match ips.first() {
        Some(first) if first != one => {
            errs.invalid(&at, ips, "first value must match `clusterIP`");
        }
        None if !matches!(one, "" | "None") && has_cluster_ip(spec) => {
            errs.invalid_each(&path.child("clusterIP"), one, names::is_ip(one));
        }
        _ => {}
    }
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        validate_external_ip(ip, &path.child("externalIPs").index(i), errs);
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        one_of(&path.child("ipFamilies").index(i), Some(family), &["IPv4", "IPv6"], errs);
    }
    if let Some(policy) = spec.ip_family_policy.as_deref() {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        one_of(&path.child("ipFamilyPolicy"), Some(policy), &supported, errs);
    }
}

fn validate_external_ip(text: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let Ok(ip) = text.parse::<std::net::IpAddr>() else {
        return errs.invalid_each(path, text, names::is_ip(text));
    };
    if ip.is_unspecified() {
        errs.invalid(path, text, "may not be unspecified (0.0.0.0 or ::)");
    }
    if ip.is_loopback() {
        errs.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
}

fn validate_policies(spec: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let supported = ["Cluster", "Local"];
    if let Some(policy) = spec.external_traffic_policy.as_deref().filter(|p| !p.is_empty()) {
        let at = path.child("externalTrafficPolicy");
        if !super::is_external(spec) {
            errs.invalid(&at, policy, "may only be set for externally-accessible services");
        }
        one_of(&at, Some(policy), &supported, errs);
    }
    if let Some(policy) = spec.internal_traffic_policy.as_deref() {
        one_of(&path.child("internalTrafficPolicy"), Some(policy), &supported, errs);
    }
}

/// An address, once given, stays for as long as the service has one.
pub(super) fn validate_update(new: &ServiceSpec, old: &ServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if !has_cluster_ip(new) || !has_cluster_ip(old) {
        return;
    }
    let was = old.cluster_ip.as_deref().unwrap_or_default();
    let is = new.cluster_ip.as_deref().unwrap_or_default();
    let at = path.child("clusterIPs").index(0);
    let value = || serde_json::to_value(&new.cluster_ips).unwrap_or_default();
    if was.is_empty() || is == was {
        return;
    }
    let detail = if is.is_empty() { "primary clusterIP can not be unset" } else { "may not change once set" };
    errs.invalid(&at, value(), detail);
}

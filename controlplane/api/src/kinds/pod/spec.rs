//! Validation of a `PodSpec`, for pods and for templates.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidatePodSpec`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodResourceClaim, PodSpec};

use super::{
    container::{self, Around},
    ephemeral, resources, scheduling, security, volume, windows,
};
use crate::{
    field::{FieldErrors, FieldPath},
    meta, names,
};

const ACTIVE_DEADLINE_SECONDS_MAX: i64 = i32::MAX as i64;
const HOSTNAME_BYTES_MAX: usize = 64;
/// What name resolution in libc bears.
const NAME_SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;

/// Whose spec it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of<'a> {
    /// A pod's, of this name.
    Pod(&'a str),
    /// A template's: pods are made from it with names of their own.
    Template,
}

/// Checks a pod's spec at `path`.
pub(super) fn validate(spec: &PodSpec, of: Of<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    if spec.termination_grace_period_seconds.is_none() {
        errs.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let claims = spec.resource_claims.as_deref().unwrap_or_default();
    let around = Around {
        volumes: volume::validate_all(volumes, of, &path.child("volumes"), errs),
        claims: claims.iter().map(|c| c.name.as_str()).filter(|n| !n.is_empty()).collect(),
        host_users: spec.host_users != Some(false),
        restart_policy: spec.restart_policy.as_deref().unwrap_or_default(),
        grace_seconds: spec.termination_grace_period_seconds,
    };
    validate_claims(claims, &path.child("resourceClaims"), errs);
    container::validate_all(&spec.containers, &around, &path.child("containers"), errs);
    container::validate_all_init(spec, &around, &path.child("initContainers"), errs);
    ephemeral::validate_all(spec, &around, &path.child("ephemeralContainers"), errs);
    resources::validate_of_pod(spec, &path.child("resources"), errs);
    validate_host_network(spec, of, &path.child("containers"), errs);
    one_of(&path.child("restartPolicy"), spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"], errs);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(&path.child("dnsPolicy"), spec.dns_policy.as_deref(), &dns, errs);
    meta::validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errs);
    security::validate_of_pod(spec, path, errs);
    scheduling::validate_affinity(spec, &path.child("affinity"), errs);
    validate_dns(spec, &path.child("dnsConfig"), errs);
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        errs.invalid_each(&at, &gate.condition_type, names::is_qualified_name(&gate.condition_type));
    }
    scheduling::validate(spec, path, errs);
    windows::validate_host_process(spec, path, errs);
    security::validate_host_users(spec, path, errs);
    validate_names(spec, path, errs);
    if let Some(seconds) = spec.active_deadline_seconds {
        validate_active_deadline(seconds, &path.child("activeDeadlineSeconds"), errs);
    }
    scheduling::validate_tolerations(spec.tolerations.as_deref().unwrap_or_default(), &path.child("tolerations"), errs);
    validate_host_aliases(spec.host_aliases.as_deref().unwrap_or_default(), &path.child("hostAliases"), errs);
    if let Some(policy) = spec.preemption_policy.as_deref() {
        one_of(&path.child("preemptionPolicy"), Some(policy), &["PreemptLowerPriority", "Never"], errs);
    }
    if let Some(overhead) = &spec.overhead {
        resources::validate_limits(overhead, &path.child("overhead"), errs);
    }
    security::validate_os(spec, path, errs);
}

/// `Required value` when empty, `Unsupported value` when not in the list.
pub(in crate::kinds) fn one_of(path: &FieldPath, value: Option<&str>, supported: &[&str], errs: &mut FieldErrors) {
    match value.unwrap_or_default() {
        "" => errs.required(path, ""),
        value if supported.contains(&value) => {}
        value => errs.not_supported(path, value, supported),
    }
}

fn validate_claims(claims: &[PodResourceClaim], path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let (at, name) = (path.index(i), claim.name.as_str());
        if name.is_empty() {
            errs.required(&at.child("name"), "");
        } else if !seen.insert(name) {
            errs.duplicate(&at.child("name"), name);
        } else {
            errs.invalid_each(&at.child("name"), name, names::is_dns1123_label(name));
        }
        let sources = [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ];
        let detail = match sources.iter().filter(|(_, name)| name.is_some()).count() {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            1 => "",
            _ => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        };
        if !detail.is_empty() {
            errs.invalid(&at, serde_json::to_value(claim).unwrap_or_default(), detail);
        }
        for (field, name) in sources {
            if let Some(name) = name {
                errs.invalid_each(&at.child(field), name, names::is_dns1123_subdomain(name));
            }
        }
    }
}

/// On the node's own network a port is what it is; in a template it may be left to follow.
fn validate_host_network(spec: &PodSpec, of: Of<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, container) in spec.containers.iter().enumerate().filter(|_| spec.host_network == Some(true)) {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host = port.host_port.unwrap_or_default();
            if (host != 0 || of != Of::Template) && host != port.container_port {
                let at = path.index(i).child("ports").index(j).child("hostPort");
                errs.invalid(&at, host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn validate_names(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let subdomains = [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
        ("hostnameOverride", &spec.hostname_override),
    ];
    for (field, name) in subdomains {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty() || field == "runtimeClassName") {
            errs.invalid_each(&path.child(field), name, names::is_dns1123_subdomain(name));
        }
    }
    if spec.hostname_override.as_ref().is_some_and(|n| n.len() > HOSTNAME_BYTES_MAX) {
        errs.too_long(&path.child("hostnameOverride"), HOSTNAME_BYTES_MAX);
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            errs.invalid_each(&path.child(field), name, names::is_dns1123_label(name));
        }
    }
}

/// A pod's deadline is at least a second.
fn validate_active_deadline(seconds: i64, path: &FieldPath, errs: &mut FieldErrors) {
    for message in names::in_range(seconds, 1, ACTIVE_DEADLINE_SECONDS_MAX) {
        errs.invalid(path, seconds, &message);
    }
}

fn validate_dns(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let none = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if none {
            errs.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let at = path.child("nameservers");
    if none && servers.is_empty() {
        return errs.required(&at, "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    if servers.len() > NAME_SERVERS_MAX {
        errs.invalid(&at, servers, &format!("must not have more than {NAME_SERVERS_MAX} nameservers"));
    }
    for (i, server) in servers.iter().enumerate() {
        errs.invalid_each(&at.index(i), server, names::is_ip(server));
    }
    validate_searches(config, &path.child("searches"), errs);
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            errs.required(&path.child("options").index(i), "must not be empty");
        }
    }
}

fn validate_searches(config: &PodDNSConfig, path: &FieldPath, errs: &mut FieldErrors) {
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > SEARCHES_MAX {
        errs.invalid(path, searches, &format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    if searches.join(" ").len() > SEARCH_BYTES_MAX {
        let detail =
            format!("must not have more than {SEARCH_BYTES_MAX} characters (including spaces) in the search list");
        errs.invalid(path, searches, &detail);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        errs.invalid_each(&path.index(i), name, names::is_dns1123_subdomain_with_underscore(name));
    }
}

fn validate_host_aliases(aliases: &[HostAlias], path: &FieldPath, errs: &mut FieldErrors) {
    for (i, alias) in aliases.iter().enumerate() {
        errs.invalid_each(&path.index(i).child("ip"), &alias.ip, names::is_ip(&alias.ip));
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            let at = path.index(i).child("hostnames").index(j);
            errs.invalid_each(&at, name, names::is_dns1123_subdomain(name));
        }
    }
}

//! What may be said of a pod that runs: by its node above all.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidatePodStatusUpdate`.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};
use serde_json::Value;

use super::{container::is_sidecar, update};
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

const RUNS_AGAIN: &str = "may not be transitioned to non-terminated state";

/// Checks a write of a pod's status.
pub(super) fn validate(new: &Pod, old: &Pod, errs: &mut FieldErrors) {
    update::validate_annotations(new, old, errs);
    let (none, no_spec) = (PodStatus::default(), PodSpec::default());
    let (status, had) = (new.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none));
    let spec = old.spec.as_ref().unwrap_or(&no_spec);
    // The path is that of Kubernetes, odd as it is.
    let at = FieldPath::new("metadata").child("conditions");
    for (i, condition) in status.conditions.iter().flatten().enumerate() {
        if !matches!(condition.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            let messages = names::is_qualified_name(&condition.type_);
            errs.invalid_each(&at.index(i).child("Type"), &condition.type_, messages);
        }
    }
    let path = FieldPath::new("status");
    let nominated = status.nominated_node_name.as_deref().unwrap_or_default();
    if !nominated.is_empty() && status.nominated_node_name != had.nominated_node_name {
        errs.invalid_each(&path.child("nominatedNodeName"), nominated, names::is_dns1123_subdomain(nominated));
    }
    if had.qos_class.as_ref().is_some_and(|c| !c.is_empty()) {
        errs.immutable(&path.child("qosClass"), &status.qos_class, &had.qos_class);
    }
    validate_endings(status, had, spec, &path, errs);
    validate_claims(status, spec, &path.child("resourceClaimStatuses"), errs);
    validate_addresses(status, &path, errs);
}

/// A container that ended for good does not run again.
fn validate_endings(status: &PodStatus, had: &PodStatus, spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let own_rules = |name: &str| {
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.any(|c| c.name == name && (is_sidecar(c) || c.restart_policy.is_some()))
    };
    let lists = [
        ("containerStatuses", &status.container_statuses, &had.container_statuses, policy),
        ("initContainerStatuses", &status.init_container_statuses, &had.init_container_statuses, policy),
        // Nobody starts these again.
        (
            "ephemeralContainerStatuses",
            &status.ephemeral_container_statuses,
            &had.ephemeral_container_statuses,
            "Never",
        ),
    ];
    for (field, new, old, policy) in lists {
        for (i, was) in old.iter().flatten().enumerate() {
            let Some(code) = exit_code(was) else { continue };
            if policy == "Always" || (policy == "OnFailure" && code != 0) || own_rules(&was.name) {
                continue;
            }
            let again = |s: &&ContainerStatus| s.name == was.name && exit_code(s).is_none();
            for _ in new.iter().flatten().filter(again) {
                errs.forbidden(&path.child(field).index(i).child("state"), RUNS_AGAIN);
            }
        }
    }
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn validate_claims(status: &PodStatus, spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, claim) in status.resource_claim_statuses.iter().flatten().enumerate() {
        let at = path.index(i).child("name");
        if !spec.resource_claims.iter().flatten().any(|c| c.name == claim.name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errs.invalid(&at, claim.name.as_str(), detail);
        }
        if !seen.insert(claim.name.as_str()) {
            errs.duplicate(&at, claim.name.as_str());
        }
        if let Some(name) = &claim.resource_claim_name {
            errs.invalid_each(&at, name, names::is_dns1123_subdomain(name));
        }
    }
}

fn validate_addresses(status: &PodStatus, path: &FieldPath, errs: &mut FieldErrors) {
    let pod: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    validate_ips(&pod, &serde_json::to_value(&status.pod_ips).unwrap_or_default(), &path.child("podIPs"), errs);
    let host: Vec<&str> = status.host_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    let at = path.child("hostIPs");
    if let Some(first) = host.first().filter(|first| status.host_ip.as_deref() != Some(**first)) {
        errs.invalid(&at.index(0).child("ip"), *first, "must be equal to `hostIP`");
    }
    validate_ips(&host, &serde_json::to_value(&status.host_ips).unwrap_or_default(), &at, errs);
}

/// One address of each family.
fn validate_ips(ips: &[&str], shown: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, ip) in ips.iter().enumerate() {
        errs.invalid_each(&path.index(i), ip, names::is_ip(ip));
    }
    if ips.len() < 2 {
        return;
    }
    let families: BTreeSet<_> = ips.iter().filter_map(|ip| Some(ip.parse::<IpAddr>().ok()?.is_ipv4())).collect();
    if families.len() < 2 || ips.len() > 2 {
        errs.invalid(path, shown.clone(), "may specify no more than one IP for each IP family");
    }
    let mut seen = BTreeSet::new();
    for (i, ip) in ips.iter().enumerate() {
        if !seen.insert(ip) {
            errs.duplicate(&path.index(i), shown.get(i).cloned().unwrap_or_default());
        }
    }
}

//! Validation of a `PodSpec`, for pods and for templates.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidatePodSpec`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{HostAlias, PodSecurityContext, PodSpec};

use super::{container, scheduling, volume};
use crate::{
    field::{FieldErrors, FieldPath},
    meta, names,
};

const ACTIVE_DEADLINE_SECONDS_MAX: i64 = i32::MAX as i64;

/// Checks a pod's spec at `path`.
pub(super) fn validate(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let volumes = volume::validate_all(spec.volumes.as_deref().unwrap_or_default(), &path.child("volumes"), errs);
    validate_containers(spec, &volumes, path, errs);
    one_of(&path.child("restartPolicy"), spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"], errs);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(&path.child("dnsPolicy"), spec.dns_policy.as_deref(), &dns, errs);
    meta::validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errs);
    validate_names(spec, path, errs);
    validate_seconds(spec, path, errs);
    if let Some(context) = &spec.security_context {
        validate_security_context(context, &path.child("securityContext"), errs);
    }
    validate_host_aliases(spec.host_aliases.as_deref().unwrap_or_default(), &path.child("hostAliases"), errs);
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        errs.invalid_each(&at, &gate.condition_type, names::is_qualified_name(&gate.condition_type));
    }
    if let Some(policy) = spec.preemption_policy.as_deref().filter(|p| !p.is_empty()) {
        let supported = ["Never", "PreemptLowerPriority"];
        one_of(&path.child("preemptionPolicy"), Some(policy), &supported, errs);
    }
    scheduling::validate(spec, path, errs);
}

/// `Required value` when empty, `Unsupported value` when not in the list.
pub(in crate::kinds) fn one_of(path: &FieldPath, value: Option<&str>, supported: &[&str], errs: &mut FieldErrors) {
    match value.unwrap_or_default() {
        "" => errs.required(path, ""),
        value if supported.contains(&value) => {}
        value => errs.not_supported(path, value, supported),
    }
}

fn validate_containers(spec: &PodSpec, volumes: &BTreeSet<&str>, path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    let at = path.child("containers");
    if spec.containers.is_empty() {
        errs.required(&at, "");
    }
    for (i, one) in spec.containers.iter().enumerate() {
        container::validate(one, volumes, &at.index(i), errs);
        container::validate_probes(one, &at.index(i), errs);
        if !one.name.is_empty() && !seen.insert(one.name.as_str()) {
            errs.duplicate(&at.index(i).child("name"), one.name.as_str());
        }
    }
    let at = path.child("initContainers");
    for (i, one) in spec.init_containers.iter().flatten().enumerate() {
        container::validate(one, volumes, &at.index(i), errs);
        container::validate_init(one, &at.index(i), errs);
        if !one.name.is_empty() && !seen.insert(one.name.as_str()) {
            errs.duplicate(&at.index(i).child("name"), one.name.as_str());
        }
    }
    if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        errs.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
}

fn validate_names(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let subdomains = [
        ("nodeName", &spec.node_name),
        ("serviceAccountName", &spec.service_account_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ];
    for (field, name) in subdomains {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            errs.invalid_each(&path.child(field), name, names::is_dns1123_subdomain(name));
        }
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            errs.invalid_each(&path.child(field), name, names::is_dns1123_label(name));
        }
    }
}

fn validate_seconds(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(seconds) = spec.active_deadline_seconds {
        validate_active_deadline(seconds, &path.child("activeDeadlineSeconds"), errs);
    }
    if let Some(seconds) = spec.termination_grace_period_seconds {
        errs.non_negative(&path.child("terminationGracePeriodSeconds"), seconds);
    }
}

/// A pod's deadline is at least a second.
pub(super) fn validate_active_deadline(seconds: i64, path: &FieldPath, errs: &mut FieldErrors) {
    for message in names::in_range(seconds, 1, ACTIVE_DEADLINE_SECONDS_MAX) {
        errs.invalid(path, seconds, &message);
    }
}

fn validate_security_context(context: &PodSecurityContext, path: &FieldPath, errs: &mut FieldErrors) {
    let ids = [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group), ("fsGroup", context.fs_group)];
    for (field, id) in ids {
        validate_id(id, &path.child(field), errs);
    }
}

/// A user or group number.
pub(super) fn validate_id(id: Option<i64>, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(id) = id else { return };
    for message in names::in_range(id, 0, i64::from(i32::MAX)) {
        errs.invalid(path, id, &message);
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

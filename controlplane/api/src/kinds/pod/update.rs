//! What may change in a pod that exists: images, a shorter deadline, more tolerations, fewer scheduling gates.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidatePodUpdate`, `ValidatePodStatusUpdate`.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodSpec, Toleration};
use serde_json::Value;

use super::spec::validate_active_deadline;
use crate::field::{FieldErrors, FieldPath};

const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                         `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
                         to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                         previously negative)";
/// So many differences are shown.
const DIFFERENCES_MAX: usize = 10;

/// The condition of a pod that waits for its scheduling gates to go.
pub(super) fn gated_condition() -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    }
}

/// Checks a change of a pod's spec.
pub(super) fn validate(new: &Pod, old: &Pod, errs: &mut FieldErrors) {
    let path = FieldPath::new("spec");
    let default = PodSpec::default();
    let new = new.spec.as_ref().unwrap_or(&default);
    let old = old.spec.as_ref().unwrap_or(&default);
    let counts = |spec: &PodSpec| (spec.containers.len(), spec.init_containers.as_ref().map_or(0, |c| c.len()));
    if counts(new) != counts(old) {
        let init = counts(new).0 == counts(old).0;
        let at = path.child(if init { "initContainers" } else { "containers" });
        return errs.forbidden(&at, "pod updates may not add or remove containers");
    }
    validate_deadline(new.active_deadline_seconds, old.active_deadline_seconds, &path, errs);
    validate_tolerations(new, old, &path.child("tolerations"), errs);
    validate_gates(new, old, &path.child("schedulingGates"), errs);
    let allowed = with_allowed_changes(new, old);
    if allowed != *old {
        errs.forbidden(&path, &format!("{FORBIDDEN}\n{}", differences(&allowed, old)));
    }
}

fn validate_deadline(new: Option<i64>, old: Option<i64>, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("activeDeadlineSeconds");
    match (new, old) {
        (Some(new), Some(old)) if new > old => {
            errs.invalid(&at, new, "must be less than or equal to previous value");
        }
        (Some(new), _) => validate_active_deadline(new, &at, errs),
        (None, Some(_)) => errs.invalid(&at, Value::Null, "must not update from a positive integer to nil value"),
        (None, None) => {}
    }
}

fn validate_tolerations(new: &PodSpec, old: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let same = |a: &Toleration, b: &Toleration| {
        (&a.key, &a.operator, &a.value, &a.effect) == (&b.key, &b.operator, &b.value, &b.effect)
    };
    let kept = |old: &Toleration| new.tolerations.iter().flatten().any(|n| same(n, old));
    if !old.tolerations.iter().flatten().all(kept) {
        errs.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn validate_gates(new: &PodSpec, old: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    for gate in new.scheduling_gates.iter().flatten() {
        if !old.scheduling_gates.iter().flatten().any(|g| g == gate) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errs.forbidden(path, &detail);
        }
    }
}

/// The new spec with everything that may change taken from the old one.
fn with_allowed_changes(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut spec = new.clone();
    let images = |new: &mut [Container], old: &[Container]| {
        for (new, old) in new.iter_mut().zip(old) {
            new.image.clone_from(&old.image);
        }
    };
    images(&mut spec.containers, &old.containers);
    images(spec.init_containers.as_deref_mut().unwrap_or_default(), old.init_containers.as_deref().unwrap_or_default());
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.tolerations.clone_from(&old.tolerations);
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    let was_negative = old.termination_grace_period_seconds.is_some_and(|s| s < 0);
    if was_negative && spec.termination_grace_period_seconds == Some(1) {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    // A pod that is held back may still be told more narrowly where to go.
    if old.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        let stays = |(k, v): (&String, &String)| spec.node_selector.as_ref().and_then(|n| n.get(k)) == Some(v);
        if old.node_selector.iter().flatten().all(stays) {
            spec.node_selector.clone_from(&old.node_selector);
        }
    }
    spec
}

/// The paths that differ, with both values.
fn differences(new: &PodSpec, old: &PodSpec) -> String {
    let mut lines = Vec::new();
    let read = |spec: &PodSpec| serde_json::to_value(spec).unwrap_or_default();
    compare(&FieldPath::new("spec"), &read(new), &read(old), &mut lines);
    lines.truncate(DIFFERENCES_MAX);
    lines.join("\n")
}

fn compare(path: &FieldPath, new: &Value, old: &Value, lines: &mut Vec<String>) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            let keys: std::collections::BTreeSet<_> = new.keys().chain(old.keys()).collect();
            for key in keys {
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&path.child(key), &value(new), &value(old), lines);
            }
        }
        (Value::Array(new), Value::Array(old)) if new.len() == old.len() => {
            for (i, (new, old)) in new.iter().zip(old).enumerate() {
                compare(&path.index(i), new, old, lines);
            }
        }
        _ if new == old => {}
        _ => lines.push(format!("  {path}: {old} -> {new}")),
    }
}

/// Checks a write of a pod's status: a container that ended for good does not run again.
pub(super) fn validate_status(new: &Pod, old: &Pod, errs: &mut FieldErrors) {
    let path = FieldPath::new("status");
    let (Some(status), Some(before)) = (&new.status, &old.status) else { return };
    if let Some(name) = status.nominated_node_name.as_deref().filter(|n| !n.is_empty()) {
        errs.invalid_each(&path.child("nominatedNodeName"), name, crate::names::is_dns1123_subdomain(name));
    }
    let policy = new.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let at = path.child("containerStatuses");
    for was in before.container_statuses.iter().flatten() {
        let Some(code) = exit_code(was).filter(|code| stays_ended(policy, *code)) else { continue };
        let now = status.container_statuses.iter().flatten().enumerate().find(|(_, s)| s.name == was.name);
        if let Some((i, _)) = now.filter(|(_, s)| exit_code(s).is_none()) {
            let detail = format!("may not be transitioned to non-terminated state (it ended with exit code {code})");
            errs.forbidden(&at.index(i).child("state"), &detail);
        }
    }
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn stays_ended(policy: &str, exit_code: i32) -> bool {
    policy == "Never" || (policy == "OnFailure" && exit_code == 0)
}

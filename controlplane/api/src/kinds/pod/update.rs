//! What may change in a pod that exists: images, a shorter deadline, more tolerations, fewer scheduling gates.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidatePodUpdate`.

use k8s_openapi::api::core::v1::{Container, NodeAffinity, NodeSelectorTerm, Pod, PodCondition, PodSpec, Toleration};
use serde::Serialize;
use serde_json::Value;

use super::annotations::APP_ARMOR;
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

/// Of pods that a node started by itself and only shows.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

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

/// Checks a change of a pod.
pub(super) fn validate(pod: &Pod, old_pod: &Pod, errs: &mut FieldErrors) {
    validate_annotations(pod, old_pod, errs);
    let path = FieldPath::new("spec");
    let default = PodSpec::default();
    let new = pod.spec.as_ref().unwrap_or(&default);
    let old = old_pod.spec.as_ref().unwrap_or(&default);
    let init = |spec: &PodSpec| spec.init_containers.as_ref().map_or(0, Vec::len);
    let counts = [("containers", new.containers.len(), old.containers.len()), ("initContainers", init(new), init(old))];
    if let Some((field, ..)) = counts.iter().find(|(_, new, old)| new != old) {
        return errs.forbidden(&path.child(field), "pod updates may not add or remove containers");
    }
    if !validate_deadline(new.active_deadline_seconds, old.active_deadline_seconds, &path, errs) {
        return;
    }
    validate_tolerations(new, old, &path.child("tolerations"), errs);
    validate_gates(new, old, &path.child("schedulingGates"), errs);
    let mut allowed = with_allowed_changes(new, old);
    // A pod that is held back may still be told more narrowly where to go.
    if old.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        narrow_node_selector(&mut allowed, old, &path.child("nodeSelector"), errs);
        narrow_node_affinity(&mut allowed, old, &path.child("affinity").child("nodeAffinity"), errs);
    }
    if allowed != *old {
        errs.forbidden(&path, &format!("{FORBIDDEN}\n{}", differences(&path, &allowed, old)));
    }
}

/// Annotations of nodes' own pods and of AppArmor stay what they are.
pub(super) fn validate_annotations(new: &Pod, old: &Pod, errs: &mut FieldErrors) {
    let path = FieldPath::new("metadata").child("annotations");
    let (now, had) = (new.metadata.annotations.as_ref(), old.metadata.annotations.as_ref());
    let what = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in had.into_iter().flatten() {
        if let Some(what) = what(key).filter(|_| now.and_then(|n| n.get(key)) != Some(value)) {
            errs.forbidden(&path.key(key), &format!("may not remove or update {what}"));
        }
    }
    for key in now.into_iter().flatten().map(|(key, _)| key) {
        if let Some(what) = what(key).filter(|_| had.is_none_or(|h| !h.contains_key(key))) {
            errs.forbidden(&path.key(key), &format!("may not add {what}"));
        }
    }
}

/// A deadline may be set and come nearer; `false` when it goes elsewhere.
fn validate_deadline(new: Option<i64>, old: Option<i64>, path: &FieldPath, errs: &mut FieldErrors) -> bool {
    let at = path.child("activeDeadlineSeconds");
    match (new, old) {
        (Some(new), _) if !names::in_range(new, 0, i64::from(i32::MAX)).is_empty() => {
            names::in_range(new, 0, i64::from(i32::MAX)).iter().for_each(|m| errs.invalid(&at, new, m));
            false
        }
        (Some(new), Some(old)) if new > old => {
            errs.invalid(&at, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errs.invalid(&at, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
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
    for (i, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !old.scheduling_gates.iter().flatten().any(|g| g == gate) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errs.forbidden(&path.index(i).child("name"), &detail);
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
    spec
}

fn narrow_node_selector(spec: &mut PodSpec, old: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let new = std::mem::replace(&mut spec.node_selector, old.node_selector.clone());
    let kept = |(key, value): (&String, &String)| new.as_ref().and_then(|n| n.get(key)) == Some(value);
    if !old.node_selector.iter().flatten().all(kept) {
        let shown = serde_json::to_value(&new).unwrap_or_default();
        errs.invalid(path, shown, "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
    }
}

fn narrow_node_affinity(spec: &mut PodSpec, old: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let had = old.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    let new = spec.affinity.as_mut().and_then(|a| std::mem::replace(&mut a.node_affinity, had.clone()));
    match &mut spec.affinity {
        None if had.is_some() => spec.affinity.get_or_insert_default().node_affinity = had.clone(),
        // Nothing but the affinity to nodes came.
        Some(affinity) if old.affinity.is_none() && *affinity == Default::default() => spec.affinity = None,
        _ => {}
    }
    let terms = |affinity: &Option<NodeAffinity>| {
        let required = affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref();
        Some(required?.node_selector_terms.clone())
    };
    let (new, old) = (terms(&new).unwrap_or_default(), terms(&had).unwrap_or_default());
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    if old.is_empty() {
        return;
    }
    if old.len() != new.len() {
        let shown = serde_json::to_value(&new).unwrap_or_default();
        return errs.invalid(&path, shown, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
    }
    for (i, (new, _)) in new.iter().zip(&old).enumerate().filter(|(_, (new, old))| !only_adds(new, old)) {
        let shown = serde_json::to_value(new).unwrap_or_default();
        errs.invalid(&path.index(i), shown, "only additions are allowed (no mutations or deletions)");
    }
}

fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let lists = |term: &NodeSelectorTerm| {
        [term.match_expressions.clone().unwrap_or_default(), term.match_fields.clone().unwrap_or_default()]
    };
    let (new, old) = (lists(new), lists(old));
    // A term that says nothing is met by no node, and would be met by some.
    if old.iter().all(Vec::is_empty) {
        return new.iter().all(Vec::is_empty);
    }
    new.iter().zip(&old).all(|(new, old)| new.starts_with(old))
}

/// The paths that differ, with both values.
pub(in crate::kinds) fn differences<T: Serialize>(path: &FieldPath, new: &T, old: &T) -> String {
    let mut lines = Vec::new();
    let read = |value: &T| serde_json::to_value(value).unwrap_or_default();
    compare(path, &read(new), &read(old), &mut lines);
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

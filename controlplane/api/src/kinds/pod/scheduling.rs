//! Validation of what tells the scheduler where a pod may go: tolerations, affinity, spread, gates.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Toleration, TopologySpreadConstraint,
};

use super::spec::one_of;
use crate::{
    field::{FieldErrors, FieldPath},
    kinds::label_selector,
    names,
};

/// The effects of taints.
pub(in crate::kinds) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks the scheduling part of the spec at `path`.
pub(super) fn validate(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, toleration) in spec.tolerations.iter().flatten().enumerate() {
        validate_toleration(toleration, &path.child("tolerations").index(i), errs);
    }
    if let Some(affinity) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) {
        validate_node_affinity(affinity, &path.child("affinity").child("nodeAffinity"), errs);
    }
    for (i, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        validate_spread(constraint, &path.child("topologySpreadConstraints").index(i), errs);
    }
    let mut seen = BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let at = path.child("schedulingGates").index(i);
        errs.invalid_each(&at, &gate.name, names::is_qualified_name(&gate.name));
        if !seen.insert(gate.name.as_str()) {
            errs.duplicate(&at, gate.name.as_str());
        }
    }
}

fn validate_toleration(toleration: &Toleration, path: &FieldPath, errs: &mut FieldErrors) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    if !key.is_empty() {
        errs.invalid_each(&path.child("key"), &key, names::is_qualified_name(&key));
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errs.invalid(&path.child("operator"), operator.as_str(), detail);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errs.invalid(&path.child("effect"), effect.as_str(), detail);
    }
    match operator.as_str() {
        "Equal" | "" => errs.invalid_each(&path.child("operator"), &value, names::is_label_value(&value)),
        "Exists" if value.is_empty() => {}
        "Exists" => {
            let shown = serde_json::to_value(toleration).unwrap_or_default();
            errs.invalid(&path.child("operator"), shown, "value must be empty when `operator` is 'Exists'");
        }
        other => errs.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        one_of(&path.child("effect"), Some(&effect), &EFFECTS, errs);
    }
}

fn validate_node_affinity(affinity: &NodeAffinity, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let at = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            errs.required(&at, "must have at least one node selector term");
        }
        for (i, term) in required.node_selector_terms.iter().enumerate() {
            validate_term(term, &at.index(i), errs);
        }
    }
    for (i, preferred) in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
        let at = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
        if !(1..=100).contains(&preferred.weight) {
            errs.invalid(&at.child("weight"), preferred.weight, "must be in the range 1-100");
        }
        validate_term(&preferred.preference, &at.child("preference"), errs);
    }
}

fn validate_term(term: &NodeSelectorTerm, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let at = path.child("matchExpressions").index(i);
        errs.invalid_each(&at.child("key"), &requirement.key, names::is_qualified_name(&requirement.key));
        validate_requirement(requirement, &at, errs);
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        let at = path.child("matchFields").index(i);
        if requirement.key != "metadata.name" {
            let detail = "not a valid field selector key";
            errs.invalid(&at.child("key"), requirement.key.as_str(), detail);
        }
        validate_requirement(requirement, &at, errs);
    }
}

fn validate_requirement(requirement: &NodeSelectorRequirement, path: &FieldPath, errs: &mut FieldErrors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errs.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errs.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Exists" | "DoesNotExist" => {}
        "Gt" | "Lt" if values.len() != 1 => {
            errs.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "Gt" | "Lt" => {}
        other => errs.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
}

fn validate_spread(constraint: &TopologySpreadConstraint, path: &FieldPath, errs: &mut FieldErrors) {
    if constraint.max_skew <= 0 {
        errs.invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero");
    }
    match constraint.topology_key.as_str() {
        "" => errs.required(&path.child("topologyKey"), "can not be empty"),
        key => errs.invalid_each(&path.child("topologyKey"), key, names::is_qualified_name(key)),
    }
    let supported = ["DoNotSchedule", "ScheduleAnyway"];
    if !supported.contains(&constraint.when_unsatisfiable.as_str()) {
        errs.not_supported(&path.child("whenUnsatisfiable"), &constraint.when_unsatisfiable, &supported);
    }
    if let Some(selector) = &constraint.label_selector {
        label_selector::validate(selector, &path.child("labelSelector"), errs);
    }
}

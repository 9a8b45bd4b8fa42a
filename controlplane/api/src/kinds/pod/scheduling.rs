//! Validation of what tells the scheduler where a pod may go: tolerations, affinity, spread, gates.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};

use super::spec::one_of;
use crate::{
    field::{FieldErrors, FieldPath},
    kinds::label_selector,
    names,
};

/// The effects of taints.
pub(in crate::kinds) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks gates and spread of the spec at `path`.
pub(super) fn validate(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let at = path.child("schedulingGates").index(i);
        errs.invalid_each(&at, &gate.name, names::is_qualified_name(&gate.name));
        if !seen.insert(gate.name.as_str()) {
            errs.duplicate(&at, gate.name.as_str());
        }
    }
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.child("topologySpreadConstraints").index(i);
        validate_spread(constraint, &constraints[i + 1..], &at, errs);
    }
}

/// Checks the tolerations at `path`.
pub(in crate::kinds) fn validate_tolerations(tolerations: &[Toleration], path: &FieldPath, errs: &mut FieldErrors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        validate_toleration(toleration, &path.index(i), errs);
    }
}

/// Checks the affinities at `path`.
pub(super) fn validate_affinity(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(affinity) = &spec.affinity else { return };
    if let Some(affinity) = &affinity.node_affinity {
        validate_node_affinity(affinity, &path.child("nodeAffinity"), errs);
    }
    if let Some(affinity) = &affinity.pod_affinity {
        let required = affinity.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_deref();
        let (required, preferred) = (required.unwrap_or_default(), preferred.unwrap_or_default());
        validate_pod_affinity(required, preferred, &path.child("podAffinity"), errs);
    }
    if let Some(affinity) = &affinity.pod_anti_affinity {
        let required = affinity.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_deref();
        let (required, preferred) = (required.unwrap_or_default(), preferred.unwrap_or_default());
        validate_pod_affinity(required, preferred, &path.child("podAntiAffinity"), errs);
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
        "Equal" | "" => {
            let messages = names::is_label_value(&value);
            if !messages.is_empty() {
                errs.invalid(&path.child("operator"), value.as_str(), &messages.join(";"));
            }
        }
        "Exists" if value.is_empty() => {}
        "Exists" => {
            errs.invalid(&path.child("operator"), value.as_str(), "value must be empty when `operator` is 'Exists'");
        }
        other => errs.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        one_of(&path.child("effect"), Some(&effect), &EFFECTS, errs);
    }
}

fn validate_node_affinity(affinity: &NodeAffinity, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        validate_node_selector(required, &path.child("requiredDuringSchedulingIgnoredDuringExecution"), errs);
    }
    for (i, preferred) in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
        let at = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
        validate_weight(preferred.weight, &at, errs);
        // A preference for what no label can be is just never met.
        validate_term(&preferred.preference, false, &at.child("preference"), errs);
    }
}

fn validate_weight(weight: i32, path: &FieldPath, errs: &mut FieldErrors) {
    if !(1..=100).contains(&weight) {
        errs.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// Checks which nodes are meant: one of the terms is met.
pub(in crate::kinds) fn validate_node_selector(selector: &NodeSelector, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errs.required(&at, "must have at least one node selector term");
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        validate_term(term, true, &at.index(i), errs);
    }
}

fn validate_term(term: &NodeSelectorTerm, values_too: bool, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let at = path.child("matchExpressions").index(i);
        validate_requirement(requirement, &at, errs);
        errs.invalid_each(&at.child("key"), &requirement.key, names::is_qualified_name(&requirement.key));
        for (j, value) in requirement.values.iter().flatten().enumerate().filter(|_| values_too) {
            errs.invalid_each(&at.child("values").index(j), value, names::is_label_value(value));
        }
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        validate_field(requirement, &path.child("matchFields").index(i), errs);
    }
}

/// The one field of nodes that can be selected is their name.
fn validate_field(requirement: &NodeSelectorRequirement, path: &FieldPath, errs: &mut FieldErrors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errs.required(&path.child("values"), detail);
        }
        "In" | "NotIn" => {}
        other => errs.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    if requirement.key != "metadata.name" {
        let detail = "not a valid field selector key";
        return errs.invalid(&path.child("key"), requirement.key.as_str(), detail);
    }
    for (i, name) in values.iter().enumerate() {
        errs.invalid_each(&path.child("values").index(i), name, names::is_dns1123_subdomain(name));
    }
}

fn validate_pod_affinity(
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    for (i, term) in required.iter().enumerate() {
        let at = path.child("requiredDuringSchedulingIgnoredDuringExecution").index(i);
        validate_pod_term(term, &at, errs);
    }
    for (i, weighted) in preferred.iter().enumerate() {
        let at = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
        validate_weight(weighted.weight, &at, errs);
        validate_pod_term(&weighted.pod_affinity_term, &at.child("podAffinityTerm"), errs);
    }
}

fn validate_pod_term(term: &PodAffinityTerm, path: &FieldPath, errs: &mut FieldErrors) {
    for (field, selector) in [("labelSelector", &term.label_selector), ("namespaceSelector", &term.namespace_selector)]
    {
        if let Some(selector) = selector {
            label_selector::validate(selector, &path.child(field), errs);
        }
    }
    for namespace in term.namespaces.iter().flatten() {
        errs.invalid_each(&path.child("namespace"), namespace, names::is_dns1123_label(namespace));
    }
    let matched = term.match_label_keys.as_deref().unwrap_or_default();
    let mismatched = term.mismatch_label_keys.as_deref().unwrap_or_default();
    for (field, keys) in [("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)] {
        let at = path.child(field);
        if term.label_selector.is_none() && !keys.is_empty() {
            errs.forbidden(&at, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            errs.invalid_each(&at.index(i), key, names::is_qualified_name(key));
        }
    }
    for (i, key) in matched.iter().enumerate().filter(|(_, key)| mismatched.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errs.invalid(&path.child("matchLabelKeys").index(i), key.as_str(), detail);
    }
    if term.topology_key.is_empty() {
        errs.required(&path.child("topologyKey"), "can not be empty");
    }
    errs.invalid_each(&path.child("topologyKey"), &term.topology_key, names::is_qualified_name(&term.topology_key));
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

fn validate_spread(
    constraint: &TopologySpreadConstraint,
    rest: &[TopologySpreadConstraint],
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let (key, action) = (constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str());
    if constraint.max_skew <= 0 {
        errs.invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero");
    }
    if key.is_empty() {
        errs.required(&path.child("topologyKey"), "can not be empty");
    }
    let supported = ["DoNotSchedule", "ScheduleAnyway"];
    if !supported.contains(&action) {
        errs.not_supported(&path.child("whenUnsatisfiable"), action, &supported);
    }
    if rest.iter().any(|other| other.topology_key == key && other.when_unsatisfiable == action) {
        errs.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
    }
    if let Some(domains) = constraint.min_domains {
        let at = path.child("minDomains");
        if domains <= 0 {
            errs.invalid(&at, domains, "must be greater than zero");
        }
        if action != "DoNotSchedule" {
            let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errs.invalid(&at, domains, &detail);
        }
    }
    let policies = [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ];
    for (field, policy) in policies {
        if let Some(policy) = policy.as_deref().filter(|p| !matches!(*p, "Honor" | "Ignore")) {
            errs.not_supported(&path.child(field), policy, &["Honor", "Ignore"]);
        }
    }
    validate_spread_keys(constraint, &path.child("matchLabelKeys"), errs);
    if let Some(selector) = &constraint.label_selector {
        label_selector::validate(selector, &path.child("labelSelector"), errs);
    }
}

fn validate_spread_keys(constraint: &TopologySpreadConstraint, path: &FieldPath, errs: &mut FieldErrors) {
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    let selector = constraint.label_selector.as_ref();
    if selector.is_none() && !keys.is_empty() {
        errs.forbidden(path, "must not be specified when labelSelector is not set");
    }
    let selects = |key: &String| {
        selector.is_some_and(|s| {
            s.match_labels.as_ref().is_some_and(|l| l.contains_key(key))
                || s.match_expressions.iter().flatten().any(|e| e.key == *key)
        })
    };
    for (i, key) in keys.iter().enumerate() {
        errs.invalid_each(&path.index(i), key, names::is_qualified_name(key));
        if selects(key) {
            errs.invalid(&path.index(i), key.as_str(), "exists in both matchLabelKeys and labelSelector");
        }
    }
}

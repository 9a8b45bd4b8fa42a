//! Validation of when a Job has failed or succeeded before its time: `podFailurePolicy` and `successPolicy`.
//!
//! # Source
//! Kubernetes `pkg/apis/batch/validation/validation.go`, `validatePodFailurePolicy`, `validateSuccessPolicy`.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};

use super::indexes;
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const INDEXES_BYTES_MAX: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// Checks the rules of a failure policy at `path` against the Job that has it.
pub(super) fn validate_failure(policy: &PodFailurePolicy, spec: &JobSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let path = path.child("rules");
    if policy.rules.len() > RULES_MAX {
        errs.too_many(&path, policy.rules.len(), RULES_MAX);
    }
    let pod = spec.template.spec.as_ref();
    let containers = pod.into_iter().flat_map(|p| p.containers.iter().chain(p.init_containers.iter().flatten()));
    let containers: BTreeSet<_> = containers.map(|c| c.name.as_str()).collect();
    for (i, rule) in policy.rules.iter().enumerate() {
        validate_failure_rule(rule, spec.backoff_limit_per_index.is_some(), &containers, &path.index(i), errs);
    }
}

fn validate_failure_rule(
    rule: &PodFailurePolicyRule,
    per_index: bool,
    containers: &BTreeSet<&str>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let at = path.child("action");
    match rule.action.as_str() {
        "FailIndex" if !per_index => errs.invalid(&at, "FailIndex", "requires the backoffLimitPerIndex to be set"),
        action => required_one_of(action, &ACTIONS, &at, errs),
    }
    let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
    if let Some(codes) = &rule.on_exit_codes {
        validate_exit_codes(codes, containers, &path.child("onExitCodes"), errs);
    }
    validate_patterns(conditions, &path.child("onPodConditions"), errs);
    match (rule.on_exit_codes.is_some(), conditions.is_empty()) {
        (true, false) => {
            errs.invalid_without_value(path, "specifying both OnExitCodes and OnPodConditions is not supported");
        }
        (false, true) => {
            errs.invalid_without_value(path, "specifying one of OnExitCodes and OnPodConditions is required");
        }
        _ => {}
    }
}

fn required_one_of(value: &str, supported: &[&str], path: &FieldPath, errs: &mut FieldErrors) {
    if value.is_empty() {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" ");
        errs.required(path, &format!("valid values: [{list}]"));
    } else if !supported.contains(&value) {
        errs.not_supported(path, value, supported);
    }
}

fn validate_exit_codes(
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &BTreeSet<&str>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    required_one_of(&codes.operator, &OPERATORS, &path.child("operator"), errs);
    if let Some(name) = codes.container_name.as_deref().filter(|n| !containers.contains(n)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errs.invalid(&path.child("containerName"), name, detail);
    }
    let (values, path) = (codes.values.as_slice(), path.child("values"));
    match values.len() {
        0 => errs.invalid(&path, values, "at least one value is required"),
        many if many > EXIT_CODES_MAX => errs.too_many(&path, many, EXIT_CODES_MAX),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if codes.operator == "In" && *value == 0 {
            errs.invalid(&path.index(i), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            errs.duplicate(&path.index(i), *value);
        }
    }
    if !values.is_sorted() {
        errs.invalid(&path, values, "must be ordered");
    }
}

fn validate_patterns(patterns: &[PodFailurePolicyOnPodConditionsPattern], path: &FieldPath, errs: &mut FieldErrors) {
    if patterns.len() > PATTERNS_MAX {
        errs.too_many(path, patterns.len(), PATTERNS_MAX);
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = path.index(i);
        errs.invalid_each(&at.child("type"), &pattern.type_, names::is_qualified_name(&pattern.type_));
        required_one_of(pattern.status.as_deref().unwrap_or_default(), &STATUSES, &at.child("status"), errs);
    }
}

/// Checks the rules of a success policy at `path`, of an indexed Job with so many `completions`.
pub(super) fn validate_success(policy: &SuccessPolicy, completions: i32, path: &FieldPath, errs: &mut FieldErrors) {
    let path = path.child("rules");
    match policy.rules.len() {
        0 => errs.required(&path, "at least one rules must be specified when the successPolicy is specified"),
        many if many > RULES_MAX => errs.too_many(&path, many, RULES_MAX),
        _ => {}
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        validate_success_rule(rule, completions, &path.index(i), errs);
    }
}

fn validate_success_rule(rule: &SuccessPolicyRule, completions: i32, path: &FieldPath, errs: &mut FieldErrors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errs.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut named = None;
    if let Some(list) = &rule.succeeded_indexes {
        let at = path.child("succeededIndexes");
        if list.len() > INDEXES_BYTES_MAX {
            errs.too_long(&at, INDEXES_BYTES_MAX);
        }
        let read = indexes::count(list, completions);
        if let Err(why) = &read {
            errs.invalid(&at, list.as_str(), &format!("error parsing succeededIndexes: {why}"));
        }
        named = Some(read.unwrap_or_default());
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = path.child("succeededCount");
    errs.non_negative(&at, i64::from(count));
    let bounds = [
        (Some(completions), "the number of specified completions"),
        (named, "the number of indexes in the specified succeededIndexes field"),
    ];
    for (max, of) in bounds {
        if let Some(max) = max.filter(|max| count > *max) {
            errs.invalid(&at, count, &format!("must be less than or equal to {max} ({of})"));
        }
    }
}

//! Conditions of the form that all newer kinds share.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go` (`ValidateConditions`).

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

/// Go's time that is not set.
const NOT_SET: Timestamp = Timestamp::constant(-62_135_596_800, 0);
const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const REASON_HELP: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or \
    'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
    '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// The types in Go let a condition be written without a time: as `null` in JSON, as nothing in protobuf.
pub(super) fn fill_times(tree: &mut Value) {
    let conditions = tree.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        let time = condition.entry("lastTransitionTime").or_insert(Value::Null);
        if time.is_null() {
            *time = NOT_SET.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        }
    }
}

pub(super) fn validate_all(conditions: Option<&[Condition]>, path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.unwrap_or_default().iter().enumerate() {
        if !seen.insert(&condition.type_) {
            errs.duplicate(&path.index(i), condition.type_.as_str());
        }
        validate(condition, &path.index(i), errs);
    }
}

fn validate(condition: &Condition, path: &FieldPath, errs: &mut FieldErrors) {
    match condition.type_.as_str() {
        "" => errs.required(&path.child("type"), "is required"),
        kind => errs.invalid_each(&path.child("type"), kind, names::is_qualified_name(kind)),
    }
    match condition.status.as_str() {
        "" => errs.required(&path.child("status"), ""),
        "True" | "False" | "Unknown" => {}
        status => errs.not_supported(&path.child("status"), status, &["False", "True", "Unknown"]),
    }
    if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
        let detail = "must be greater than or equal to zero";
        errs.invalid(&path.child("observedGeneration"), generation, detail);
    }
    if condition.last_transition_time.0 == NOT_SET {
        errs.required(&path.child("lastTransitionTime"), "must be set");
    }
    let (reason, at) = (condition.reason.as_str(), path.child("reason"));
    match reason {
        "" => errs.required(&at, ""),
        reason if !is_reason(reason) => errs.invalid(&at, reason, REASON_HELP),
        _ => {}
    }
    if reason.len() > REASON_BYTES_MAX {
        errs.too_long(&at, REASON_BYTES_MAX);
    }
    if condition.message.len() > MESSAGE_BYTES_MAX {
        errs.too_long(&path.child("message"), MESSAGE_BYTES_MAX);
    }
}

fn is_reason(reason: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = reason.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().copied().is_some_and(word)
        && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':'))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{core::v1::Service, policy::v1::PodDisruptionBudget};
    use serde_json::json;

    use super::*;
    use crate::{Kind, kind_of};

    /// Reads, and shows again.
    fn read<K: Kind>(condition: &Value) -> (Value, K) {
        let tree = json!({"status": {"conditions": [condition]}});
        let read = kind_of::<K>().decode_value(tree).unwrap().object.downcast_ref::<K>().unwrap().clone();
        (serde_json::to_value(&read).unwrap()["status"]["conditions"][0].clone(), read)
    }

    #[test]
    fn a_condition_may_not_say_since_when() {
        let some = json!({"type": "A", "status": "True", "reason": "B", "message": "",
            "lastTransitionTime": "2026-11-22T01:02:03Z"});
        assert_eq!(read::<Service>(&some).0, some);
        let mut null = some.clone();
        null["lastTransitionTime"] = Value::Null;
        let mut none = some;
        none.as_object_mut().unwrap().remove("lastTransitionTime");
        for condition in [null, none] {
            let (shown, _) = read::<Service>(&condition);
            assert_eq!(shown["lastTransitionTime"], "0001-01-01T00:00:00Z", "as Go reads a time that is not set");
            let (_, budget) = read::<PodDisruptionBudget>(&condition);
            let mut errs = FieldErrors::new();
            budget.validate_status_update(&budget, &mut errs);
            let error = crate::ApiError::invalid(&PodDisruptionBudget::NAMES, "b", errs).message;
            assert!(error.contains("status.conditions[0].lastTransitionTime: Required value: must be set"), "{error}");
        }
    }
}

//! Conditions of the form that all newer kinds share.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go` (`ValidateConditions`).

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const REASON_HELP: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or \
    'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
    '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

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

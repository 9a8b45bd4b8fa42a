//! `LabelSelector` in the kinds that carry one: its validation and how columns show it.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::{
    field::{FieldErrors, FieldPath},
    meta, names,
    selector::label_selector_string,
};

/// A selector as a column shows it.
pub(super) fn shown(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "<none>".to_owned() };
    match label_selector_string(Some(selector)) {
        Ok(text) if text.is_empty() => "<none>".to_owned(),
        Ok(text) => text,
        Err(_) => "<error>".to_owned(),
    }
}

/// Labels as a column shows them.
pub(super) fn labels_shown(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<_> = labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// The string form that a Scale carries; empty when the selector is malformed.
pub(super) fn scale_text(selector: &LabelSelector) -> String {
    label_selector_string(Some(selector)).unwrap_or_default()
}

/// Whether it selects everything, which is never meant.
pub(super) fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && selector.match_expressions.as_ref().is_none_or(|e| e.is_empty())
}

/// Checks keys, operators and values.
pub(super) fn validate(selector: &LabelSelector, path: &FieldPath, errs: &mut FieldErrors) {
    meta::validate_labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errs);
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errs.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errs.forbidden(&at.child("values"), detail);
            }
            "Exists" | "DoesNotExist" => {}
            other => errs.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        errs.invalid_each(&at.child("key"), &expression.key, names::is_qualified_name(&expression.key));
        for (j, value) in values.iter().enumerate() {
            errs.invalid_each(&at.child("values").index(j), value, names::is_label_value(value));
        }
    }
}

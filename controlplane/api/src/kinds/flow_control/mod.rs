//! FlowSchema and PriorityLevelConfiguration: which requests wait for which.
//!
//! # Source
//! Kubernetes `pkg/apis/flowcontrol/validation/validation.go`, `pkg/apis/flowcontrol/v1/defaults.go`,
//! `pkg/printers/internalversion/printers.go`.

use std::collections::BTreeSet;

use crate::field::{FieldErrors, FieldPath};

mod flow_schema;
mod priority_level;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Each condition has a type, and none has the same.
fn validate_conditions<'a>(types: impl Iterator<Item = Option<&'a String>>, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, kind) in types.enumerate() {
        let (at, kind) = (FieldPath::new("status").child("conditions").index(i), kind.map_or("", String::as_str));
        if !seen.insert(kind) {
            errs.duplicate(&at.child("type"), kind);
        }
        if kind.is_empty() {
            errs.required(&at.child("type"), "must not be empty");
        }
    }
}

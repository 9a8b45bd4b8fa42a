//! What the statuses of everything that keeps a number of pods have in common.

use crate::field::{FieldErrors, FieldPath};

/// Checks that no count of some of the pods is greater than that of all of them, and that not more are available than
/// ready, of which a text speaks by the name `ready`.
///
/// # Source
/// Kubernetes `pkg/apis/apps/validation/validation.go` (`ValidateReplicaSetStatus`, `ValidateStatefulSetStatus`,
/// `ValidateDeploymentStatus`).
pub(super) fn validate_counts(
    total: i32,
    generation: Option<i64>,
    parts: &[(&str, Option<i32>)],
    ready: &str,
    errs: &mut FieldErrors,
) {
    let path = FieldPath::new("status");
    let counted = || parts.iter().map(|(field, part)| (*field, part.unwrap_or_default()));
    errs.non_negative(&path.child("replicas"), i64::from(total));
    counted().for_each(|(field, part)| errs.non_negative(&path.child(field), i64::from(part)));
    errs.non_negative(&path.child("observedGeneration"), generation.unwrap_or_default());
    for (field, part) in counted().filter(|(_, part)| *part > total) {
        errs.invalid(&path.child(field), part, "cannot be greater than status.replicas");
    }
    let part = |of: &str| counted().find(|(field, _)| *field == of).map_or(0, |(_, part)| part);
    let available = part("availableReplicas");
    if available > part("readyReplicas") {
        let of_ready = format!("cannot be greater than {ready}");
        errs.invalid(&path.child("availableReplicas"), available, &of_ready);
    }
}

/// Checks a count of names that were taken already: it only grows.
pub(super) fn validate_collisions(new: Option<i32>, old: Option<i32>, errs: &mut FieldErrors) {
    let path = FieldPath::new("status").child("collisionCount");
    errs.non_negative(&path, i64::from(new.unwrap_or_default()));
    if old.is_some_and(|old| new.is_none_or(|new| new < old)) {
        errs.invalid(&path, new.unwrap_or_default(), "cannot be decremented");
    }
}

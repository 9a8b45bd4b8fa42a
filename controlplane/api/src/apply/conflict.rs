//! Conflicts: fields that somebody else owns and that an apply wants to change.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/conflict.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};

use super::{
    element::PathElement,
    managed::Id,
    set::{Set, path_text},
};
use crate::error::{ApiError, Reason};

/// A field of another manager.
#[derive(Debug, Clone)]
pub(super) struct Conflict {
    pub(super) manager: Id,
    pub(super) path: Vec<PathElement>,
}

/// One conflict for each path, by manager.
pub(super) fn of_managers(mut sets: Vec<(Id, Set)>) -> Vec<Conflict> {
    sets.sort_by_cached_key(|(id, _)| id.text());
    let of = |(id, set): (Id, Set)| {
        let conflict = move |path| Conflict { manager: id.clone(), path };
        set.paths().into_iter().map(conflict).collect::<Vec<_>>()
    };
    sets.into_iter().flat_map(of).collect()
}

/// 409 with a cause for each conflict.
pub(super) fn error(conflicts: &[Conflict]) -> ApiError {
    let cause = |c: &Conflict| StatusCause {
        reason: Some("FieldManagerConflict".to_owned()),
        message: Some(format!("conflict with {}", c.manager.shown())),
        field: Some(path_text(&c.path)),
    };
    let causes = conflicts.iter().map(cause).collect();
    let details = StatusDetails { causes: Some(causes), ..StatusDetails::default() };
    ApiError { reason: Reason::Conflict, message: message(conflicts), details: Some(Box::new(details)) }
}

fn message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager.shown(),
            path_text(&one.path)
        );
    }
    let mut lines = Vec::new();
    let mut last: Option<&Id> = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager.shown()));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", path_text(&conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

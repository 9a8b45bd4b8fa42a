//! ControllerRevision: what a controller's object once said, kept so that it can be said again.
//!
//! # Source
//! Kubernetes `pkg/apis/apps/validation/validation.go`, `pkg/registry/apps/controllerrevision/strategy.go`.

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
};

impl Kind for ControllerRevision {
    const NAMES: Names = Names::new("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision");
    const SCOPE: Scope = Scope::Namespaced;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Controller", |r, _| Cell::from(controller(r))).help("Controller of the object"),
        Column::<Self>::text("Revision", |r, _| Cell::from(r.revision)).field::<ControllerRevision>("revision"),
        Column::AGE,
    ];

    fn validate(&self, errs: &mut FieldErrors) {
        if self.data.as_ref().is_none_or(|d| d.0.is_null()) {
            errs.required(&FieldPath::new("data"), "data is mandatory");
        }
        errs.non_negative(&FieldPath::new("revision"), self.revision);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("data"), &self.data, &old.data);
    }
}

/// The owner as kubectl names it: `statefulset.apps/web`.
fn controller(revision: &ControllerRevision) -> String {
    let mut owners = revision.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.find(|o| o.controller == Some(true)) else { return "<none>".to_owned() };
    let kind = owner.kind.to_lowercase();
    match owner.api_version.split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
        None => format!("{kind}/{}", owner.name),
    }
}

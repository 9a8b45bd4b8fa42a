//! Namespace: a set of names, and what goes when it goes.
//!
//! # Source
//! Kubernetes `pkg/registry/core/namespace/strategy.go`, `pkg/apis/core/validation/validation.go`.

use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, Scope, Sub, Verb},
    names::{self, NameRule},
};

const LABEL: &str = "kubernetes.io/metadata.name";
/// Keeps a namespace until everything in it is gone.
const FINALIZER: &str = "kubernetes";

impl Kind for Namespace {
    const NAMES: Names =
        Names::new("", "v1", "Namespace", "namespaces", "namespace").short(&["ns"]).name_rule(NameRule::Dns1123Label);
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::verb("finalize", Verb::Finalize), Sub::STATUS];
    const FIELDS: &'static [Field<Self>] = &[Field { path: "status.phase", value: |n| phase(n).to_owned() }];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Status", |n, _| Cell::from(phase(n))).help("The status of the namespace"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        if let Some(name) = self.metadata.name.clone().filter(|n| !n.is_empty()) {
            self.metadata.labels.get_or_insert_default().insert(LABEL.to_owned(), name);
        }
        let status = self.status.get_or_insert_default();
        super::pod::text_default(&mut status.phase, "Active");
    }

    fn prepare_create(&mut self) {
        self.fill_defaults();
        self.status = Some(NamespaceStatus { phase: Some("Active".to_owned()), ..NamespaceStatus::default() });
        let finalizers = self.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn prepare_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let at = FieldPath::new("spec").child("finalizers");
        for finalizer in self.spec.iter().flat_map(|s| s.finalizers.iter().flatten()) {
            let messages = names::is_qualified_name(finalizer);
            if messages.is_empty() && !finalizer.contains('/') && finalizer != FINALIZER {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                errs.invalid(&at, finalizer.as_str(), detail);
            }
            errs.invalid_each(&at, finalizer, messages);
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let at = FieldPath::new("status").child("Phase");
        match (self.metadata.deletion_timestamp.is_some(), phase(self)) {
            (false, "Active") | (true, "Terminating") => {}
            (false, phase) => errs.invalid(&at, phase, "may only be 'Active' if `deletionTimestamp` is empty"),
            (true, phase) => errs.invalid(&at, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        }
    }
}

fn phase(namespace: &Namespace) -> &str {
    namespace.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

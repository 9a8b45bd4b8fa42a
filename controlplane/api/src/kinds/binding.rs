//! Bindings: that a pod is to run on a node. Said once, never stored.

use k8s_openapi::api::core::v1::Binding;

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Kind, Names, Scope, Storage},
};

impl Kind for Binding {
    const NAMES: Names = Names::new("", "v1", "Binding", "bindings", "binding");
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: Storage = Storage::Answered;

    fn validate(&self, errs: &mut FieldErrors) {
        let target = FieldPath::new("target");
        if let Some(kind) = self.target.kind.as_deref().filter(|k| !matches!(*k, "" | "Node")) {
            errs.not_supported(&target.child("kind"), kind, &["Node", "<empty>"]);
        }
        if self.target.name.as_deref().unwrap_or_default().is_empty() {
            errs.required(&target.child("name"), "");
        }
    }
}

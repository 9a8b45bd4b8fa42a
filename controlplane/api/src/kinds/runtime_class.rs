//! RuntimeClass: how pods are run, where there is more than one way.
//!
//! # Source
//! Kubernetes `pkg/apis/node/validation/validation.go`, `pkg/printers/internalversion/printers.go`
//! (`printRuntimeClass`).

use k8s_openapi::api::node::v1::RuntimeClass;

use super::pod::validate_quantity;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

impl Kind for RuntimeClass {
    const NAMES: Names = Names::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass");
    const SCOPE: Scope = Scope::Cluster;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Handler", |r, _| Cell::from(r.handler.as_str())).field::<RuntimeClass>("handler"),
        Column::AGE,
    ];

    fn validate(&self, errs: &mut FieldErrors) {
        errs.invalid_each(&FieldPath::new("handler"), &self.handler, names::is_dns1123_label(&self.handler));
        let overhead = FieldPath::new("overhead").child("podFixed");
        for (name, amount) in self.overhead.iter().flat_map(|o| o.pod_fixed.iter().flatten()) {
            validate_quantity(amount, &overhead.key(name), errs);
        }
        let selector = FieldPath::new("scheduling").child("nodeSelector");
        for (key, value) in self.scheduling.iter().flat_map(|s| s.node_selector.iter().flatten()) {
            errs.invalid_each(&selector, key, names::is_qualified_name(key));
            errs.invalid_each(&selector, value, names::is_label_value(value));
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("handler"), &self.handler, &old.handler);
    }
}

//! RuntimeClass: how pods are run, where there is more than one way.
//!
//! # Source
//! Kubernetes `pkg/apis/node/validation/validation.go`, `pkg/printers/internalversion/printers.go`
//! (`printRuntimeClass`).

use k8s_openapi::api::{core::v1::Toleration, node::v1::RuntimeClass};

use super::pod::{validate_limits, validate_tolerations};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    meta, names,
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
        if let Some(overhead) = self.overhead.as_ref().and_then(|o| o.pod_fixed.as_ref()) {
            validate_limits(overhead, &FieldPath::new("overhead"), errs);
        }
        let Some(scheduling) = &self.scheduling else { return };
        let path = FieldPath::new("scheduling");
        meta::validate_labels(scheduling.node_selector.as_ref(), &path.child("nodeSelector"), errs);
        let (at, tolerations) = (path.child("tolerations"), scheduling.tolerations.as_deref().unwrap_or_default());
        validate_tolerations(tolerations, &at, errs);
        // How long it is tolerated makes no difference.
        let key = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() };
        for (i, one) in tolerations.iter().enumerate() {
            if tolerations[..i].iter().any(|other| key(other) == key(one)) {
                errs.duplicate(&at.index(i), serde_json::to_value(one).unwrap_or_default());
            }
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("handler"), &self.handler, &old.handler);
    }
}

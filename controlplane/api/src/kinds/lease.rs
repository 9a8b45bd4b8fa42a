//! Lease: who holds a role, and until when; the heartbeat of nodes.
//!
//! # Source
//! Kubernetes `pkg/apis/coordination/validation/validation.go`.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

const OLDEST: &str = "OldestEmulationVersion";

impl Kind for Lease {
    const NAMES: Names = Names::new("coordination.k8s.io", "v1", "Lease", "leases", "lease");
    const SCOPE: Scope = Scope::Namespaced;
    const CREATE_ON_UPDATE: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Holder", |l, _| {
            Cell::from(l.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default())
        })
        .field::<LeaseSpec>("holderIdentity"),
        Column::AGE,
    ];

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let Some(spec) = &self.spec else { return };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            errs.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(times) = spec.lease_transitions.filter(|t| *t < 0) {
            errs.invalid(&path.child("leaseTransitions"), times, "must be greater than or equal to 0");
        }
        if let Some(strategy) = &spec.strategy {
            // Twice, as Kubernetes says it.
            validate_strategy(strategy, &path.child("strategy").child("strategy"), errs);
        }
        let prefers = spec.preferred_holder.as_deref().is_some_and(|holder| !holder.is_empty());
        if prefers && spec.strategy.as_deref().unwrap_or_default().is_empty() {
            errs.forbidden(&path.child("preferredHolder"), "may only be specified if `strategy` is defined");
        }
    }
}

/// One of Kubernetes' own, or somebody's who says who: `example.com/mine`.
fn validate_strategy(strategy: &str, path: &FieldPath, errs: &mut FieldErrors) {
    match strategy.split_once('/') {
        None if strategy == OLDEST => {}
        None => errs.not_supported(path, strategy, &[OLDEST]),
        Some(_) => errs.invalid_each(path, strategy, names::is_qualified_name(strategy)),
    }
}

//! PodDisruptionBudget: how many of some pods may be away at once by somebody's will.
//!
//! # Source
//! Kubernetes `pkg/apis/policy/validation/validation.go`, `pkg/registry/policy/poddisruptionbudget/strategy.go`.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{condition, deployment, label_selector};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
};

impl Kind for PodDisruptionBudget {
    const NAMES: Names =
        Names::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget")
            .short(&["pdb"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Min Available", |b, _| shown(b.spec.as_ref().and_then(|s| s.min_available.as_ref())))
            .help("The minimum number of pods that must be available."),
        Column::<Self>::text("Max Unavailable", |b, _| shown(b.spec.as_ref().and_then(|s| s.max_unavailable.as_ref())))
            .help("The maximum number of pods that may be unavailable."),
        Column::<Self>::int("Allowed Disruptions", |b, _| {
            Cell::from(b.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or_default())
        })
        .help("Calculated number of pods that may be disrupted at this time."),
        Column::AGE,
    ];

    fn fill_tree(tree: &mut Cell) {
        condition::fill_times(tree);
    }

    fn fill_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    crate::kind::status_apart!();
    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = PodDisruptionBudgetSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("status");
        let Some(status) = &self.status else { return };
        condition::validate_all(status.conditions.as_deref(), &path.child("conditions"), errs);
        let counts = [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ];
        for (field, count) in counts {
            errs.non_negative(&path.child(field), i64::from(count.unwrap_or_default()));
        }
    }
}

fn validate_spec(spec: &PodDisruptionBudgetSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        let value = serde_json::to_value(spec).unwrap_or_default();
        errs.invalid(path, value, "minAvailable and maxUnavailable cannot be both set");
    }
    for (field, amount) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
        let Some(amount) = amount else { continue };
        let at = path.child(field);
        let number = deployment::validate_amount(amount, &at, errs);
        if matches!(amount, IntOrString::String(_)) && number.is_some_and(|n| n > 100) {
            errs.invalid(&at, serde_json::to_value(amount).unwrap_or_default(), "must not be greater than 100%");
        }
    }
    if let Some(selector) = &spec.selector {
        label_selector::validate(selector, &path.child("selector"), errs);
    }
    match spec.unhealthy_pod_eviction_policy.as_deref() {
        None | Some("AlwaysAllow" | "IfHealthyBudget") => {}
        Some(other) => {
            let at = path.child("unhealthyPodEvictionPolicy");
            errs.not_supported(&at, other, &["AlwaysAllow", "IfHealthyBudget"]);
        }
    }
}

fn shown(amount: Option<&IntOrString>) -> Cell {
    match amount {
        None => Cell::from("N/A"),
        Some(IntOrString::Int(number)) => Cell::from(number.to_string()),
        Some(IntOrString::String(text)) => Cell::from(text.as_str()),
    }
}

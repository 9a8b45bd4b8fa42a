//! PriorityClass: how important pods are.
//!
//! # Source
//! Kubernetes `pkg/apis/scheduling/validation/validation.go`, `pkg/apis/scheduling/v1/defaults.go`,
//! `pkg/printers/internalversion/printers.go` (`printPriorityClass`).

use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
};

/// The highest value that users may give.
const USER_MAX: i32 = 1_000_000_000;
const SYSTEM: &str = "system-";
const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const POLICIES: [&str; 2] = ["Never", "PreemptLowerPriority"];

impl Kind for PriorityClass {
    const NAMES: Names =
        Names::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "priorityclass").short(&["pc"]);
    const SCOPE: Scope = Scope::Cluster;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Value", |p, _| Cell::from(p.value.unwrap_or_default())).field::<PriorityClass>("value"),
        Column::<Self>::bool("Global-Default", |p, _| Cell::from(p.global_default.unwrap_or(false)))
            .field::<PriorityClass>("globalDefault"),
        Column::AGE,
        Column::<Self>::text("PreemptionPolicy", |p, _| Cell::from(p.preemption_policy.clone().unwrap_or_default()))
            .field::<PriorityClass>("preemptionPolicy"),
    ];

    fn fill_defaults(&mut self) {
        self.value.get_or_insert(0);
        self.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    }

    fn generation_differs(&self, old: &Self) -> Option<bool> {
        Some(self.value != old.value || self.global_default != old.global_default)
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let value = self.value.unwrap_or_default();
        let is_system = SYSTEM_CLASSES.iter().any(|(known, of)| *known == name && *of == value);
        if name.starts_with(SYSTEM) && !is_system {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: "
                .to_owned()
                + &format!("{name} is not a known system priority class or its value is not as expected");
            errs.forbidden(&FieldPath::new("metadata").child("name"), &detail);
        } else if !is_system && value > USER_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            errs.forbidden(&FieldPath::new("value"), &detail);
        }
        let path = FieldPath::new("preemptionPolicy");
        match self.preemption_policy.as_deref() {
            None => errs.required(&path, ""),
            Some(policy) if !POLICIES.contains(&policy) => errs.not_supported(&path, policy, &POLICIES),
            Some(_) => {}
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        if self.value != old.value {
            errs.forbidden(&FieldPath::new("value"), "may not be changed in an update.");
        }
        errs.immutable(&FieldPath::new("preemptionPolicy"), &self.preemption_policy, &old.preemption_policy);
    }
}

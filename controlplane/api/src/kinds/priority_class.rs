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
const POLICIES: [&str; 2] = ["PreemptLowerPriority", "Never"];

/// A priority class that every cluster has, whether or not it is stored.
pub struct SystemPriorityClass {
    /// Its name.
    pub name: &'static str,
    /// The number that pods get from it.
    pub value: i32,
    /// What it is for.
    pub description: &'static str,
}

/// The priority classes of what a cluster cannot be without.
pub const SYSTEM_PRIORITY_CLASSES: [SystemPriorityClass; 2] = [
    SystemPriorityClass {
        name: "system-node-critical",
        value: 2_000_001_000,
        description: "Used for system critical pods that must not be moved from their current node.",
    },
    SystemPriorityClass {
        name: "system-cluster-critical",
        value: 2_000_000_000,
        description: "Used for system critical pods that must run in the cluster, but can be moved to another node if \
                      necessary.",
    },
];

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

    fn generation_differs(&self, _old: &Self) -> Option<bool> {
        Some(false)
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let value = self.value.unwrap_or_default();
        if name.starts_with(SYSTEM) {
            if let Some(error) = unlike_system(name, value, self.global_default.unwrap_or(false)) {
                let detail = format!(
                    "priority class names with '{SYSTEM}' prefix are reserved for system use only. error: {error}"
                );
                errs.forbidden(&FieldPath::new("metadata").child("name"), &detail);
            }
        } else if value > USER_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            errs.forbidden(&FieldPath::new("value"), &detail);
        }
        let path = FieldPath::new("preemptionPolicy");
        match self.preemption_policy.as_deref() {
            None => {}
            Some("") => errs.required(&path, ""),
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

/// How a class differs from the system's class of its name.
fn unlike_system(name: &str, value: i32, global_default: bool) -> Option<String> {
    match SYSTEM_PRIORITY_CLASSES.iter().find(|c| c.name == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some(known) if known.value != value => Some(format!("value of {name} PriorityClass must be {}", known.value)),
        Some(_) if global_default => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
    }
}

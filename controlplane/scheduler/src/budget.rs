//! PodDisruptionBudgets, as far as preemption looks at them.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use podium_api::{ObjectKey, Selector};

use crate::{
    index::GroupKey,
    terms::{Labels, selector},
};

/// All budgets.
#[derive(Debug, Default)]
pub(crate) struct Budgets(HashMap<ObjectKey, Budget>);

#[derive(Debug)]
struct Budget {
    selector: Selector,
    allowed: i32,
    /// Pods whose eviction was granted already.
    disrupted: BTreeSet<String>,
}

impl Budgets {
    pub(crate) fn put(&mut self, budget: &PodDisruptionBudget) {
        let status = budget.status.as_ref();
        let spec = budget.spec.as_ref();
        let disrupted = status.and_then(|s| s.disrupted_pods.as_ref());
        let read = Budget {
            selector: selector(spec.and_then(|s| s.selector.as_ref())),
            allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0),
            disrupted: disrupted.iter().flat_map(|pods| pods.keys().cloned()).collect(),
        };
        self.0.insert(ObjectKey::of(&budget.metadata), read);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// Counts down what pods that end use up of the budgets.
    pub(crate) fn open(&self) -> Spending<'_> {
        Spending(self.0.iter().map(|(key, budget)| (key.namespace.as_str(), budget, budget.allowed)).collect())
    }
}

/// What is left of each budget.
pub(crate) struct Spending<'a>(Vec<(&'a str, &'a Budget, i32)>);

impl Spending<'_> {
    /// Whether a budget is broken when this pod ends too.
    ///
    /// # Source
    /// Kubernetes `plugins/defaultpreemption/default_preemption.go`, `filterPodsWithPDBViolation`.
    pub(crate) fn breaks(&mut self, name: &str, group: &GroupKey) -> bool {
        let mut broken = false;
        if group.labels.is_empty() {
            return broken;
        }
        for (namespace, budget, left) in &mut self.0 {
            if *namespace == group.namespace && budget.means(name, &group.labels) {
                *left -= 1;
                broken |= *left < 0;
            }
        }
        broken
    }
}

impl Budget {
    fn means(&self, name: &str, labels: &Labels) -> bool {
        !self.selector.is_everything() && self.selector.matches(labels) && !self.disrupted.contains(name)
    }
}

//! Podium's own policies of ways out: which hosts the selected pods of a namespace may reach, by name. Pure but for the
//! lock around them.
//!
//! A pod that some policy selects reaches only what one of those policies allows. They and the annotations limit each
//! other: neither widens what the other does not grant. A pod that has no annotation, in a namespace with none, asks for
//! what its policies allow.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;

use crate::{egress::HostPatterns, limit::Limit, policy::Selector, table::Name};

/// One policy of ways out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Which.
    pub name: Name,
    /// The pods of its namespace that it is about.
    pub pods: Selector,
    /// What they may reach.
    pub allowed: HostPatterns,
}

/// All of them, by namespace.
pub(crate) struct EgressPolicies {
    any: AtomicBool,
    all: RwLock<HashMap<String, BTreeMap<String, EgressPolicy>>>,
    /// How often refusals of ways out are logged.
    pub(crate) said: Limit,
}

impl Default for EgressPolicies {
    fn default() -> Self {
        Self { any: AtomicBool::new(false), all: RwLock::default(), said: Limit::of_refusals() }
    }
}

impl EgressPolicies {
    /// Whether a namespace has any.
    pub(crate) fn has_any_in(&self, namespace: &str) -> bool {
        self.all.read().contains_key(namespace)
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Returns whether anything changed.
    pub(crate) fn put(&self, policy: EgressPolicy) -> bool {
        let mut all = self.all.write();
        let name = policy.name.clone();
        let before = all.entry(name.namespace).or_default().insert(name.name, policy.clone());
        self.any.store(true, Ordering::Release);
        before != Some(policy)
    }

    pub(crate) fn remove(&self, name: &Name) -> bool {
        let mut all = self.all.write();
        let Some(there) = all.get_mut(&name.namespace) else { return false };
        let removed = there.remove(&name.name).is_some();
        if there.is_empty() {
            all.remove(&name.namespace);
        }
        self.any.store(!all.is_empty(), Ordering::Release);
        removed
    }

    /// What the policies that select a pod allow; `None` when none does.
    pub(crate) fn of(&self, namespace: &str, labels: impl FnOnce() -> crate::Labels) -> Option<Vec<HostPatterns>> {
        if !self.any() {
            return None;
        }
        let all = self.all.read();
        let there = all.get(namespace)?;
        let labels: Arc<_> = labels();
        let selecting = there.values().filter(|policy| policy.pods.selects(&labels));
        let allowed: Vec<_> = selecting.map(|policy| policy.allowed.clone()).collect();
        (!allowed.is_empty()).then_some(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_the_policies_that_select_it() {
        let policies = EgressPolicies::default();
        let labels = |app: &str| Arc::new(BTreeMap::from([("app".to_owned(), app.to_owned())]));
        let of = |namespace: &str, app: &str| policies.of(namespace, || labels(app)).map(|all| all.len());
        assert_eq!(of("shop", "web"), None);
        let policy =
            |name: &str, pods| EgressPolicy { name: Name::new("shop", name), pods, allowed: "a:1".parse().unwrap() };
        assert!(policies.put(policy("web", Selector::label("app", "web"))));
        assert!(!policies.put(policy("web", Selector::label("app", "web"))), "nothing new");
        assert_eq!((of("shop", "web"), of("shop", "db"), of("other", "web")), (Some(1), None, None));
        policies.put(policy("all", Selector::default()));
        assert_eq!((of("shop", "web"), of("shop", "db")), (Some(2), Some(1)));
        assert!(policies.remove(&Name::new("shop", "all")) && policies.remove(&Name::new("shop", "web")));
        assert!(!policies.remove(&Name::new("shop", "web")) && !policies.any());
    }
}

//! RBAC: who may do what, by the Roles, ClusterRoles and their bindings that are there at the moment.
//!
//! Invariants: whoever wrote a role or a binding, and was answered, is judged by it from then on; a request is judged
//! without parsing and without copying, from bindings that are indexed by user and by group; nothing grants what no object
//! says, but for members of `system:masters`, who may do everything; what refers to a role that is not there grants nothing.
//!
//! # Source
//! Kubernetes `plugin/pkg/auth/authorizer/rbac/rbac.go`, `pkg/registry/rbac/validation/rule.go`.

mod bootstrap;
mod covers;
mod escalation;
mod index;
mod policy;
mod rules;
#[cfg(test)]
mod tests;

use std::{ops::ControlFlow, sync::Arc};

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use parking_lot::{Mutex, RwLock};
use podium_api::ApiError;

pub(crate) use self::{bootstrap::ensure, escalation::Escalation};
use self::{
    index::{Grant, Index},
    rules::allows,
};
use crate::{
    auth::{Attributes, Authorizer, Decision, Identity, MASTERS},
    registry::cache::Cache,
};

/// The API group.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// The caches of the four kinds.
pub(crate) struct Sources {
    pub(crate) cluster_roles: Arc<Cache>,
    pub(crate) roles: Arc<Cache>,
    pub(crate) cluster_role_bindings: Arc<Cache>,
    pub(crate) role_bindings: Arc<Cache>,
}

impl Sources {
    /// Differs once anything has changed.
    fn changes(&self) -> [u64; 4] {
        let all = [&self.cluster_roles, &self.roles, &self.cluster_role_bindings, &self.role_bindings];
        all.map(|cache| cache.changes())
    }
}

/// Who may do what.
pub(crate) struct Rbac {
    sources: Sources,
    index: RwLock<Option<Arc<Index>>>,
    /// Held by the one who makes the index anew.
    making: Mutex<()>,
}

impl Rbac {
    pub(crate) fn new(sources: Sources) -> Self {
        Self { sources, index: RwLock::default(), making: Mutex::default() }
    }

    /// All grants, no older than any write that was answered before.
    fn index(&self) -> Arc<Index> {
        let fresh = |changes| self.index.read().clone().filter(|index| index.made_at == changes);
        if let Some(index) = fresh(self.sources.changes()) {
            return index;
        }
        let _making = self.making.lock();
        // Read before the objects: what changes in between is looked at again by the next request.
        let changes = self.sources.changes();
        if let Some(index) = fresh(changes) {
            return index;
        }
        let index = Arc::new(Index::new(&self.sources, changes));
        *self.index.write() = Some(index.clone());
        index
    }

    /// Everything that somebody has been granted, for a namespace (or, with none, for the cluster), and what was wrong.
    pub(crate) fn rules(&self, who: &Identity, namespace: &str) -> (Vec<PolicyRule>, String) {
        let index = self.index();
        let mut seen: Vec<&str> = Vec::new();
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        let _all = index.visit(who, namespace, |grant| -> ControlFlow<()> {
            let key = &*grant.binding.key;
            if !seen.contains(&key) {
                seen.push(key);
                match grant.rules() {
                    Some(found) => rules.extend_from_slice(found),
                    None => missing.push(grant.missing()),
                }
            }
            ControlFlow::Continue(())
        });
        (rules, aggregate(missing))
    }

    /// The rules of a role that a binding in a namespace (or, with none, of the cluster) refers to.
    ///
    /// # Errors
    /// 404 when it is not there.
    fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Vec<PolicyRule>, ApiError> {
        let entry = index::role(&self.sources, role, namespace);
        let rules = entry.as_ref().and_then(|entry| index::rules(entry)).map(<[PolicyRule]>::to_vec);
        rules.ok_or_else(|| ApiError::new(podium_api::Reason::NotFound, index::not_found(role)))
    }
}

impl Authorizer for Rbac {
    fn allows(&self, who: &Identity, what: &Attributes<'_>) -> bool {
        let granted = |grant: &Grant| match grant.rules().unwrap_or_default().iter().any(|rule| allows(rule, what)) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        is_master(who) || self.index().visit(who, what.namespace, granted).is_break()
    }

    fn decide(&self, who: &Identity, what: &Attributes<'_>) -> Decision {
        if is_master(who) {
            return Decision { allowed: true, reason: String::new() };
        }
        let mut missing = Vec::new();
        let found = self.index().visit(who, what.namespace, |grant| match grant.rules() {
            Some(rules) if rules.iter().any(|rule| allows(rule, what)) => ControlFlow::Break(grant.describe()),
            Some(_) => ControlFlow::Continue(()),
            None => {
                missing.push(grant.missing());
                ControlFlow::Continue(())
            }
        });
        match found {
            ControlFlow::Break(by) => Decision { allowed: true, reason: format!("RBAC: allowed by {by}") },
            ControlFlow::Continue(()) if missing.is_empty() => Decision::default(),
            ControlFlow::Continue(()) => Decision { allowed: false, reason: format!("RBAC: {}", aggregate(missing)) },
        }
    }
}

fn is_master(who: &Identity) -> bool {
    who.groups.iter().any(|group| group == MASTERS)
}

/// Several messages as Kubernetes puts them together, each once.
fn aggregate(messages: Vec<String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for message in messages {
        if !once.contains(&message) {
            once.push(message);
        }
    }
    match once.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

//! Aggregated ClusterRoles: their rules are those of all roles whose labels their selectors match.
//!
//! # Source
//! Kubernetes `pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use podium_api::{Selector, kind_of};

use crate::{Action, Controller, Key, Plan, Trigger, View, ViewExt};

/// The controller.
pub struct ClusterRoleAggregation;

impl Controller for ClusterRoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    fn component(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![Trigger { kind: kind_of::<ClusterRole>(), keys: |_, view| aggregated(view) }]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(role) = view.get_as::<ClusterRole>(&key.object) else { return plan };
        let Some(selectors) = selectors(&role) else { return plan };
        let rules = rules(&role, &selectors, view);
        if rules != role.rules.as_deref().unwrap_or_default() {
            plan.push(Action::Update(Box::new(ClusterRole { rules: Some(rules), ..(*role).clone() })));
        }
        plan
    }
}

/// There are few: whichever role changes, all that aggregate are looked at, since one may be part of another.
fn aggregated(view: &dyn View) -> Vec<Key> {
    let all = view.list_as::<ClusterRole>(None);
    all.iter().filter(|role| role.aggregation_rule.is_some()).map(|role| Key::of(&**role)).collect()
}

/// None for roles that aggregate nothing, or by what is no selector.
fn selectors(role: &ClusterRole) -> Option<Vec<Selector>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    selectors.iter().map(|selector| Selector::from_label_selector(Some(selector)).ok()).collect()
}

/// Each once, by selector and name.
fn rules(role: &ClusterRole, selectors: &[Selector], view: &dyn View) -> Vec<PolicyRule> {
    let mut all: Vec<Arc<ClusterRole>> = view.list_as(None);
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let others = || all.iter().filter(|other| other.metadata.name != role.metadata.name);
    let parts = selectors
        .iter()
        .flat_map(|selector| others().filter(move |other| selector.matches_option(other.metadata.labels.as_ref())));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.flat_map(|part| part.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}

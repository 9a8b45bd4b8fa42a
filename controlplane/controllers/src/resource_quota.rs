//! ResourceQuota: counts what a namespace holds of what its quotas limit.
//!
//! The status is for those who look; admission counts for itself.
//!
//! # Source
//! Kubernetes `pkg/controller/resourcequota/resource_quota_controller.go`.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ResourceQuota, ResourceQuotaStatus};
use podium_api::{
    Kind, KindRef, Object, ObjectKey, Quantity, Scope,
    quota::{self, Usage},
};

use crate::{Action, Controller, Key, Keys, Plan, Trigger, View, ViewExt};

/// The controller.
pub struct ResourceQuotas;

/// What may be counted: everything in namespaces, of each kind the version that is stored. Events are too many.
fn is_counted(kind: &KindRef) -> bool {
    kind.scope() == Scope::Namespaced && kind.stored_as().is_none() && kind.names() != Event::NAMES
}

impl Controller for ResourceQuotas {
    fn name(&self) -> &'static str {
        "resourcequota"
    }

    fn component(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        podium_api::kinds::all().into_iter().filter(is_counted).map(|kind| Trigger { kind, keys }).collect()
    }

    fn any_kind(&self) -> Option<Keys> {
        Some(keys)
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(quota) = view.get_as::<ResourceQuota>(&key.object) else { return plan };
        let hard = quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
        let used = used(&quota, &key.object.namespace, view);
        let wanted = ResourceQuotaStatus {
            hard: Some(hard).filter(|h| !h.is_empty()),
            used: Some(quota::to_wire(&used)).filter(|u| !u.is_empty()),
        };
        if same(quota.status.as_ref(), &wanted) {
            return plan;
        }
        plan.push(Action::UpdateStatus(Box::new(ResourceQuota { status: Some(wanted), ..(*quota).clone() })));
        plan
    }
}

/// The quotas that an object counts for, or would.
fn keys(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let names = object.names();
    let mut keys = Vec::new();
    if quota::is_quota(&names) {
        keys.push(Key::of(object));
    }
    for found in view.list_as::<ResourceQuota>(object.meta().namespace.as_deref()) {
        let hard = found.spec.iter().flat_map(|s| s.hard.iter().flatten());
        if hard.into_iter().any(|(name, _)| quota::concerns(name, &names)) {
            keys.push(Key::new(&ResourceQuota::NAMES, ObjectKey::of(&found.metadata)));
        }
    }
    keys
}

fn used(quota: &ResourceQuota, namespace: &str, view: &dyn View) -> Usage {
    let names: Vec<&String> = quota.spec.iter().flat_map(|s| s.hard.iter().flatten()).map(|(name, _)| name).collect();
    let mut sum: Usage = names.iter().map(|name| ((*name).clone(), Quantity::ZERO)).collect();
    for kind in view.kinds() {
        if is_counted(&kind) && names.iter().any(|name| quota::concerns(name, &kind.names())) {
            for object in view.list(&kind.names(), Some(namespace)) {
                quota::add(&mut sum, &quota::charged(quota, &*object));
            }
        }
    }
    sum
}

/// Amounts are the same in whatever form they are written.
fn same(known: Option<&ResourceQuotaStatus>, wanted: &ResourceQuotaStatus) -> bool {
    let default = ResourceQuotaStatus::default();
    let known = known.unwrap_or(&default);
    let read =
        |status: &ResourceQuotaStatus| (quota::from_wire(status.hard.as_ref()), quota::from_wire(status.used.as_ref()));
    read(known) == read(wanted)
}

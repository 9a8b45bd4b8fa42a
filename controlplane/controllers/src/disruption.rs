//! PodDisruptionBudget: how many of its pods may be evicted right now.
//!
//! Writes the status that evictions ask. When it cannot be known how many pods there should be, none may go.
//!
//! # Source
//! Kubernetes `pkg/controller/disruption/disruption.go`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, ObjectMeta, Time},
        util::intstr::IntOrString,
    },
};
use podium_api::{Kind, ObjectKey, kind_of, selector::Selector};

use crate::{
    Action, Controller, Key, Keys, Plan, Trigger, View, ViewExt,
    owners::{controller_of, matching},
    pods::is_ready,
};

/// A pod that was to be evicted and is still there after so many seconds stays.
const EVICTION_SECONDS_MAX: i64 = 120;
const ALLOWED: &str = "DisruptionAllowed";

/// The controller of PodDisruptionBudgets.
pub struct PodDisruptionBudgets;

impl Controller for PodDisruptionBudgets {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn component(&self) -> &'static str {
        "controllermanager"
    }

    fn triggers(&self) -> Vec<Trigger> {
        // Those that own pods are read only: when they change, so do their pods.
        let read: Keys = |_, _| Vec::new();
        vec![
            Trigger { kind: kind_of::<PodDisruptionBudget>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<Pod>(), keys: |pod, view| matching(pod.meta(), view, selector) },
            Trigger { kind: kind_of::<ReplicaSet>(), keys: read },
            Trigger { kind: kind_of::<Deployment>(), keys: read },
            Trigger { kind: kind_of::<ReplicationController>(), keys: read },
            Trigger { kind: kind_of::<StatefulSet>(), keys: read },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(budget) = view.get_as::<PodDisruptionBudget>(&key.object) else { return plan };
        let Some(selector) = selector(&budget) else { return plan };
        let mut pods = view.list_as::<Pod>(budget.metadata.namespace.as_deref());
        pods.retain(|pod| selector.matches_option(pod.metadata.labels.as_ref()));
        let going = going(&budget, &pods, now, &mut plan);
        let counts = |pod: &&Arc<Pod>| {
            pod.metadata.deletion_timestamp.is_none() && !going.contains_key(&name(&pod.metadata)) && is_ready(pod)
        };
        let healthy = count(pods.iter().filter(counts).count());
        let status = match bounds(&budget, &pods, view) {
            Some((expected, desired)) => {
                let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
                let why = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
                told(
                    &budget,
                    PodDisruptionBudgetStatus {
                        current_healthy: Some(healthy),
                        desired_healthy: Some(desired),
                        expected_pods: Some(expected),
                        disruptions_allowed: Some(allowed),
                        disrupted_pods: Some(going).filter(|g| !g.is_empty()),
                        ..PodDisruptionBudgetStatus::default()
                    },
                    why,
                    now,
                )
            }
            None => {
                let known = budget.status.clone().unwrap_or_default();
                told(&budget, PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..known }, "SyncFailed", now)
            }
        };
        if budget.status.as_ref() != Some(&status) {
            plan.push(Action::UpdateStatus(Box::new(PodDisruptionBudget {
                status: Some(status),
                ..(*budget).clone()
            })));
        }
        plan
    }
}

fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::from_label_selector(budget.spec.as_ref()?.selector.as_ref()).ok()
}

fn name(meta: &ObjectMeta) -> String {
    meta.name.clone().unwrap_or_default()
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// The pods whose eviction was granted and that are still to go; looks again when the first of them is given up.
fn going(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) -> BTreeMap<String, Time> {
    let noted = budget.status.iter().flat_map(|s| s.disrupted_pods.iter().flatten());
    let mut going = BTreeMap::new();
    for (name, since) in noted {
        let stays =
            |pod: &Arc<Pod>| pod.metadata.name.as_ref() == Some(name) && pod.metadata.deletion_timestamp.is_none();
        let left = EVICTION_SECONDS_MAX - (now.as_second() - since.0.as_second());
        if left > 0 && pods.iter().any(stays) {
            plan.requeue_in(left);
            going.insert(name.clone(), since.clone());
        }
    }
    going
}

/// How many pods there should be and how many of them have to be healthy; `None` when that cannot be known.
fn bounds(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], view: &dyn View) -> Option<(i32, i32)> {
    let spec = budget.spec.as_ref()?;
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = wanted(pods, view)?;
            Some((expected, (expected - scaled(most, expected)?).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Some((count(pods.len()), *least)),
        (None, Some(least)) => {
            let expected = wanted(pods, view)?;
            Some((expected, scaled(least, expected)?))
        }
        (None, None) => Some((count(pods.len()), 0)),
    }
}

/// A number, or so many percent of a number, rounded up.
fn scaled(amount: &IntOrString, of: i32) -> Option<i32> {
    let percent: i64 = match amount {
        IntOrString::Int(number) => return Some(*number),
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok()?,
    };
    i32::try_from((i64::from(of) * percent + 99) / 100).ok()
}

/// How many pods all those that control some of the pods want together. Pods that nobody controls do not count.
fn wanted(pods: &[Arc<Pod>], view: &dyn View) -> Option<i32> {
    let mut controllers = BTreeMap::new();
    for pod in pods {
        if let Some((uid, replicas)) = controller(&pod.metadata, view)? {
            controllers.insert(uid, replicas);
        }
    }
    controllers.values().try_fold(0_i32, |sum, replicas| sum.checked_add(*replicas))
}

/// Who controls a pod in the end, and how many it wants. `None` when it is of a kind that does not say.
fn controller(pod: &ObjectMeta, view: &dyn View) -> Option<Option<(String, i32)>> {
    let Some(owner) = controller_of(pod) else { return Some(None) };
    let key = |name: &str| ObjectKey::new(pod.namespace.clone().unwrap_or_default(), name);
    let says = |meta: &ObjectMeta, uid: &str, replicas: Option<i32>| {
        (meta.uid.as_deref() == Some(uid)).then(|| (uid.to_owned(), replicas.unwrap_or(1)))
    };
    let found = match owner.kind.as_str() {
        "ReplicaSet" => {
            let set = view.get_as::<ReplicaSet>(&key(&owner.name))?;
            match controller_of(&set.metadata).filter(|above| above.kind == Deployment::NAMES.kind) {
                Some(above) => {
                    let deployment = view.get_as::<Deployment>(&key(&above.name))?;
                    says(&deployment.metadata, &above.uid, deployment.spec.as_ref().and_then(|s| s.replicas))
                }
                None => says(&set.metadata, &owner.uid, set.spec.as_ref().and_then(|s| s.replicas)),
            }
        }
        "ReplicationController" => {
            let rc = view.get_as::<ReplicationController>(&key(&owner.name))?;
            says(&rc.metadata, &owner.uid, rc.spec.as_ref().and_then(|s| s.replicas))
        }
        "StatefulSet" => {
            let set = view.get_as::<StatefulSet>(&key(&owner.name))?;
            says(&set.metadata, &owner.uid, set.spec.as_ref().and_then(|s| s.replicas))
        }
        _ => return None,
    };
    Some(found)
}

/// The status with its condition and the generation that it is about.
fn told(
    budget: &PodDisruptionBudget,
    mut status: PodDisruptionBudgetStatus,
    reason: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let allowed = if status.disruptions_allowed > Some(0) { "True" } else { "False" };
    let mut conditions = budget.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let known = conditions.iter().position(|c| c.type_ == ALLOWED).map(|at| conditions.remove(at));
    let since = known.filter(|c| c.status == allowed).map_or(Time(now), |c| c.last_transition_time);
    status.observed_generation = budget.metadata.generation;
    conditions.push(Condition {
        type_: ALLOWED.to_owned(),
        status: allowed.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    });
    status.conditions = Some(conditions);
    status
}

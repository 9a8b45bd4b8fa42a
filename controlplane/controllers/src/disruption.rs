//! PodDisruptionBudget: how many of its pods may be evicted right now.
//!
//! Writes the status that evictions ask. When it cannot be known how many pods there should be, none may go, and the
//! condition says why. Events come with a new status only: Kubernetes repeats them each time it looks.
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
        apis::meta::v1::{Condition, LabelSelector, ObjectMeta, OwnerReference, Time},
        util::intstr::IntOrString,
    },
};
use podium_api::{Kind, Object, ObjectKey, kind_of, object::SubresourceBehaviour, selector::Selector};

use crate::{
    Action, Controller, EventNote, Key, Keys, Plan, Trigger, View, ViewExt,
    owners::{controller_of, is_of, matching},
    pods::{is_ready, standing_disruption, without_disruption},
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
            Trigger { kind: kind_of::<Pod>(), keys: of_pod },
            Trigger { kind: kind_of::<ReplicaSet>(), keys: read },
            Trigger { kind: kind_of::<Deployment>(), keys: read },
            Trigger { kind: kind_of::<ReplicationController>(), keys: read },
            Trigger { kind: kind_of::<StatefulSet>(), keys: read },
        ]
    }

    /// Custom resources own pods too: those with a scale say how many they want.
    fn any_kind(&self) -> Option<Keys> {
        Some(|_, _| Vec::new())
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if key.is(&Pod::NAMES) {
            forget_disruption(key, view, now, &mut plan);
            return plan;
        }
        let Some(budget) = view.get_as::<PodDisruptionBudget>(&key.object) else { return plan };
        let Some(selector) = selector(&budget) else { return plan };
        let mut pods = view.list_as::<Pod>(budget.metadata.namespace.as_deref());
        pods.retain(|pod| selector.matches_option(pod.metadata.labels.as_ref()));
        let going = going(&budget, &pods, now, &mut plan);
        let counts = |pod: &&Arc<Pod>| {
            pod.metadata.deletion_timestamp.is_none() && !going.contains_key(&name(&pod.metadata)) && is_ready(pod)
        };
        let healthy = count(pods.iter().filter(counts).count());
        let mut events = Vec::new();
        if pods.is_empty() {
            events.push(EventNote::normal(&*budget, "NoPods", "No matching pods found"));
        }
        let status = match bounds(&budget, &pods, view) {
            Ok((expected, desired)) => {
                events.extend(unmanaged(&budget, &pods));
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
                    (why, ""),
                    now,
                )
            }
            Err(why) => {
                let message = format!("Failed to calculate the number of expected pods: {why}");
                events.push(EventNote::warning(&*budget, "CalculateExpectedPodCountFailed", message));
                let known = budget.status.clone().unwrap_or_default();
                let none = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..known };
                told(&budget, none, ("SyncFailed", &why), now)
            }
        };
        if budget.status.as_ref() != Some(&status) {
            plan.actions.extend(events.into_iter().map(Action::Event));
            plan.push(Action::UpdateStatus(Box::new(PodDisruptionBudget {
                status: Some(status),
                ..(*budget).clone()
            })));
        }
        plan
    }
}

/// The budgets that select it; itself while it was said to go.
fn of_pod(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let mut keys = matching(object.meta(), view, selector);
    let going = object.downcast_ref::<Pod>().and_then(standing_disruption);
    keys.extend(going.map(|_| Key::of(object)));
    keys
}

/// A pod that was said to go and is still there after some time is not going.
///
/// # Source
/// Kubernetes `pkg/controller/disruption/disruption.go`, `syncStalePodDisruption`.
fn forget_disruption(key: &Key, view: &dyn View, now: Timestamp, plan: &mut Plan) {
    let Some(pod) = view.get_as::<Pod>(&key.object) else { return };
    let Some(said) = standing_disruption(&pod) else { return };
    let since = said.last_transition_time.as_ref().map_or(now, |t| t.0);
    let left = EVICTION_SECONDS_MAX - (now.as_second() - since.as_second());
    if left > 0 {
        return plan.requeue_in(left);
    }
    let status = Some(without_disruption(&pod, now));
    plan.push(Action::UpdateStatus(Box::new(Pod { status, ..(*pod).clone() })));
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

/// How many pods there should be and how many of them have to be healthy.
///
/// # Errors
/// Why that cannot be known.
fn bounds(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], view: &dyn View) -> Result<(i32, i32), String> {
    let Some(spec) = &budget.spec else { return Ok((count(pods.len()), 0)) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = wanted(pods, view)?;
            Ok((expected, (expected - scaled(most, expected)?).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Ok((count(pods.len()), *least)),
        (None, Some(least)) => {
            let expected = wanted(pods, view)?;
            Ok((expected, scaled(least, expected)?))
        }
        (None, None) => Ok((count(pods.len()), 0)),
    }
}

/// Whether what is asked for depends on how many pods there should be.
fn is_relative(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    spec.is_some_and(|s| s.max_unavailable.is_some() || matches!(s.min_available, Some(IntOrString::String(_))))
}

/// Says that some pods have nobody who wants so and so many of them.
fn unmanaged(budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Option<EventNote> {
    let alone = pods.iter().any(|pod| controller_of(&pod.metadata).is_none());
    let selector = budget.spec.as_ref()?.selector.as_ref()?;
    (alone && is_relative(budget)).then(|| {
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the \
             status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
             these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
            as_go(selector)
        );
        EventNote::warning(budget, "UnmanagedPods", message)
    })
}

/// A selector as Go prints it.
fn as_go(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|e| {
        let values = e.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}

/// A number, or so many percent of a number, rounded up.
fn scaled(amount: &IntOrString, of: i32) -> Result<i32, String> {
    let text = match amount {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok());
    let number = percent.and_then(|percent| i32::try_from((i64::from(of) * percent + 99) / 100).ok());
    number.ok_or_else(|| "invalid type: string is not a percentage".to_owned())
}

/// How many pods all those that control some of the pods want together. Pods that nobody controls do not count.
fn wanted(pods: &[Arc<Pod>], view: &dyn View) -> Result<i32, String> {
    let mut controllers = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else { continue };
        let unknown = || format!("found no controllers for pod {:?}", name(&pod.metadata));
        let (uid, replicas) = controller(&pod.metadata, owner, view)?.ok_or_else(unknown)?;
        controllers.insert(uid, replicas);
    }
    let all = controllers.values().try_fold(0_i32, |sum, replicas| sum.checked_add(*replicas));
    all.ok_or_else(|| "more pods are wanted than can be counted".to_owned())
}

/// Somebody who controls pods, and how many it wants.
type Wanted = (String, i32);

/// Who controls a pod in the end. `None` when nobody of that name and uid is there.
///
/// # Errors
/// The kind of its owner does not say how many pods it wants.
fn controller(pod: &ObjectMeta, owner: &OwnerReference, view: &dyn View) -> Result<Option<Wanted>, String> {
    let namespace = pod.namespace.as_deref().unwrap_or_default();
    match deployment(namespace, owner, view) {
        Some(found) => Ok(Some(found)),
        None => scaled_owner(namespace, owner, view),
    }
}

/// The Deployment above a ReplicaSet.
fn deployment(namespace: &str, owner: &OwnerReference, view: &dyn View) -> Option<Wanted> {
    if !is_of(owner, &ReplicaSet::NAMES) {
        return None;
    }
    let set = view.get_as::<ReplicaSet>(&ObjectKey::new(namespace, &*owner.name))?;
    let above = controller_of(&set.metadata).filter(|above| is_of(above, &Deployment::NAMES))?;
    let found = view.get_as::<Deployment>(&ObjectKey::new(namespace, &*above.name))?;
    let is = |meta: &ObjectMeta, uid: &str| meta.uid.as_deref() == Some(uid);
    let is_it = is(&set.metadata, &owner.uid) && is(&found.metadata, &above.uid);
    is_it.then(|| (above.uid.clone(), found.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)))
}

/// Any owner that has a scale.
fn scaled_owner(namespace: &str, owner: &OwnerReference, view: &dyn View) -> Result<Option<Wanted>, String> {
    let mut known = view.kinds().into_iter().chain(podium_api::kinds::all());
    let kind = known.find(|kind| is_of(owner, &kind.names())).ok_or_else(|| {
        let OwnerReference { kind, api_version, .. } = owner;
        format!("no matches for kind {kind:?} in version {api_version:?}")
    })?;
    let names = kind.names();
    if !kind.subresources().iter().any(|sub| sub.behaviour == SubresourceBehaviour::Scale) {
        return Err(format!("{} does not implement the scale subresource", names.qualified_resource()));
    }
    let found = view.get(&names, &ObjectKey::new(namespace, &*owner.name)).filter(|there| there.uid() == owner.uid);
    let scale = found.and_then(|there| kind.scale(&*there));
    Ok(scale.map(|scale| (owner.uid.clone(), scale.spec_replicas)))
}

/// The status with its condition and the generation that it is about.
fn told(
    budget: &PodDisruptionBudget,
    mut status: PodDisruptionBudgetStatus,
    (reason, message): (&str, &str),
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
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    });
    status.conditions = Some(conditions);
    status
}

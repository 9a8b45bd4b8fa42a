//! Pods that nobody is left to end: on nodes that are gone or out of service, never scheduled, or ended long ago.
//!
//! Keys are nodes, pods that are terminating without a node, and one key (without a name) for all pods that have ended.
//! Nothing is held against nodes until this has watched for [`QUARANTINE_SECONDS`]: they may be about to register again.
//!
//! # Source
//! Kubernetes `pkg/controller/podgc/gc_controller.go`.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodCondition};
use podium_api::{Kind as _, Object, ObjectKey, kind_of};

use crate::{
    Action, Controller, Key, Plan, Preconditions, Trigger, View, ViewExt,
    pods::{disruption, is_finished, node_name, phase},
};

/// So many pods that have ended may stay.
const ENDED_MAX: usize = 12_500;
/// How often they are counted.
const PERIOD_SECONDS: i64 = 20;
const QUARANTINE_SECONDS: i64 = 40;
/// At most so many pods are deleted by one plan.
const PODS_MAX: usize = 200;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The controller.
pub struct PodGarbageCollection;

impl Controller for PodGarbageCollection {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn component(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<Pod>(), keys: of_pod },
            Trigger { kind: kind_of::<Node>(), keys: of_node },
            // There is one in every cluster: it starts what then comes back by itself.
            Trigger { kind: kind_of::<Namespace>(), keys: |_, _| vec![all_ended()] },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if key.is(&Node::NAMES) {
            of_one_node(&key.object, view, now, &mut plan);
        } else if key.object.name.is_empty() {
            ended(view, ENDED_MAX, &mut plan);
        } else if let Some(pod) = view.get_as::<Pod>(&key.object).filter(|pod| is_stranded(pod)) {
            force(&pod, None, &mut plan);
        }
        plan
    }
}

fn all_ended() -> Key {
    Key::new(&Pod::NAMES, ObjectKey::cluster(""))
}

fn of_pod(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let Some(pod) = object.downcast_ref::<Pod>() else { return Vec::new() };
    let node = ObjectKey::cluster(node_name(pod));
    if is_stranded(pod) {
        return vec![Key::of(object)];
    }
    let concerns = !node.name.is_empty()
        && match view.get_as::<Node>(&node) {
            None => true,
            Some(node) => pod.metadata.deletion_timestamp.is_some() && is_out_of_service(&node),
        };
    concerns.then(|| Key::new(&Node::NAMES, node)).into_iter().collect()
}

fn of_node(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let there = view.get_as::<Node>(&object.key());
    let concerns = there.is_none_or(|node| is_out_of_service(&node));
    concerns.then(|| Key::of(object)).into_iter().collect()
}

/// On its way out, but on no node that would end it.
fn is_stranded(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && node_name(pod).is_empty()
}

/// Somebody has said that it will not come back by itself.
fn is_out_of_service(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    !ready && taints.any(|t| t.key == OUT_OF_SERVICE)
}

fn of_one_node(key: &ObjectKey, view: &dyn View, now: Timestamp, plan: &mut Plan) {
    let on_it = |pod: &Arc<Pod>| node_name(pod) == key.name;
    let pods = || view.list_as::<Pod>(None).into_iter().filter(on_it);
    match view.get_as::<Node>(key) {
        Some(node) if is_out_of_service(&node) => {
            let mut going: Vec<_> = pods().filter(|pod| pod.metadata.deletion_timestamp.is_some()).collect();
            going.sort_by_cached_key(|pod| rank(pod));
            force_all(&going, None, plan);
        }
        Some(_) => {}
        None => {
            let orphans: Vec<_> = pods().collect();
            if orphans.is_empty() {
                return;
            }
            let quiet = view.since().map_or(QUARANTINE_SECONDS, |since| now.as_second() - since.as_second());
            if quiet < QUARANTINE_SECONDS {
                return plan.requeue_in(QUARANTINE_SECONDS - quiet);
            }
            let known = view.revision(&Node::NAMES);
            if orphans.iter().any(|pod| (&**pod as &dyn Object).revision() > known) {
                // The node may just not have been heard of.
                plan.requeue_in(1);
            }
            let sure: Vec<_> = orphans.into_iter().filter(|pod| (&**pod as &dyn Object).revision() <= known).collect();
            force_all(&sure, Some(&gone(now)), plan);
        }
    }
}

fn gone(now: Timestamp) -> PodCondition {
    disruption("DeletionByPodGC", "PodGC: node no longer exists", now)
}

/// Of all that have ended those beyond `max` go: first what was evicted, then the oldest.
fn ended(view: &dyn View, max: usize, plan: &mut Plan) {
    plan.requeue_in(PERIOD_SECONDS);
    let mut ended = view.list_as::<Pod>(None);
    ended.retain(|pod| is_finished(pod));
    let Some(surplus) = ended.len().checked_sub(max).filter(|n| *n > 0) else { return };
    ended.sort_by_cached_key(|pod| rank(pod));
    ended.truncate(surplus);
    force_all(&ended, None, plan);
}

/// Lower goes first.
fn rank(pod: &Pod) -> (bool, Option<Timestamp>, Option<String>) {
    let evicted = phase(pod) == "Failed" && pod.status.as_ref().is_some_and(|s| s.reason.as_deref() == Some("Evicted"));
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (!evicted, created, pod.metadata.name.clone())
}

fn force_all(pods: &[Arc<Pod>], condition: Option<&PodCondition>, plan: &mut Plan) {
    for pod in pods {
        if plan.actions.len() >= PODS_MAX {
            return plan.requeue_in(0);
        }
        force(pod, condition, plan);
    }
}

/// Says that a pod has failed, since nobody else will, and deletes it at once.
fn force(pod: &Pod, condition: Option<&PodCondition>, plan: &mut Plan) {
    let forced = pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0);
    if !is_finished(pod) {
        let mut status = pod.status.clone().unwrap_or_default();
        status.phase = Some("Failed".to_owned());
        if let Some(condition) = condition {
            let conditions = status.conditions.get_or_insert_default();
            conditions.retain(|c| c.type_ != condition.type_);
            conditions.push(condition.clone());
        }
        plan.push(Action::UpdateStatus(Box::new(Pod { status: Some(status), ..pod.clone() })));
    } else if forced {
        // It waits for somebody's finalizer.
        return;
    }
    plan.push(Action::Delete {
        kind: kind_of::<Pod>(),
        key: ObjectKey::of(&pod.metadata),
        preconditions: Preconditions { uid: pod.metadata.uid.clone(), resource_version: None },
        propagation: None,
        grace_seconds: Some(0),
    });
}

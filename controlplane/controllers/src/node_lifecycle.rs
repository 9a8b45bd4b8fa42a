//! Node lifecycle: a node whose agent is silent becomes unreachable, and its pods go elsewhere in the end.
//!
//! Silence is a Lease in `kube-node-lease` that is older than the grace. One reconcile does one of: note silence
//! in the status, set the taints that the status asks for, deal with the pods. Lost nodes of one zone are given up one after
//! the other ([`pace`]).
//!
//! # Source
//! Kubernetes `pkg/controller/nodelifecycle` and `pkg/controller/tainteviction`.

mod pace;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, Pod, PodCondition, Taint, Toleration},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::{Kind, Object, ObjectKey, kind_of};
use serde_json::json;

use self::pace::Verdict;
use crate::{
    Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt,
    owners::delete,
    pods::{disruption, is_finished, node_name, ready_condition, with_disruption},
};

/// The grace of nodes unless another is said.
pub const GRACE_SECONDS: i64 = 40;
/// How long pods that do not say otherwise stay on a node that is not ready or unreachable.
pub const TOLERATION_SECONDS: i64 = 300;
/// How often it is looked whether what holds a lost node still does.
const LOOK_SECONDS: i64 = 5;
/// How often at least it is looked whether a lost node's turn has come: those before it may be well again.
const TURN_SECONDS_MAX: i64 = 30;
/// At most so many pods are dealt with by one plan.
const PODS_MAX: usize = 500;

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The conditions that only the node's agent can know.
const AGENT_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The controller of nodes.
pub struct NodeLifecycle {
    /// A Lease renewed less than so many seconds ago counts as a sign of life.
    pub grace_seconds: i64,
}

impl Default for NodeLifecycle {
    fn default() -> Self {
        Self { grace_seconds: GRACE_SECONDS }
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn component(&self) -> &'static str {
        "node-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<Node>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<Lease>(), keys: of_lease },
            Trigger { kind: kind_of::<Pod>(), keys: of_pod },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = view.get_as::<Node>(&key.object) else { return plan };
        let silent_in = self.grace_seconds - (now.as_second() - last_sign_of_life(&node, view, now).as_second());
        if silent_in < 0 && ready_status(&node) != Some("Unknown") {
            note_silence(&node, now, &mut plan);
            return plan;
        }
        if silent_in >= 0 {
            plan.requeue_in(silent_in + 1);
        }
        let verdict = if is_ready(&node) { Verdict::Go } else { pace::verdict(&node, view, now) };
        match verdict {
            Verdict::Go => {}
            Verdict::Wait(seconds) => plan.requeue_in(seconds.min(TURN_SECONDS_MAX)),
            Verdict::Hold | Verdict::TakeBack => plan.requeue_in(LOOK_SECONDS),
        }
        match taints(&node, verdict, now) {
            Some(taints) => plan.push(set_taints(&node, &taints)),
            None => attend_pods(&node, view, now, &mut plan),
        }
        plan
    }
}

fn of_lease(object: &dyn Object, _view: &dyn View) -> Vec<Key> {
    let ObjectKey { namespace, name } = object.key();
    if namespace == LEASES { vec![Key::new(&Node::NAMES, ObjectKey::cluster(name))] } else { Vec::new() }
}

/// Pods matter only on nodes in trouble.
fn of_pod(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let Some(name) = object.downcast_ref::<Pod>().map(node_name).filter(|n| !n.is_empty()) else { return Vec::new() };
    let key = ObjectKey::cluster(name);
    let troubled = |node: &Arc<Node>| !is_ready(node) || evicting(node).next().is_some();
    view.get_as::<Node>(&key).filter(troubled).map(|_| Key::new(&Node::NAMES, key)).into_iter().collect()
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")
}

fn ready_status(node: &Node) -> Option<&str> {
    ready(node).map(|c| c.status.as_str())
}

fn is_ready(node: &Node) -> bool {
    ready_status(node) == Some("True")
}

/// The taint by which a lost node has been given up.
fn given_up(node: &Node) -> Option<&Taint> {
    evicting(node).find(|taint| taint.key == NOT_READY || taint.key == UNREACHABLE)
}

/// The newest of: when the Lease was seen to be renewed, the node's creation, the time since when somebody listens (after a
/// restart of the whole cluster the Leases are old, and the agents have only begun to renew them). What the Lease says of the
/// time is of the node's clock, which need not agree with this one.
fn last_sign_of_life(node: &Node, view: &dyn View, now: Timestamp) -> Timestamp {
    let key = ObjectKey::new(LEASES, node.metadata.name.clone().unwrap_or_default());
    let heard = view.unchanged_for(&Lease::NAMES, &key).and_then(|age| SignedDuration::try_from(age).ok());
    let renewed = match heard {
        Some(age) => now.checked_sub(age).ok(),
        None => view.get_as::<Lease>(&key).and_then(|l| l.spec.as_ref()?.renew_time.as_ref().map(|t| t.0)),
    };
    let created = node.metadata.creation_timestamp.as_ref().map(|t| t.0);
    renewed.max(created).max(view.since()).unwrap_or(now)
}

fn note_silence(node: &Node, now: Timestamp, plan: &mut Plan) {
    let mut status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for kind in AGENT_CONDITIONS {
        let known = conditions.iter_mut().find(|c| c.type_ == kind);
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let condition = NodeCondition {
            type_: kind.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: known.as_ref().and_then(|c| c.last_heartbeat_time.clone()),
            last_transition_time: Some(Time(now)),
        };
        match known {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    plan.push(Action::UpdateStatus(Box::new(Node { status: Some(status), ..node.clone() })));
    let message = format!("Node {} status is now: NodeNotReady", node.metadata.name.as_deref().unwrap_or_default());
    plan.push(Action::Event(EventNote::normal(node, "NodeNotReady", message)));
}

/// The taints that the node is to have; `None` when it has them. Those of others stay.
fn taints(node: &Node, verdict: Verdict, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.as_ref();
    let known = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = match ready_status(node) {
        Some("True") => Vec::new(),
        Some("Unknown") => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        _ => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
    };
    let stays = match verdict {
        Verdict::Go => true,
        Verdict::Wait(_) | Verdict::Hold => given_up(node).is_some(),
        Verdict::TakeBack => false,
    };
    wanted.retain(|(_, effect)| stays || *effect != "NoExecute");
    if spec.and_then(|s| s.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |t: &Taint| [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&t.key.as_str());
    let is = |t: &Taint, (key, effect): (&str, &str)| t.key == key && t.effect == effect;
    let mut taints: Vec<Taint> =
        known.iter().filter(|t| !ours(t) || wanted.iter().any(|w| is(t, *w))).cloned().collect();
    for (key, effect) in wanted {
        if !known.iter().any(|t| is(t, (key, effect))) {
            let time_added = Some(Time(now));
            taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
        }
    }
    // Since when they drive pods away: those who add them need not say.
    for taint in taints.iter_mut().filter(|t| t.effect == "NoExecute") {
        taint.time_added.get_or_insert(Time(now));
    }
    (taints != known).then_some(taints)
}

fn set_taints(node: &Node, taints: &[Taint]) -> Action {
    let patch = json!({
        "metadata": {"resourceVersion": node.metadata.resource_version},
        "spec": {"taints": taints},
    });
    Action::MergePatch { kind: kind_of::<Node>(), key: ObjectKey::of(&node.metadata), patch, subresource: None }
}

fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute")
}

/// Pods on a node that is not ready are not ready either, and leave when their toleration ends.
fn attend_pods(node: &Node, view: &dyn View, now: Timestamp, plan: &mut Plan) {
    let ready = is_ready(node);
    if ready && evicting(node).next().is_none() {
        return;
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut pods = view.list_as::<Pod>(None);
    pods.retain(|pod| node_name(pod) == name && !is_finished(pod));
    for pod in pods {
        if plan.actions.len() >= PODS_MAX {
            return plan.requeue_in(0);
        }
        match leaves_in(&pod, node, now) {
            _ if pod.metadata.deletion_timestamp.is_some() => {}
            Some(seconds) if seconds <= 0 => {
                evict(&pod, now, plan);
                continue;
            }
            Some(seconds) => plan.requeue_in(seconds),
            None => {}
        }
        if !ready && ready_condition(&pod).is_some_and(|c| c.status == "True") {
            plan.push(mark_not_ready(&pod, now));
            plan.push(Action::Event(EventNote::warning(&*pod, "NodeNotReady", "Node is not ready")));
        }
    }
}

/// Says on the pod why it goes, then deletes it.
fn evict(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    let message = format!("Marking for deletion Pod {}", ObjectKey::of(&pod.metadata));
    plan.push(Action::Event(EventNote::normal(pod, "TaintManagerEviction", message)));
    let condition = disruption("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now);
    if let Some(status) = with_disruption(pod, condition) {
        plan.push(Action::UpdateStatus(Box::new(Pod { status: Some(status), ..pod.clone() })));
    }
    plan.push(delete(pod));
}

fn mark_not_ready(pod: &Pod, now: Timestamp) -> Action {
    let mut status = pod.status.clone().unwrap_or_default();
    let ready = |c: &&mut PodCondition| c.type_ == "Ready";
    for condition in status.conditions.iter_mut().flatten().filter(ready) {
        condition.status = "False".to_owned();
        condition.last_transition_time = Some(Time(now));
    }
    Action::UpdateStatus(Box::new(Pod { status: Some(status), ..pod.clone() }))
}

/// Seconds until a pod has to leave its node: the earliest over its `NoExecute` taints. `None`: it may stay.
fn leaves_in(pod: &Pod, node: &Node, now: Timestamp) -> Option<i64> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let left = |taint: &Taint| {
        let added = taint.time_added.as_ref().map_or(now, |t| t.0);
        Some(tolerated_seconds(taint, tolerations)? - (now.as_second() - added.as_second()))
    };
    evicting(node).filter_map(left).min()
}

/// How long a taint is tolerated. `None`: for ever.
fn tolerated_seconds(taint: &Taint, tolerations: &[Toleration]) -> Option<i64> {
    let mut matching = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
    if matching.peek().is_none() {
        let ours = taint.key == NOT_READY || taint.key == UNREACHABLE;
        return Some(if ours { TOLERATION_SECONDS } else { 0 });
    }
    matching.filter_map(|t| t.toleration_seconds).min().map(|seconds| seconds.max(0))
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let covers = |wanted: Option<&str>, actual: &str| wanted.is_none_or(|w| w.is_empty() || w == actual);
    let value = toleration.operator.as_deref() == Some("Exists")
        || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    covers(toleration.effect.as_deref(), &taint.effect) && covers(toleration.key.as_deref(), &taint.key) && value
}

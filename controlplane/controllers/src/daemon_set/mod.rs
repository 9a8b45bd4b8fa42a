//! DaemonSet: one pod on every node that it may run on.
//!
//! Each pod is made for one node: its required node affinity names the node (`matchFields`), and the scheduler binds it.
//! A plan either makes and removes what nodes need or takes a step of a roll-out, never both: what the first wrote is seen
//! before the second is decided, so that no more than `maxUnavailable` pods are taken away.
//!
//! A failed pod is replaced after a pause that doubles with each failure on its node. What has failed is remembered on the
//! pod that replaces it ([`manage`]), not by the controller: a new leader knows it too.
//!
//! # Source
//! Kubernetes `pkg/controller/daemon` (`daemon_controller.go`, `update.go`, `util/daemonset_util.go`).

mod history;
mod manage;
mod nodes;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec},
    core::v1::{Node, Pod},
};
use podium_api::{ApiError, Kind, Object, Reason, kind_of, selector::Selector};

use self::{history::History, nodes::Placement};
use crate::{
    Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt,
    owners::{claim, controller_key, controller_of, delete, matching},
    pods::{available_in, is_finished},
};

/// At most so many pods are made, and so many deleted, by one plan.
pub const BURST_MAX: usize = 250;
/// At most so many pods are told of by events of one plan, as Kubernetes' spam filter allows.
const EVENTS_MAX: usize = 25;

/// The controller of DaemonSets.
pub struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn component(&self) -> &'static str {
        "daemonset-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<DaemonSet>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<Pod>(), keys: of_owned },
            Trigger { kind: kind_of::<ControllerRevision>(), keys: of_owned },
            Trigger { kind: kind_of::<Node>(), keys: of_node },
        ]
    }

    /// Of nodes only what decides where pods may run. A revision that is new is its own, or found when the set is looked at
    /// next, as in Kubernetes.
    fn concerns(&self, old: Option<&dyn Object>, new: Option<&dyn Object>) -> bool {
        if let (None, Some(revision)) = (old, new)
            && revision.names() == ControllerRevision::NAMES
        {
            return controller_of(revision.meta()).is_none();
        }
        let (Some(old), Some(new)) = (node(old), node(new)) else { return true };
        let (was, is) = (&old.metadata, &new.metadata);
        was.uid != is.uid || was.labels != is.labels || taints(old) != taints(new)
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let Some(set) = view.get_as::<DaemonSet>(&key.object) else { return Plan::default() };
        reconcile(&set, view, now)
    }

    fn refused(&self, key: &Key, error: &ApiError, view: &dyn View, now: Timestamp) -> Plan {
        let Some(set) = view.get_as::<DaemonSet>(&key.object) else { return Plan::default() };
        let mut plan = Plan::default();
        let in_terminating_namespace = error.message.contains("because it is being terminated");
        if error.reason == Reason::AlreadyExists || in_terminating_namespace {
            return plan;
        }
        let mut attempt = reconcile(&set, view, now).actions;
        let makes = |a: &Action| matches!(a, Action::Create(_) | Action::CreateAndTell(..));
        if attempt.iter().any(makes) {
            let message = format!("Error creating: {error}");
            plan.push(Action::Event(EventNote::warning(&*set, "FailedCreate", message)));
        } else if attempt.iter().any(|a| matches!(a, Action::Delete { .. })) {
            let message = format!("Error deleting: {error}");
            plan.push(Action::Event(EventNote::warning(&*set, "FailedDelete", message)));
        }
        // What is seen is told all the same.
        let status = attempt.iter().rposition(|action| matches!(action, Action::UpdateStatus(_)));
        plan.actions.extend(status.map(|at| attempt.swap_remove(at)));
        plan
    }
}

fn node(object: Option<&dyn Object>) -> Option<&Node> {
    object?.downcast_ref()
}

fn taints(node: &Node) -> Vec<(&str, &str, &str)> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.map(|t| (t.key.as_str(), t.value.as_deref().unwrap_or_default(), t.effect.as_str())).collect()
}

fn reconcile(set: &DaemonSet, view: &dyn View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let Some(selector) = selector(set) else { return plan };
    if selector.is_everything() {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        plan.push(Action::Event(EventNote::warning(set, "SelectingAll", message)));
        return plan;
    }
    if set.metadata.deletion_timestamp.is_some() {
        // Its history may be gone already: nothing can be told from it.
        return plan;
    }
    let revisions = claim::<_, ControllerRevision>(set, &selector, view, &mut plan.actions);
    let pods = claim::<_, Pod>(set, &selector, view, &mut plan.actions);
    let Some(history) = History::of(set, spec, revisions, &pods, view, &mut plan.actions) else { return plan };
    let mut work = Work::new(set, spec, &pods, &history.hash, view, now);
    work.manage();
    if work.todo.is_empty() && work.rolls() {
        work.roll();
    }
    work.finish(&history, &pods, plan)
}

fn selector(set: &DaemonSet) -> Option<Selector> {
    Selector::from_label_selector(Some(&set.spec.as_ref()?.selector)).ok()
}

fn of_owned(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    match controller_of(meta) {
        Some(_) => controller_key(meta, &DaemonSet::NAMES).into_iter().collect(),
        None => matching(meta, view, selector),
    }
}

fn of_node(_node: &dyn Object, view: &dyn View) -> Vec<Key> {
    view.list_as::<DaemonSet>(None).iter().map(|set| Key::of(&**set)).collect()
}

/// One reconcile of one DaemonSet.
struct Work<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    /// The label of pods of the template as it is now.
    hash: &'a str,
    now: Timestamp,
    /// Every node, by name, and where a pod may run.
    nodes: BTreeMap<String, Placement>,
    /// The pods of each node, those that have ended and are on their way out left out; oldest first, bound ones before
    /// others. Nodes without pods have no entry.
    pods: BTreeMap<String, Vec<Arc<Pod>>>,
    todo: Todo,
}

/// What a plan does.
#[derive(Default)]
struct Todo {
    /// Nodes to make pods for, with the number of failures that led to it.
    creates: Vec<(String, u32)>,
    deletes: Vec<Arc<Pod>>,
    events: Vec<EventNote>,
    again_in: Option<i64>,
}

impl Todo {
    fn is_empty(&self) -> bool {
        self.creates.is_empty() && self.deletes.is_empty()
    }

    /// Looks again after so many seconds at the latest.
    fn again_in(&mut self, seconds: i64) {
        self.again_in = Some(self.again_in.map_or(seconds, |known| known.min(seconds)));
    }
}

impl<'a> Work<'a> {
    fn new(
        set: &'a DaemonSet,
        spec: &'a DaemonSetSpec,
        pods: &[Arc<Pod>],
        hash: &'a str,
        view: &dyn View,
        now: Timestamp,
    ) -> Self {
        let placement = nodes::Rules::of(spec);
        let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
        let nodes = view.list_as::<Node>(None).iter().map(|node| (name(node), placement.on(node))).collect();
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !(is_finished(pod) && pod.metadata.deletion_timestamp.is_some())) {
            if let Some(node) = nodes::target(pod) {
                by_node.entry(node.to_owned()).or_default().push(Arc::clone(pod));
            }
        }
        by_node.values_mut().for_each(|pods| pods.sort_by_cached_key(|pod| nodes::rank(pod)));
        Self { set, spec, hash, now, nodes, pods: by_node, todo: Todo::default() }
    }

    fn pods_on(&self, node: &str) -> &[Arc<Pod>] {
        self.pods.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        available_in(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now) == Some(0)
    }

    /// Puts the plan together: what was noted before, pods, what is told of them, history, status.
    fn finish(self, history: &History, pods: &[Arc<Pod>], mut plan: Plan) -> Plan {
        let created = EventNote::normal(self.set, "SuccessfulCreate", "Created pod: ");
        for (i, (node, failures)) in self.todo.creates.iter().take(BURST_MAX).enumerate() {
            let pod = Box::new(nodes::new_pod(self.set, self.spec, self.hash, node, *failures));
            plan.push(if i < EVENTS_MAX { Action::CreateAndTell(pod, created.clone()) } else { Action::Create(pod) });
        }
        let doomed = || self.todo.deletes.iter().take(BURST_MAX);
        plan.actions.extend(doomed().map(|pod| delete(&**pod)));
        let told = doomed().take(EVENTS_MAX).map(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            Action::Event(EventNote::normal(self.set, "SuccessfulDelete", format!("Deleted pod: {name}")))
        });
        plan.actions.extend(told);
        plan.actions.extend(self.todo.events.iter().take(EVENTS_MAX).cloned().map(Action::Event));
        if let Some(seconds) = self.todo.again_in {
            plan.requeue_in(seconds);
        }
        history.cleanup(self.spec, pods, &mut plan.actions);
        self.report(&mut plan);
        plan
    }
}

//! StatefulSet: pods with ordinals, which keep their names and their claims.
//!
//! At no time are there two pods of one ordinal: their names are fixed, and a pod is made only when none of its name is
//! seen. With `OrderedReady` a plan does one step, and the next only when all before it are available; with `Parallel` it
//! does all at once. A name that has just become free rests for a moment ([`crate::NAME_REST`]). Updates delete pods, highest
//! ordinal first, as long as no more than `maxUnavailable` are missing; the next plan makes them anew.
//!
//! One deviation: an old pod that is not available is replaced even when `maxUnavailable` are missing already, since that
//! takes nothing away (with `OrderedReady` such a pod stops everything, as in Kubernetes: a roll-back needs its deletion).
//!
//! # Source
//! Kubernetes `pkg/controller/statefulset` (`stateful_set.go`, `stateful_set_control.go`, `stateful_pod_control.go`).

mod history;
mod identity;
mod replicas;
mod retention;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec},
    core::v1::{PersistentVolumeClaim, Pod},
};
use podium_api::{ApiError, Kind, Object, Reason, kind_of, selector::Selector};

use self::history::Versions;
use crate::{
    Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt,
    owners::{claim, claim_those, controller_key, controller_of, matching},
};

/// The controller of StatefulSets.
pub struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn component(&self) -> &'static str {
        "statefulset-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<StatefulSet>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<Pod>(), keys: of_owned },
            Trigger { kind: kind_of::<ControllerRevision>(), keys: of_owned },
            Trigger { kind: kind_of::<PersistentVolumeClaim>(), keys: of_claim },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let Some(set) = view.get_as::<StatefulSet>(&key.object) else { return Plan::default() };
        reconcile(&set, view, now)
    }

    fn refused(&self, key: &Key, error: &ApiError, view: &dyn View, now: Timestamp) -> Plan {
        let Some(set) = view.get_as::<StatefulSet>(&key.object) else { return Plan::default() };
        let mut plan = Plan::default();
        let in_terminating_namespace = error.message.contains("because it is being terminated");
        if error.reason == Reason::AlreadyExists || in_terminating_namespace {
            return plan;
        }
        let mut attempt = reconcile(&set, view, now).actions;
        let told = attempt.iter().map(|action| failure(&set, action, error)).find(|events| !events.is_empty());
        plan.actions.extend(told.into_iter().flatten().map(Action::Event));
        // What is seen is told all the same.
        let status = attempt.iter().rposition(|action| matches!(action, Action::UpdateStatus(_)));
        plan.actions.extend(status.map(|at| attempt.swap_remove(at)));
        plan
    }
}

fn reconcile(set: &StatefulSet, view: &dyn View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let Some(selector) = selector(set).filter(|s| !s.is_everything()) else { return plan };
    let revisions = claim::<_, ControllerRevision>(set, &selector, view, &mut plan.actions);
    let belongs = |pod: &Pod| {
        selector.matches_option(pod.metadata.labels.as_ref()) && identity::ordinal(set, &pod.metadata).is_some()
    };
    let pods = claim_those::<_, Pod>(set, belongs, view, &mut plan.actions);
    let Some(versions) = Versions::of(set, spec, revisions, view, &mut plan.actions) else { return plan };
    let mut work = Work::new(set, spec, versions, view, now);
    work.place(&pods);
    if set.metadata.deletion_timestamp.is_none() {
        work.keep();
    }
    work.finish(&pods, plan)
}

fn selector(set: &StatefulSet) -> Option<Selector> {
    Selector::from_label_selector(Some(&set.spec.as_ref()?.selector)).ok()
}

fn of_owned(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    match controller_of(meta) {
        Some(_) => controller_key(meta, &StatefulSet::NAMES).into_iter().collect(),
        None => matching(meta, view, selector),
    }
}

/// A claim belongs to the set that makes claims of its name, whoever owns it.
fn of_claim(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    let sets = view.list_as::<StatefulSet>(meta.namespace.as_deref());
    sets.iter().filter(|set| identity::makes_claim(set, name)).map(|set| Key::of(&**set)).collect()
}

/// What to say when an action was refused, if this is the one.
fn failure(set: &StatefulSet, action: &Action, error: &ApiError) -> Vec<EventNote> {
    let is_meant = |name: &str| {
        let about = error.details.as_ref().and_then(|d| d.name.as_deref());
        about.is_none_or(|about| about == name)
    };
    let (verb, names, name) = match action {
        Action::Create(object) | Action::CreateAndTell(object, _) => (Verb::Create, object.names(), object.key().name),
        Action::Update(object) => (Verb::Update, object.names(), object.key().name),
        Action::Delete { kind, key, .. } => (Verb::Delete, kind.names(), key.name.clone()),
        _ => return Vec::new(),
    };
    if names == Pod::NAMES && is_meant(&name) {
        return vec![tell_failure(set, verb, &name, &error.to_string())];
    }
    if names != PersistentVolumeClaim::NAMES || !is_meant(&name) {
        return Vec::new();
    }
    let set_name = identity::set_name(set);
    let pod = format!("{set_name}-{}", name.rsplit('-').next().unwrap_or_default());
    let message = format!("create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {error}");
    let why = format!("failed to create PVC {name}: {error}");
    vec![EventNote::warning(set, "FailedCreate", message), tell_failure(set, verb, &pod, &why)]
}

/// What is done to a pod.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Create,
    Update,
    Delete,
}

impl Verb {
    /// In reasons, and in messages.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Create => ("Create", "create"),
            Self::Update => ("Update", "update"),
            Self::Delete => ("Delete", "delete"),
        }
    }
}

fn tell(set: &StatefulSet, verb: Verb, pod: &str) -> EventNote {
    let (reason, verb) = verb.words();
    let message = format!("{verb} Pod {pod} in StatefulSet {} successful", identity::set_name(set));
    EventNote::normal(set, &format!("Successful{reason}"), message)
}

fn tell_failure(set: &StatefulSet, verb: Verb, pod: &str, why: &str) -> EventNote {
    let (reason, verb) = verb.words();
    let message = format!("{verb} Pod {pod} in StatefulSet {} failed error: {why}", identity::set_name(set));
    EventNote::warning(set, &format!("Failed{reason}"), message)
}

/// One reconcile of one StatefulSet.
struct Work<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    versions: Versions,
    view: &'a dyn View,
    now: Timestamp,
    /// The first ordinal.
    start: i32,
    /// By ordinal, from `start`.
    replicas: Vec<Option<Arc<Pod>>>,
    /// Pods of ordinals that are not wanted, highest first.
    condemned: Vec<Arc<Pod>>,
    todo: Todo,
}

/// What a plan does to pods and claims, in this order.
#[derive(Default)]
struct Todo {
    claims: Vec<Action>,
    pods: Vec<Action>,
    /// Owners of claims, labels of pods.
    mends: Vec<Action>,
    deletes: Vec<Action>,
    events: Vec<EventNote>,
    /// How many of `deletes` are for an update.
    updated: i32,
    /// When the name of a pod that is missing may be given again.
    again_at: Option<Timestamp>,
}

impl<'a> Work<'a> {
    fn new(
        set: &'a StatefulSet,
        spec: &'a StatefulSetSpec,
        versions: Versions,
        view: &'a dyn View,
        now: Timestamp,
    ) -> Self {
        let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let replicas = vec![None; wanted];
        Self { set, spec, versions, view, now, start, replicas, condemned: Vec::new(), todo: Todo::default() }
    }

    /// Puts each pod to its ordinal.
    fn place(&mut self, pods: &[Arc<Pod>]) {
        for pod in pods {
            let Some(ordinal) = identity::ordinal(self.set, &pod.metadata) else { continue };
            let at = ordinal.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
            match at.and_then(|at| self.replicas.get_mut(at)) {
                Some(place) => *place = Some(Arc::clone(pod)),
                None => self.condemned.push(Arc::clone(pod)),
            }
        }
        self.condemned.sort_by_key(|pod| std::cmp::Reverse(identity::ordinal(self.set, &pod.metadata)));
    }

    fn ordinal_at(&self, at: usize) -> i32 {
        self.start.saturating_add(i32::try_from(at).unwrap_or(i32::MAX))
    }

    /// One step at a time.
    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// Puts the plan together: what was noted before, pods and claims, what is told of them, status, history.
    fn finish(mut self, pods: &[Arc<Pod>], mut plan: Plan) -> Plan {
        let todo = std::mem::take(&mut self.todo);
        for actions in [todo.claims, todo.mends, todo.pods, todo.deletes] {
            plan.actions.extend(actions);
        }
        plan.actions.extend(todo.events.into_iter().take(replicas::EVENTS_MAX).map(Action::Event));
        if let Some(at) = todo.again_at {
            plan.requeue_at(at, self.now);
        }
        self.report(pods, todo.updated, &mut plan);
        if self.set.metadata.deletion_timestamp.is_none() {
            self.versions.cleanup(self.spec, pods, &mut plan.actions);
        }
        plan
    }
}

//! Deployment: one ReplicaSet for each version of the pod template, and the way from one version to the next.
//!
//! A plan works on copies of the ReplicaSets ([`Set`]); scaling one notes the patch. As in Kubernetes one reconcile makes
//! at most one kind of step (scale up the new, or scale down the old), then reports; the ReplicaSets' own changes bring
//! the key back for the next.
//!
//! # Source
//! Kubernetes `pkg/controller/deployment` (`deployment_controller.go`, `sync.go`, `rolling.go`, `recreate.go`,
//! `progress.go`, `util/deployment_util.go`).

mod cleanup;
mod hash;
mod history;
mod rollout;
mod scale;
mod set;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use podium_api::{Kind, Object, kind_of, selector::Selector};

use crate::{
    Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt,
    owners::{claim, controller_key, controller_of, matching},
};
pub(crate) use hash::{safe_encode, template_hash};
use set::Set;

/// The controller of Deployments.
pub struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn component(&self) -> &'static str {
        "deployment-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<Deployment>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<ReplicaSet>(), keys: of_replica_set },
            Trigger { kind: kind_of::<Pod>(), keys: of_pod },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let Some(deployment) = view.get_as::<Deployment>(&key.object) else { return Plan::default() };
        let Some(selector) = selector(&deployment) else { return Plan::default() };
        if selector.is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            let event = EventNote::warning(&*deployment, "SelectingAll", message);
            return Plan { actions: vec![Action::Event(event)], requeue_after: None };
        }
        let mut actions = Vec::new();
        let sets = claim::<_, ReplicaSet>(&*deployment, &selector, view, &mut actions);
        let mut work = Work::new(&deployment, sets, view, now);
        work.plan.actions = actions;
        work.run();
        work.plan
    }
}

fn of_replica_set(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    match controller_of(meta) {
        Some(_) => controller_key(meta, &Deployment::NAMES).into_iter().collect(),
        None => matching(meta, view, selector),
    }
}

/// Only `Recreate` waits for pods: its old ones have to be gone before it makes new ones.
fn of_pod(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let owner = controller_key(object.meta(), &ReplicaSet::NAMES);
    let set = owner.and_then(|key| view.get_as::<ReplicaSet>(&key.object));
    let key = set.and_then(|set| controller_key(&set.metadata, &Deployment::NAMES));
    let recreates = |key: &Key| view.get_as::<Deployment>(&key.object).is_some_and(|d| !set::rolls(&d));
    key.into_iter().filter(recreates).collect()
}

fn selector(deployment: &Deployment) -> Option<Selector> {
    Selector::from_label_selector(Some(&deployment.spec.as_ref()?.selector)).ok()
}

/// One reconcile of one Deployment.
struct Work<'a> {
    deployment: &'a Deployment,
    view: &'a dyn View,
    now: Timestamp,
    /// The ReplicaSet of the current template.
    new: Option<Set>,
    /// All others, oldest first.
    old: Vec<Set>,
    plan: Plan,
    /// `status.conditions` and `status.collisionCount` as they are to be.
    status: k8s_openapi::api::apps::v1::DeploymentStatus,
    /// Annotations to set on the Deployment itself.
    revision: Option<String>,
}

impl<'a> Work<'a> {
    fn new(deployment: &'a Deployment, sets: Vec<Arc<ReplicaSet>>, view: &'a dyn View, now: Timestamp) -> Self {
        let mut old: Vec<Set> = sets.into_iter().map(Set::of).collect();
        old.sort_by_cached_key(Set::age_key);
        let new = old.iter().position(|set| set.has_template_of(deployment)).map(|at| old.remove(at));
        let status = deployment.status.clone().unwrap_or_default();
        Self { deployment, view, now, new, old, plan: Plan::default(), status, revision: None }
    }

    fn run(&mut self) {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return self.report();
        }
        self.note_pause();
        if self.is_paused() {
            self.keep_history(false);
            self.scale();
            self.cleanup();
            return self.report();
        }
        self.keep_history(false);
        if self.is_scaling() {
            self.scale();
            return self.report();
        }
        if set::rolls(self.deployment) {
            self.roll();
        } else {
            self.recreate();
        }
        self.report_progress();
    }

    fn is_paused(&self) -> bool {
        self.deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false)
    }

    fn wanted(&self) -> i32 {
        set::wanted(self.deployment)
    }

    /// All ReplicaSets, oldest first, the new one last.
    fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    /// Sum of the replicas that the ReplicaSets ask for.
    fn total(&self) -> i32 {
        self.all().map(|s| s.replicas).sum()
    }

    /// Writes the annotations of the Deployment, last: the status before it is written at the revision that was seen.
    fn annotate(&mut self) {
        let Some(revision) = self.revision.take() else { return };
        let patch = serde_json::json!({"metadata": {"annotations": {history::REVISION: revision}}});
        let (kind, key) = (kind_of::<Deployment>(), podium_api::ObjectKey::of(&self.deployment.metadata));
        self.plan.push(Action::MergePatch { kind, key, patch, subresource: None });
    }
}

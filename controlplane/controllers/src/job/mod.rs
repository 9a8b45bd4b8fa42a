//! Job: pods that run to their end, as many as asked for, each counted exactly once.
//!
//! A pod carries a finalizer until it is counted. It is counted in steps, so that no crash, conflict or stale mirror makes
//! it count twice or never: its uid (or its index) goes into the Job's status, then its finalizer goes, then the number
//! goes up as the uid leaves the status. Each step is decided from what the one before has left, and written at the
//! revision that was seen.
//!
//! Pods have names that follow from the Job and from which names are taken: a creation whose answer got lost is not made
//! a second time, so that no more pods run than `parallelism` says.
//!
//! Keys are Jobs, and pods whose Job is gone and which nobody counts any more.
//!
//! # Source
//! Kubernetes `pkg/controller/job/job_controller.go`.

mod backoff;
mod claim;
mod conditions;
#[cfg(test)]
pub(crate) mod fixture;
mod indexes;
mod leftover;
mod manage;
mod policy;
mod sync;
mod template;
#[cfg(test)]
mod tests;
mod track;

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use podium_api::{ApiError, Kind as _, Object, Reason, Selector, kind_of};

pub(crate) use self::conditions::finished;
use self::{
    claim::{claim, is_tracked},
    sync::Sync,
};
use crate::{
    Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt,
    owners::{controller_key, controller_of, matching},
};

/// Keeps pods that were not counted yet.
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label: the index that a pod works on.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Whoever else is named in `managedBy` does it all.
const OWN_NAME: &str = "kubernetes.io/job-controller";
/// At most so many pods are created or deleted by one plan.
const BURST_MAX: usize = 500;
/// At most so many uids wait in the status to be counted.
const UNCOUNTED_MAX: usize = 500;
/// At most so many pods are told of by events of one plan.
const EVENTS_MAX: usize = 25;

/// The controller of Jobs.
pub struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn component(&self) -> &'static str {
        "job-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![Trigger { kind: kind_of::<Job>(), keys: of_job }, Trigger { kind: kind_of::<Pod>(), keys: of_pod }]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        if key.is(&Pod::NAMES) {
            return leftover::reconcile(key, view, now);
        }
        let mut plan = Plan::default();
        let Some(job) = view.get_as::<Job>(&key.object).filter(|job| is_ours(job)) else { return plan };
        if finished(&job).is_some() {
            return plan;
        }
        if let Some(mode) = job.spec.as_ref().and_then(|s| s.completion_mode.as_deref())
            && !["NonIndexed", "Indexed"].contains(&mode)
        {
            let message = "Skipped Job sync because completion mode is unknown";
            plan.push(Action::Event(EventNote::warning(&*job, "UnknownCompletionMode", message)));
            return plan;
        }
        look_after(&job, view, now, true, &mut plan);
        plan
    }

    fn refused(&self, key: &Key, error: &ApiError, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let in_terminating_namespace = error.message.contains("because it is being terminated");
        if error.reason == Reason::AlreadyExists || in_terminating_namespace || !key.is(&Job::NAMES) {
            return plan;
        }
        let Some(job) = view.get_as::<Job>(&key.object) else { return plan };
        plan.push(Action::Event(EventNote::warning(&*job, "FailedCreate", format!("Error creating: {error}"))));
        // What has ended meanwhile is counted all the same.
        look_after(&job, view, now, false, &mut plan);
        plan
    }
}

/// Plans for a Job that has not finished. Pods come and go only when asked for.
fn look_after(job: &Job, view: &dyn View, now: Timestamp, manage: bool, plan: &mut Plan) {
    let Some(spec) = &job.spec else { return };
    let selector = Selector::from_label_selector(spec.selector.as_ref()).ok();
    let Some(selector) = selector.filter(|s| !s.is_everything()) else { return };
    let claimed = claim(job, &selector, view, &mut plan.actions);
    Sync::new(job, spec, claimed, view, now).plan(manage, plan);
}

fn is_ours(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
    manager.is_none_or(|name| name == OWN_NAME)
}

fn selector_of(job: &Job) -> Option<Selector> {
    let selector = Selector::from_label_selector(job.spec.as_ref()?.selector.as_ref()).ok()?;
    Some(selector).filter(|s| !s.is_everything())
}

/// The Job; and when it is gone or has finished, its pods that nobody has let go.
fn of_job(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let there = view.get_as::<Job>(&object.key()).filter(|job| job.metadata.uid.as_deref() == Some(object.uid()));
    let mut keys = vec![Key::of(object)];
    if there.is_none_or(|job| finished(&job).is_some()) {
        let pods = view.owned_as::<Pod>(object.uid());
        keys.extend(pods.iter().filter(|pod| is_tracked(pod)).map(|pod| Key::of(&**pod)));
    }
    keys
}

/// Its Job, or those that may adopt it; itself when it may be left over.
fn of_pod(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    let mut keys: Vec<Key> = match controller_of(meta) {
        Some(_) => controller_key(meta, &Job::NAMES).into_iter().collect(),
        None => matching(meta, view, selector_of),
    };
    let tracked = meta.finalizers.iter().flatten().any(|f| f == FINALIZER);
    if tracked && leftover::may_be(meta, view) {
        keys.push(Key::of(object));
    }
    keys
}

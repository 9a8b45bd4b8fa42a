//! Finished Jobs go when the time that they were given is up.
//!
//! # Source
//! Kubernetes `pkg/controller/ttlafterfinished/ttlafterfinished_controller.go`.

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use podium_api::{ObjectKey, kind_of};

use crate::{Action, Controller, Key, Plan, Preconditions, Trigger, View, ViewExt, job::finished};

/// The controller.
pub struct TtlAfterFinished;

impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished"
    }

    fn component(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![Trigger { kind: kind_of::<Job>(), keys: |object, _| vec![Key::of(object)] }]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = view.get_as::<Job>(&key.object) else { return plan };
        match expires_at(&job) {
            Some(at) if at <= now => plan.push(delete(&job)),
            Some(at) => plan.requeue_at(at, now),
            None => {}
        }
        plan
    }
}

/// When a Job is to go. `None` while it runs, when it may stay, or when it goes already.
fn expires_at(job: &Job) -> Option<Timestamp> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let finished = finished(job)?.last_transition_time.as_ref()?.0;
    finished.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()
}

/// With its pods, which go first.
fn delete(job: &Job) -> Action {
    Action::Delete {
        kind: kind_of::<Job>(),
        key: ObjectKey::of(&job.metadata),
        preconditions: Preconditions { uid: job.metadata.uid.clone(), resource_version: None },
        propagation: Some("Foreground"),
        grace_seconds: None,
    }
}

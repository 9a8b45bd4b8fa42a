//! What a Deployment's status says: counts, and the conditions `Available`, `Progressing` and `ReplicaFailure`.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{Work, set::Set};
use crate::Action;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

impl Work<'_> {
    /// Writes counts and `Available`, and leaves the other conditions as they are.
    pub(super) fn report(&mut self) {
        self.count();
        self.write();
    }

    /// The same, and judges whether the rollout gets on.
    pub(super) fn report_progress(&mut self) {
        let before = self.deployment.status.clone().unwrap_or_default();
        self.count();
        self.judge_progress(&before);
        self.copy_failure();
        self.look_again_at_deadline();
        self.write();
    }

    /// Whether all wanted pods are of the current template, available, and no others are there.
    pub(super) fn is_complete(&self) -> bool {
        let (wanted, available) = (self.wanted(), self.all().map(Set::available).sum::<i32>());
        let updated = self.new.as_ref().map_or(0, Set::status_replicas);
        let present = self.all().map(Set::status_replicas).sum::<i32>();
        updated == wanted && present == wanted && available == wanted
    }

    /// A pause is neither progress nor the lack of it.
    pub(super) fn note_pause(&mut self) {
        if self.deadline_seconds().is_none() {
            return;
        }
        let reason = self.condition(PROGRESSING).and_then(|c| c.reason.as_deref());
        let was_paused = reason == Some("DeploymentPaused");
        if reason == Some(TIMED_OUT) || was_paused == self.is_paused() {
            return;
        }
        if was_paused {
            self.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
        } else {
            self.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused");
        }
    }

    pub(super) fn note_created(&mut self, name: &str) {
        if self.deadline_seconds().is_some() {
            let message = format!("Created new replica set {name:?}");
            self.set(PROGRESSING, "True", "NewReplicaSetCreated", &message);
        }
    }

    pub(super) fn note_found(&mut self, name: &str) {
        if self.deadline_seconds().is_some() && self.condition(PROGRESSING).is_none() {
            let message = format!("Found new replica set {name:?}");
            self.set(PROGRESSING, "True", "FoundNewReplicaSet", &message);
        }
    }

    /// `None` when the deadline is off: unset or the largest number.
    fn deadline_seconds(&self) -> Option<i64> {
        let seconds = self.deployment.spec.as_ref()?.progress_deadline_seconds?;
        (seconds != i32::MAX).then_some(i64::from(seconds))
    }

    fn count(&mut self) {
        let sum = |of: fn(&Set) -> i32| self.all().map(of).sum::<i32>();
        let (present, ready, available) = (sum(Set::status_replicas), sum(Set::ready), sum(Set::available));
        let unavailable = (self.total() - available).max(0);
        let updated = self.new.as_ref().map_or(0, Set::status_replicas);
        // Not known before all of them tell.
        let terminating = self.all().map(Set::terminating).sum::<Option<i32>>();
        let nonzero = |n: i32| Some(n).filter(|n| *n != 0);
        self.status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: nonzero(present),
            updated_replicas: nonzero(updated),
            ready_replicas: nonzero(ready),
            available_replicas: nonzero(available),
            unavailable_replicas: nonzero(unavailable),
            terminating_replicas: terminating,
            ..std::mem::take(&mut self.status)
        };
        if available >= self.min_available() {
            let message = "Deployment has minimum availability.";
            self.set(AVAILABLE, "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.";
            self.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
        }
    }

    fn judge_progress(&mut self, before: &DeploymentStatus) {
        if self.deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).is_none() {
            return self.unset(PROGRESSING);
        }
        let current = self.condition(PROGRESSING).cloned();
        let reason = current.as_ref().and_then(|c| c.reason.clone()).unwrap_or_default();
        let settled = self.status.replicas == self.status.updated_replicas && reason == NEW_AVAILABLE;
        if self.deadline_seconds().is_none() || settled {
            return;
        }
        let subject = match &self.new {
            Some(set) => format!("ReplicaSet {:?}", set.name()),
            None => format!("Deployment {:?}", self.deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        if self.is_complete() {
            self.set(PROGRESSING, "True", NEW_AVAILABLE, &format!("{subject} has successfully progressed."));
        } else if progressed(before, &self.status) {
            // Also when it says so already: the deadline counts from the last progress.
            self.unset(PROGRESSING);
            self.set(PROGRESSING, "True", "ReplicaSetUpdated", &format!("{subject} is progressing."));
            self.keep_transition(current.as_ref());
        } else if self.is_overdue(current.as_ref()) {
            self.set(PROGRESSING, "False", TIMED_OUT, &format!("{subject} has timed out progressing."));
        }
    }

    fn is_overdue(&self, progressing: Option<&DeploymentCondition>) -> bool {
        let Some(condition) = progressing else { return false };
        match condition.reason.as_deref() {
            Some(NEW_AVAILABLE) => false,
            Some(TIMED_OUT) => true,
            _ => self.seconds_left(condition).is_some_and(|left| left < 0),
        }
    }

    fn seconds_left(&self, progressing: &DeploymentCondition) -> Option<i64> {
        let since = progressing.last_update_time.as_ref().map_or(self.now, |t| t.0);
        Some(since.as_second() + self.deadline_seconds()? - self.now.as_second())
    }

    /// Nothing else would wake the key when a rollout is stuck.
    fn look_again_at_deadline(&mut self) {
        let Some(condition) = self.condition(PROGRESSING) else { return };
        if self.is_complete() || matches!(condition.reason.as_deref(), Some(TIMED_OUT | NEW_AVAILABLE)) {
            return;
        }
        if let Some(left) = self.seconds_left(condition) {
            self.plan.requeue_in(left.max(0) + 1);
        }
    }

    /// What keeps a ReplicaSet from creating pods is shown on the Deployment as well.
    fn copy_failure(&mut self) {
        let failures = |set: &Set| {
            let conditions = set.seen.status.as_ref().and_then(|s| s.conditions.as_ref());
            conditions.into_iter().flatten().find(|c| c.type_ == REPLICA_FAILURE).cloned()
        };
        match self.new.iter().chain(&self.old).find_map(failures) {
            Some(c) => {
                let (reason, message) = (c.reason.unwrap_or_default(), c.message.unwrap_or_default());
                self.set(REPLICA_FAILURE, &c.status, &reason, &message);
            }
            None => self.unset(REPLICA_FAILURE),
        }
    }

    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.status.conditions.iter().flatten().find(|c| c.type_ == kind)
    }

    fn unset(&mut self, kind: &str) {
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|c| c.type_ != kind);
        }
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let current = self.condition(kind);
        if current.is_some_and(|c| c.status == status && c.reason.as_deref() == Some(reason)) {
            return;
        }
        let unchanged = current.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: unchanged.or(Some(Time(self.now))),
        };
        self.unset(kind);
        self.status.conditions.get_or_insert_default().push(condition);
    }

    /// `Progressing` was true before: that has not changed now.
    fn keep_transition(&mut self, before: Option<&DeploymentCondition>) {
        let Some(before) = before.filter(|c| c.status == "True") else { return };
        let conditions = self.status.conditions.iter_mut().flatten();
        for condition in conditions.filter(|c| c.type_ == PROGRESSING) {
            condition.last_transition_time = before.last_transition_time.clone();
        }
    }

    fn write(&mut self) {
        self.status.conditions = self.status.conditions.take().filter(|c| !c.is_empty());
        if self.deployment.status.as_ref() != Some(&self.status) {
            let deployment = Deployment { status: Some(self.status.clone()), ..self.deployment.clone() };
            self.plan.push(Action::UpdateStatus(Box::new(deployment)));
        }
        self.annotate();
    }
}

/// Whether more new pods, fewer old ones, or more that are ready or available are there than before.
fn progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let n = |value: Option<i32>| value.unwrap_or(0);
    let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(after.updated_replicas) > n(before.updated_replicas)
        || old(after) < old(before)
        || n(after.ready_replicas) > n(before.ready_replicas)
        || n(after.available_replicas) > n(before.available_replicas)
}

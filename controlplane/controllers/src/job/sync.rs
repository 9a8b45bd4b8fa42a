//! [`Sync`]: one look at a Job: what has ended, whether it is over, what to do about its pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec, JobStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    backoff::finished_at,
    claim::{Claimed, is_tracked},
    conditions::{self, Outcome, condition},
    indexes::{Indexes, index_of},
    manage::{Managed, failures_of},
    policy::{judge, succeeds},
};
use crate::{
    Action, EventNote, Plan, View,
    pods::{is_active, is_finished, is_ready, phase},
};

/// What is known of a Job and its pods, and what follows from it.
pub(super) struct Sync<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: &'a JobSpec,
    pub(super) view: &'a dyn View,
    pub(super) now: Timestamp,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) adopted: BTreeSet<String>,
    /// As it was, and as it is to be.
    pub(super) old: JobStatus,
    pub(super) status: JobStatus,
    pub(super) active: Vec<Arc<Pod>>,
    /// Counted from here on; the numbers of the status follow when finalizers are gone.
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Of indexed Jobs: those that the status names, and those that have succeeded by now.
    pub(super) counted_indexes: Indexes,
    pub(super) succeeded_indexes: Indexes,
    pub(super) failed_indexes: Option<Indexes>,
    /// Failed pods that stay until another takes over their index and the count of its failures.
    pub(super) delayed: BTreeMap<i32, Arc<Pod>>,
    pub(super) outcome: Option<Outcome>,
}

impl<'a> Sync<'a> {
    pub(super) fn new(job: &'a Job, spec: &'a JobSpec, claimed: Claimed, view: &'a dyn View, now: Timestamp) -> Self {
        let old = job.status.clone().unwrap_or_default();
        let mut status = old.clone();
        status.uncounted_terminated_pods.get_or_insert_default();
        let active = claimed.pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let mut sync = Self {
            job,
            spec,
            view,
            now,
            pods: claimed.pods,
            adopted: claimed.adopted,
            old,
            status,
            active,
            succeeded: 0,
            failed: 0,
            counted_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            delayed: BTreeMap::new(),
            outcome: None,
        };
        sync.count();
        sync
    }

    /// Decides everything. Without `manage` no pod is created or found superfluous.
    pub(super) fn plan(mut self, manage: bool, plan: &mut Plan) {
        if self.status.start_time.is_none() && !self.is_suspended() {
            self.status.start_time = Some(Time(self.now));
        }
        self.outcome = Outcome::known(&self.old).or_else(|| self.early_failure()).or_else(|| self.limit_reached());
        self.watch_deadline(plan);
        if self.is_indexed() {
            self.judge_indexes();
        }
        let mut managed = Managed::default();
        let mut told = Vec::new();
        if self.outcome.is_some() {
            managed.ending.clone_from(&self.active);
        } else {
            if manage && self.job.metadata.deletion_timestamp.is_none() {
                managed = self.manage(plan);
            }
            self.see_whether_complete(&managed);
            if self.outcome.is_none() && manage && self.job.metadata.deletion_timestamp.is_none() {
                told.extend(self.say_whether_suspended());
            }
        }
        self.track(managed, told, plan);
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub(super) fn is_per_index(&self) -> bool {
        self.is_indexed() && self.spec.backoff_limit_per_index.is_some()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub(super) fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// Whether pods that are on their way out keep their place until they have ended.
    pub(super) fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    /// Whether a pod counts as failed: one on its way out does too, since it may never come to say so.
    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        match phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => !self.replaces_failed_only() && pod.metadata.deletion_timestamp.is_some(),
        }
    }

    pub(super) fn is_terminating(pod: &Pod) -> bool {
        !is_finished(pod) && pod.metadata.deletion_timestamp.is_some()
    }

    /// Pods that have not been counted, and of indexed Jobs have an index.
    pub(super) fn uncounted_pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let valid = |pod: &Pod| !self.is_indexed() || index_of(pod, self.completions()).is_some();
        self.pods.iter().filter(move |pod| is_tracked(pod) && valid(pod))
    }

    fn count(&mut self) {
        let waiting = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let (succeeded, failed) = (waiting.succeeded.unwrap_or_default(), waiting.failed.unwrap_or_default());
        let is_new =
            |pod: &Arc<Pod>, known: &[String]| pod.metadata.uid.as_ref().is_some_and(|uid| !known.contains(uid));
        let successes = self.uncounted_pods().filter(|p| phase(p) == "Succeeded" && is_new(p, &succeeded)).count();
        let counts = |pod: &Pod| judge(self.spec.pod_failure_policy.as_ref(), pod).counts;
        let failures = self.uncounted_pods().filter(|p| self.is_failed(p) && is_new(p, &failed) && counts(p)).count();
        self.succeeded = self.old.succeeded.unwrap_or(0) + number(successes + succeeded.len());
        self.failed = self.old.failed.unwrap_or(0) + number(failures + failed.len());
        if self.is_indexed() {
            self.count_indexes();
        }
    }

    fn count_indexes(&mut self) {
        let completions = self.completions();
        self.counted_indexes = Indexes::parse(self.old.completed_indexes.as_deref().unwrap_or_default(), completions);
        let index = |pod: &Arc<Pod>| index_of(pod, completions);
        let new = self.uncounted_pods().filter(|pod| phase(pod) == "Succeeded").filter_map(index).collect();
        self.succeeded_indexes = self.counted_indexes.with(&new);
        self.succeeded = self.succeeded_indexes.total();
        if let Some(limit) = self.spec.backoff_limit_per_index.filter(|_| self.is_per_index()) {
            let before = Indexes::parse(self.old.failed_indexes.as_deref().unwrap_or_default(), completions);
            let failed = self.uncounted_pods().filter(|pod| self.is_failed(pod));
            let new = failed.filter(|pod| self.fails_index(pod, limit)).filter_map(index).collect();
            self.failed_indexes = Some(before.with(&new));
            self.delayed = self.delayed_pods();
        }
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        let verdict = judge(self.spec.pod_failure_policy.as_ref(), pod);
        verdict.fails_index || (verdict.counts && failures_of(pod).0 >= limit)
    }

    /// Of each index that is to be tried again the pod that failed last.
    fn delayed_pods(&self) -> BTreeMap<i32, Arc<Pod>> {
        let index = |pod: &Arc<Pod>| index_of(pod, self.completions());
        let active: BTreeSet<i32> = self.active.iter().filter_map(index).collect();
        let failed = self.failed_indexes.as_ref();
        let over = |i: i32| self.succeeded_indexes.has(i) || failed.is_some_and(|f| f.has(i)) || active.contains(&i);
        let mut delayed: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        let rank = |pod: &Pod| {
            let (counted, ignored) = failures_of(pod);
            (counted.saturating_add(ignored), finished_at(pod))
        };
        for pod in self.uncounted_pods().filter(|pod| self.is_failed(pod)) {
            let Some(i) = index(pod).filter(|i| !over(*i)) else { continue };
            if delayed.get(&i).is_none_or(|last| rank(last) <= rank(pod)) {
                delayed.insert(i, Arc::clone(pod));
            }
        }
        delayed
    }

    /// A failed pod may end the Job by policy.
    fn early_failure(&self) -> Option<Outcome> {
        let policy = self.spec.pod_failure_policy.as_ref()?;
        let failed = self.pods.iter().filter(|pod| self.is_failed(pod));
        let message = failed.filter_map(|pod| judge(Some(policy), pod).fails_job).next()?;
        Some(Outcome::failure("PodFailurePolicy", message))
    }

    fn limit_reached(&self) -> Option<Outcome> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed > limit || self.restarts_pass(limit) {
            return Some(Outcome::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        let late = self.deadline().is_some_and(|deadline| deadline <= self.now);
        late.then(|| Outcome::failure("DeadlineExceeded", "Job was active longer than specified deadline"))
    }

    /// Whether containers that are restarted in place have been so too often.
    fn restarts_pass(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
        let statuses = running
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten());
        let restarts: i32 = statuses.map(|s| s.restart_count).sum();
        restarts >= limit.max(1)
    }

    fn deadline(&self) -> Option<Timestamp> {
        if self.is_suspended() {
            return None;
        }
        let (start, seconds) = (self.status.start_time.as_ref()?.0, self.spec.active_deadline_seconds?);
        Some(start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
    }

    fn watch_deadline(&self, plan: &mut Plan) {
        if let Some(deadline) = self.deadline().filter(|_| self.outcome.is_none()) {
            plan.requeue_at(deadline, self.now);
        }
    }

    fn judge_indexes(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        if let Some(failed) = self.failed_indexes.as_ref().map(Indexes::total) {
            if self.spec.max_failed_indexes.is_some_and(|max| failed > max) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                self.outcome = Some(Outcome::failure("MaxFailedIndexesExceeded", message));
            } else if failed > 0 && failed + self.succeeded_indexes.total() >= self.completions() {
                self.outcome = Some(Outcome::failure("FailedIndexes", "Job has failed indexes"));
            }
        }
        if self.outcome.is_none() {
            let met = succeeds(self.spec.success_policy.as_ref(), self.completions(), &self.succeeded_indexes);
            self.outcome = met.map(|message| Outcome::success("SuccessPolicy", message));
        }
    }

    fn see_whether_complete(&mut self, managed: &Managed) {
        let enough = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        if enough && self.active_after(managed) == 0 {
            let message = "Reached expected number of succeeded pods";
            self.outcome = Some(Outcome::success("CompletionsReached", message));
        }
    }

    /// How many pods are active when the plan is done.
    pub(super) fn active_after(&self, managed: &Managed) -> i32 {
        number(self.active.len() + managed.creates.len()) - number(managed.removed.len() + managed.ending.len())
    }

    /// How many of those that stay are ready.
    pub(super) fn ready_after(&self, managed: &Managed) -> i32 {
        let ready = |pods: &[Arc<Pod>]| number(pods.iter().filter(|pod| is_ready(pod)).count());
        ready(&self.active) - ready(&managed.removed) - ready(&managed.ending)
    }

    fn say_whether_suspended(&mut self) -> Option<Action> {
        let (status, event, reason, message) = match self.is_suspended() {
            true => ("True", "Suspended", "JobSuspended", "Job suspended"),
            false => ("False", "Resumed", "JobResumed", "Job resumed"),
        };
        let wanted = condition("Suspended", status, reason, message, self.now);
        if !conditions::set(&mut self.status, wanted) {
            return None;
        }
        if !self.is_suspended() {
            // The deadline does not count the time that a Job was suspended.
            self.status.start_time = Some(Time(self.now));
        }
        Some(Action::Event(EventNote::normal(self.job, event, message)))
    }
}

/// A count, as statuses have it.
pub(super) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

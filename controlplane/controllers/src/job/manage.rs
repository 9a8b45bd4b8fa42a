//! How many pods a Job needs now, which are too many, and which have to wait before they are tried again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use podium_api::{Kind as _, Object};

use super::{
    BURST_MAX,
    backoff::{self, finished_at},
    claim::is_tracked,
    indexes::{any_index_of, index_of},
    sync::{Sync, number},
    template,
};
use crate::{
    Plan,
    pods::{is_finished, node_name, phase, ready_since},
};

/// Annotation: how many pods of the index failed before and count.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation: how many failed before and do not count.
pub(super) const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What happens to pods.
#[derive(Default)]
pub(super) struct Managed {
    pub(super) creates: Vec<Pod>,
    /// Superfluous: deleted without being counted.
    pub(super) removed: Vec<Arc<Pod>>,
    /// Deleted because the Job is over.
    pub(super) ending: Vec<Arc<Pod>>,
}

impl Sync<'_> {
    /// Creates or deletes, never both: what is superfluous goes first.
    pub(super) fn manage(&self, plan: &mut Plan) -> Managed {
        let wanted = self.wanted_active();
        let active = number(self.active.len());
        let removed = self.superfluous(usize::try_from(active - wanted).unwrap_or(0));
        if self.is_suspended() || !removed.is_empty() {
            return Managed { removed, ..Managed::default() };
        }
        let terminating = match self.replaces_failed_only() {
            true => number(self.pods.iter().filter(|pod| Self::is_terminating(pod)).count()),
            false => 0,
        };
        let missing = usize::try_from(wanted - terminating - active).unwrap_or(0).min(BURST_MAX);
        if missing == 0 {
            return Managed::default();
        }
        if self.is_behind() {
            plan.requeue_in(1);
            return Managed::default();
        }
        Managed { creates: self.create(missing, plan), ..Managed::default() }
    }

    /// Whether pods have been counted by a status that is newer than the one seen: then it is not known what is missing.
    fn is_behind(&self) -> bool {
        let counted = self.pods.iter().filter(|pod| is_finished(pod) && !is_tracked(pod));
        let newest = counted.map(|pod| (&**pod as &dyn Object).revision()).max();
        newest.is_some_and(|newest| self.view.revision(&Job::NAMES) < newest)
    }

    fn wanted_active(&self) -> i32 {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        match self.spec.completions {
            _ if self.is_suspended() => 0,
            // The first success ends it: those that run may go on.
            None if self.succeeded > 0 => number(self.active.len()),
            None => parallelism,
            Some(completions) => (completions - self.succeeded).clamp(0, parallelism.max(0)),
        }
    }

    /// At least so many pods: those that cannot be counted any more, those whose index another has or which have none,
    /// then those that are missed least.
    fn superfluous(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let (mut kept, mut removed): (Vec<_>, Vec<_>) =
            self.active.iter().cloned().partition(|pod: &Arc<Pod>| is_tracked(pod));
        kept.sort_by_cached_key(|pod| rank(pod, self.now));
        if self.is_indexed() {
            // The last of each index is the one that is missed most.
            let mut last: BTreeMap<i32, usize> = BTreeMap::new();
            for (at, pod) in kept.iter().enumerate() {
                if let Some(index) = index_of(pod, self.completions()) {
                    last.insert(index, at);
                }
            }
            let stays: BTreeSet<usize> = last.into_values().collect();
            let mut at = 0;
            kept.retain(|pod| {
                let stay = stays.contains(&at);
                at += 1;
                if !stay {
                    removed.push(Arc::clone(pod));
                }
                stay
            });
        }
        let more = at_least.saturating_sub(removed.len());
        removed.extend(kept.into_iter().take(more));
        removed.truncate(BURST_MAX);
        removed
    }

    fn create(&self, missing: usize, plan: &mut Plan) -> Vec<Pod> {
        if !self.is_per_index() {
            let is_new = |pod: &&Arc<Pod>| !self.is_indexed() || index_of(pod, self.completions()).is_some();
            let succeeded = self.pods.iter().filter(|pod| phase(pod) == "Succeeded").filter(is_new);
            let failed = self.pods.iter().filter(|pod| self.is_failed(pod)).filter(is_new);
            if let Some(until) = backoff::until(succeeded, failed).filter(|until| *until > self.now) {
                plan.requeue_at(until, self.now);
                return Vec::new();
            }
        }
        if !self.is_indexed() {
            return template::any_pods(self, missing);
        }
        let indexes = self.pending_indexes(missing).into_iter().filter(|index| self.is_due(*index, plan));
        let indexes: Vec<i32> = indexes.collect();
        let pod = |index: i32| {
            let failures = self.is_per_index().then(|| self.next_failures(index));
            template::indexed_pod(self, index, failures)
        };
        indexes.into_iter().filter_map(pod).collect()
    }

    /// The first indexes that nobody works on and that are not over.
    fn pending_indexes(&self, count: usize) -> Vec<i32> {
        let keeps_place = |pod: &&Arc<Pod>| self.replaces_failed_only() && Self::is_terminating(pod);
        let busy = self.active.iter().chain(self.pods.iter().filter(keeps_place));
        let busy = busy.filter_map(|pod| any_index_of(pod)).collect();
        let mut over = self.succeeded_indexes.with(&busy);
        if let Some(failed) = &self.failed_indexes {
            over = over.union(failed);
        }
        over.missing(count, self.completions())
    }

    /// Whether an index need not wait any more after its last failure.
    fn is_due(&self, index: i32, plan: &mut Plan) -> bool {
        let Some(last) = self.delayed.get(&index).filter(|_| self.is_per_index()) else { return true };
        let (counted, ignored) = failures_of(last);
        let failures = usize::try_from(counted.saturating_add(ignored)).unwrap_or(0).saturating_add(1);
        match backoff::after(failures, finished_at(last)).filter(|until| *until > self.now) {
            Some(until) => {
                plan.requeue_at(until, self.now);
                false
            }
            None => true,
        }
    }

    /// The failures, counted and ignored, that a new pod of an index starts with.
    fn next_failures(&self, index: i32) -> (i32, i32) {
        let Some(last) = self.delayed.get(&index) else { return (0, 0) };
        let (counted, ignored) = failures_of(last);
        match super::policy::judge(self.spec.pod_failure_policy.as_ref(), last).counts {
            true => (counted.saturating_add(1), ignored),
            false => (counted, ignored.saturating_add(1)),
        }
    }
}

/// How many pods of its index failed before this one: those that count and those that do not.
pub(super) fn failures_of(pod: &Pod) -> (i32, i32) {
    let annotations = pod.metadata.annotations.as_ref();
    let count = |name: &str| annotations.and_then(|a| a.get(name)?.parse().ok()).unwrap_or(0);
    (count(FAILURES), count(IGNORED_FAILURES))
}

/// Lower goes first. In order: without a node, not yet running, not ready, ready for a shorter time, restarted more often,
/// younger; the name last, so that the order is always the same.
type Rank = (bool, u8, bool, Reverse<i64>, Reverse<i32>, Reverse<i64>, String);

fn rank(pod: &Pod, now: Timestamp) -> Rank {
    let running = match phase(pod) {
        "" | "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let ready = ready_since(pod);
    (
        !node_name(pod).is_empty(),
        running,
        ready.is_some(),
        Reverse(ready.unwrap_or(now).as_second()),
        Reverse(statuses.map(|s| s.restart_count).max().unwrap_or(0)),
        Reverse(created.as_second()),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

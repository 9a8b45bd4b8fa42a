//! Counting: from a pod that has ended to a number in the status, one step per plan.
//!
//! # Source
//! Kubernetes `pkg/controller/job/job_controller.go`, `trackJobStatusAndRemoveFinalizers`.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{
    batch::v1::{Job, JobStatus},
    core::v1::Pod,
};
use podium_api::{Kind as _, Object};

use super::{
    EVENTS_MAX, UNCOUNTED_MAX,
    claim::{is_tracked, untrack},
    conditions,
    indexes::index_of,
    manage::Managed,
    policy::judge,
    sync::{Sync, number},
};
use crate::{Action, EventNote, Plan, owners::delete, pods::phase};

/// Pods that may go, and what of the counting is left to do.
#[derive(Default)]
struct Step {
    /// Those that are counted once the status is written.
    untracked: Vec<Arc<Pod>>,
    /// There are more than one plan counts.
    is_full: bool,
    /// The mirror of the pods has not got far enough to tell which are gone.
    lags: bool,
}

impl Sync<'_> {
    /// Turns all that was decided into actions: pods, then the status, then the finalizers of those that it counts.
    pub(super) fn track(mut self, managed: Managed, told: Vec<Action>, plan: &mut Plan) {
        let terminating = self.pods.iter().filter(|pod| Self::is_terminating(pod)).count();
        let terminating = number(terminating + managed.removed.len() + managed.ending.len());
        self.status.active = Some(self.active_after(&managed)).filter(|active| *active > 0);
        self.status.ready = Some(self.ready_after(&managed));
        self.status.terminating = Some(terminating);
        let step = self.count_step(&managed);
        if step.lags {
            plan.requeue_in(1);
        }
        let finishes = self.may_finish(&step);
        let outcome = self.outcome.clone().filter(|_| finishes);
        match (&outcome, &self.outcome) {
            (Some(outcome), _) => {
                let terminal = outcome.terminal(self.now);
                if outcome.succeeds {
                    self.status.completion_time.clone_from(&terminal.last_transition_time);
                }
                conditions::set(&mut self.status, terminal);
            }
            (None, Some(outcome)) if conditions::Outcome::known(&self.old).is_none() => {
                let announced = outcome.announced(self.now);
                conditions::set(&mut self.status, announced);
            }
            _ => {}
        }
        self.push_pods(&managed, plan);
        let succeeds = self.outcome.as_ref().is_some_and(|o| o.succeeds);
        let ending: HashSet<&str> = managed.ending.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        if !succeeds {
            // What is being deleted is counted as failed; its finalizer goes when its deletion shows.
            self.push_deletes(&managed.ending, plan);
        }
        if self.status != self.old {
            plan.push(Action::UpdateStatus(Box::new(Job { status: Some(self.status.clone()), ..self.job.clone() })));
        }
        plan.actions.extend(told);
        let later = |pod: &&Arc<Pod>| {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            self.adopted.contains(uid) || (!succeeds && ending.contains(uid))
        };
        plan.actions.extend(step.untracked.iter().filter(|pod| !later(pod)).map(|pod| untrack(pod)));
        if succeeds {
            // Nobody misses what still runs: it is let go first, so that it does not count as failed.
            self.push_deletes(&managed.ending, plan);
        }
        if let Some(outcome) = outcome {
            self.tell_finished(&outcome, plan);
        }
    }

    /// Moves what has been counted on, and notes what has ended.
    fn count_step(&mut self, managed: &Managed) -> Step {
        let before = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let known: BTreeSet<String> = before.failed.iter().chain(&before.succeeded).flatten().cloned().collect();
        let failed_before: BTreeSet<&String> = before.failed.iter().flatten().collect();
        let mut step = Step { lags: self.move_on(), ..Step::default() };
        let removed: HashSet<&str> = managed.removed.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let is_new = |pod: &&Arc<Pod>| !removed.contains(pod.metadata.uid.as_deref().unwrap_or_default());
        let mut tracked: Vec<Arc<Pod>> = self.pods.iter().filter(|p| is_tracked(p)).filter(is_new).cloned().collect();
        if self.is_indexed() {
            tracked.sort_by_key(|pod| index_of(pod, i32::MAX));
        }
        let mut new_indexes = BTreeSet::new();
        for pod in tracked {
            let failed = self.is_failed(&pod);
            if !self.may_untrack(&pod, failed) {
                continue;
            }
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let index = index_of(&pod, self.completions());
            let fails = self.outcome.as_ref().is_some_and(|o| !o.succeeds);
            if phase(&pod) == "Succeeded" && !failed_before.contains(&uid) {
                match index {
                    Some(index) if self.is_indexed() => {
                        new_indexes.extend(Some(index).filter(|i| !self.counted_indexes.has(*i)));
                    }
                    None if self.is_indexed() => {}
                    _ if known.contains(&uid) => {}
                    _ => self.uncounted(|u| &mut u.succeeded).push(uid),
                }
            } else if (failed || fails)
                && !known.contains(&uid)
                && (index.is_some() || !self.is_indexed())
                && judge(self.spec.pod_failure_policy.as_ref(), &pod).counts
            {
                self.uncounted(|u| &mut u.failed).push(uid);
            }
            step.untracked.push(pod);
            if new_indexes.len() + uncounted_len(&self.status) >= UNCOUNTED_MAX {
                step.is_full = true;
                break;
            }
        }
        self.note_indexes(&new_indexes);
        step
    }

    /// Raises the counts by the pods whose finalizers are gone. Whether some are not to be seen in a mirror that may lag.
    fn move_on(&mut self) -> bool {
        let tracked: HashSet<&str> =
            self.pods.iter().filter(|p| is_tracked(p)).filter_map(|p| p.metadata.uid.as_deref()).collect();
        let seen: HashSet<&str> = self.pods.iter().filter_map(|p| p.metadata.uid.as_deref()).collect();
        let job: &dyn Object = self.job;
        let behind = self.view.revision(&Pod::NAMES) < job.revision();
        let Some(uncounted) = self.status.uncounted_terminated_pods.as_mut() else { return false };
        let mut lags = false;
        let mut leave = |uids: &mut Option<Vec<String>>| {
            let Some(list) = uids.as_mut() else { return 0 };
            let before = list.len();
            list.retain(|uid| {
                let unsure = behind && !seen.contains(uid.as_str());
                lags |= unsure;
                unsure || tracked.contains(uid.as_str())
            });
            let left = number(before - list.len());
            if list.is_empty() {
                *uids = None;
            }
            left
        };
        let (succeeded, failed) = (leave(&mut uncounted.succeeded), leave(&mut uncounted.failed));
        raise(&mut self.status.succeeded, succeeded);
        raise(&mut self.status.failed, failed);
        lags
    }

    fn uncounted(
        &mut self,
        list: fn(&mut k8s_openapi::api::batch::v1::UncountedTerminatedPods) -> &mut Option<Vec<String>>,
    ) -> &mut Vec<String> {
        list(self.status.uncounted_terminated_pods.get_or_insert_default()).get_or_insert_default()
    }

    fn note_indexes(&mut self, new: &BTreeSet<i32>) {
        if !self.is_indexed() {
            return;
        }
        let all = self.succeeded_indexes.with(new);
        self.status.succeeded = Some(all.total()).filter(|n| *n > 0);
        self.status.completed_indexes = Some(all.to_string()).filter(|list| !list.is_empty());
        self.status.failed_indexes = self.failed_indexes.as_ref().map(ToString::to_string);
    }

    /// Whether a pod need not be kept any more, once the status knows of it.
    fn may_untrack(&self, pod: &Pod, failed: bool) -> bool {
        let over = self.job.metadata.deletion_timestamp.is_some() || self.outcome.is_some();
        if over || phase(pod) == "Succeeded" {
            return true;
        }
        let waits = || {
            let delayed = self.delayed.get(&index_of(pod, self.completions())?)?;
            (delayed.metadata.uid == pod.metadata.uid).then_some(())
        };
        failed && waits().is_none()
    }

    /// Everything is counted, nothing runs any more, and how it ends was said before.
    fn may_finish(&self, step: &Step) -> bool {
        let announced = conditions::Outcome::known(&self.old).is_some();
        let quiet = self.status.terminating.unwrap_or(0) == 0 && self.status.active.is_none();
        let counted = step.untracked.is_empty() && !step.is_full && uncounted_len(&self.status) == 0;
        announced && self.outcome.is_some() && quiet && counted
    }

    fn push_pods(&self, managed: &Managed, plan: &mut Plan) {
        let tracked = managed.removed.iter().filter(|pod| is_tracked(pod));
        plan.actions.extend(tracked.map(|pod| untrack(pod)));
        self.push_deletes(&managed.removed, plan);
        let event = EventNote::normal(self.job, "SuccessfulCreate", "Created pod: ");
        for (i, pod) in managed.creates.iter().enumerate() {
            let pod = Box::new(pod.clone());
            plan.push(if i < EVENTS_MAX { Action::CreateAndTell(pod, event.clone()) } else { Action::Create(pod) });
        }
    }

    fn push_deletes(&self, pods: &[Arc<Pod>], plan: &mut Plan) {
        plan.actions.extend(pods.iter().map(|pod| delete(&**pod)));
        let told = pods.iter().take(EVENTS_MAX).map(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            Action::Event(EventNote::normal(self.job, "SuccessfulDelete", format!("Deleted pod: {name}")))
        });
        plan.actions.extend(told);
    }

    fn tell_finished(&self, outcome: &conditions::Outcome, plan: &mut Plan) {
        if !outcome.succeeds {
            let event = EventNote::warning(self.job, &outcome.reason, outcome.message.as_str());
            return plan.push(Action::Event(event));
        }
        if self.spec.completions.is_some_and(|completions| self.status.succeeded.unwrap_or(0) > completions) {
            let message = "Too many succeeded pods running after completion count reached";
            plan.push(Action::Event(EventNote::warning(self.job, "TooManySucceededPods", message)));
        }
        plan.push(Action::Event(EventNote::normal(self.job, "Completed", "Job completed")));
    }
}

fn raise(count: &mut Option<i32>, by: i32) {
    if by > 0 {
        *count = Some(count.unwrap_or(0).saturating_add(by));
    }
}

fn uncounted_len(status: &JobStatus) -> usize {
    let Some(uncounted) = &status.uncounted_terminated_pods else { return 0 };
    uncounted.succeeded.as_ref().map_or(0, Vec::len) + uncounted.failed.as_ref().map_or(0, Vec::len)
}

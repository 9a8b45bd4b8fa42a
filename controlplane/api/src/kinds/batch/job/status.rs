//! What whoever runs Jobs may say of them: what belongs together, and what never goes back.
//!
//! What was wrong before and is not touched is let be, so that it can be mended step by step.
//!
//! # Source
//! Kubernetes `pkg/apis/batch/validation/validation.go`, `validateJobStatus`, `ValidateJobStatusUpdate`;
//! `pkg/registry/batch/job/strategy.go`, `getStatusValidationOptions`.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use serde_json::Value;

use super::indexes;
use crate::field::{FieldErrors, FieldPath};

/// A Job's spec with its status before and after a write.
struct Write<'a> {
    spec: &'a JobSpec,
    new: &'a JobStatus,
    old: &'a JobStatus,
}

/// Checks a write of a Job's status.
pub(super) fn validate(job: &Job, old: &Job, errs: &mut FieldErrors) {
    let (no_spec, none) = (JobSpec::default(), JobStatus::default());
    let write = Write {
        spec: job.spec.as_ref().unwrap_or(&no_spec),
        new: job.status.as_ref().unwrap_or(&none),
        old: old.status.as_ref().unwrap_or(&none),
    };
    let path = FieldPath::new("status");
    validate_counts(write.new, &path, errs);
    validate_uncounted(write.new, &path.child("uncountedTerminatedPods"), errs);
    write.validate_conditions(&path.child("conditions"), errs);
    write.validate_completion(&path, errs);
    write.validate_finished(&path, errs);
    write.validate_indexes(&path, errs);
    write.validate_progress(&path, errs);
}

fn validate_counts(status: &JobStatus, path: &FieldPath, errs: &mut FieldErrors) {
    let parts = [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ];
    for (field, part) in parts {
        errs.non_negative(&path.child(field), i64::from(part.unwrap_or_default()));
    }
}

fn validate_uncounted(status: &JobStatus, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(pods) = &status.uncounted_terminated_pods else { return };
    let mut seen = BTreeSet::new();
    for (field, uids) in [("succeeded", &pods.succeeded), ("failed", &pods.failed)] {
        for (i, uid) in uids.iter().flatten().enumerate() {
            let at = path.child(field).index(i);
            if uid.is_empty() {
                errs.invalid(&at, "", "must not be empty");
            } else if !seen.insert(uid) {
                errs.duplicate(&at, uid.as_str());
            }
        }
    }
}

fn has(status: &JobStatus, condition: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == condition && c.status == "True")
}

fn is_finished(status: &JobStatus) -> bool {
    has(status, "Complete") || has(status, "Failed")
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

impl Write<'_> {
    /// Whether a write changes a part of the status.
    fn changes<T: PartialEq>(&self, of: impl Fn(&JobStatus) -> T) -> bool {
        of(self.new) != of(self.old)
    }

    fn changes_condition(&self, condition: &str) -> bool {
        self.changes(|s| has(s, condition))
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn validate_conditions(&self, path: &FieldPath, errs: &mut FieldErrors) {
        let is = |condition: &str| has(self.new, condition);
        let changes = |condition: &str| self.changes_condition(condition);
        let (complete, failed) = (is("Complete"), is("Failed"));
        let (target, met) = (is("FailureTarget"), is("SuccessCriteriaMet"));
        let ending = changes("Complete");
        let wrong = [
            (
                complete && failed && (ending || changes("Failed")),
                "cannot set Complete=True and Failed=true conditions",
            ),
            (
                complete && target && (ending || changes("FailureTarget")),
                "cannot set Complete=True and FailureTarget=true conditions",
            ),
            (
                failed && !target && (changes("Failed") || changes("FailureTarget")),
                "cannot set Failed=True condition without the FailureTarget=true condition",
            ),
            (
                complete && !met && (ending || changes("SuccessCriteriaMet")),
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            ),
            (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
            (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
            (
                self.spec.success_policy.is_some() && !met && complete,
                "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
            ),
        ];
        for (_, detail) in wrong.iter().filter(|(wrong, _)| *wrong) {
            errs.invalid_without_value(path, detail);
        }
    }

    fn validate_completion(&self, path: &FieldPath, errs: &mut FieldErrors) {
        let at = path.child("completionTime");
        let complete = has(self.new, "Complete");
        let (started, ended) = (&self.new.start_time, &self.new.completion_time);
        let changes_end = self.changes(|s| s.completion_time.clone());
        if self.changes_condition("Complete") || changes_end {
            match ended {
                Some(_) if !complete => {
                    errs.invalid(
                        &at,
                        json(ended),
                        "cannot set completionTime when there is no Complete=True condition",
                    );
                }
                None if complete => errs.required(&at, "completionTime is required for Complete jobs"),
                _ => {}
            }
        }
        let backwards = started.as_ref().zip(ended.as_ref()).is_some_and(|(start, end)| end.0 < start.0);
        if backwards && (changes_end || self.changes(|s| s.start_time.clone())) {
            errs.invalid(&at, json(ended), "completionTime cannot be set before startTime");
        }
    }

    fn validate_finished(&self, path: &FieldPath, errs: &mut FieldErrors) {
        let status = self.new;
        let finishes = self.changes(is_finished);
        if !is_finished(status) {
            return;
        }
        if status.active.unwrap_or_default() > 0 && (finishes || self.changes(|s| s.active.unwrap_or_default())) {
            errs.invalid(&path.child("active"), status.active, "active>0 is invalid for finished job");
        }
        let nothing_to_do = self.spec.suspend == Some(true) && self.spec.completions == Some(0);
        let starts = self.changes(|s| s.start_time.clone());
        if status.start_time.is_none() && (finishes || starts) && !nothing_to_do {
            errs.required(&path.child("startTime"), "startTime is required for finished job");
        }
        let uncounted = status.uncounted_terminated_pods.as_ref();
        let some = |uids: &Option<Vec<String>>| uids.as_ref().is_some_and(|u| !u.is_empty());
        if uncounted.is_some_and(|u| some(&u.failed) || some(&u.succeeded))
            && (finishes || self.changes(|s| s.uncounted_terminated_pods.clone()))
        {
            let detail = "uncountedTerminatedPods needs to be empty for finished job";
            errs.invalid(&path.child("uncountedTerminatedPods"), json(&uncounted), detail);
        }
        if status.terminating.unwrap_or_default() > 0 && (finishes || self.changes(|s| s.terminating)) {
            errs.invalid(&path.child("terminating"), status.terminating, "terminating>0 is invalid for finished job");
        }
    }

    fn validate_indexes(&self, path: &FieldPath, errs: &mut FieldErrors) {
        let completed = self.new.completed_indexes.as_deref().unwrap_or_default();
        let failed = self.new.failed_indexes.as_deref();
        let changes_completed = self.changes(|s| s.completed_indexes.clone().unwrap_or_default());
        let changes_failed = self.changes(|s| s.failed_indexes.clone());
        let (completed_at, failed_at) = (path.child("completedIndexes"), path.child("failedIndexes"));
        let per_index = self.spec.backoff_limit_per_index.is_some();
        if let Some(completions) = self.spec.completions {
            if let Err(why) = indexes::count(completed, completions).or_else(|e| check(changes_completed, e)) {
                errs.invalid(&completed_at, completed, &format!("error parsing completedIndexes: {why}"));
            }
            let list = failed.filter(|_| per_index).unwrap_or_default();
            if let Err(why) = indexes::count(list, completions).or_else(|e| check(changes_failed, e)) {
                errs.invalid(&failed_at, list, &format!("error parsing failedIndexes: {why}"));
            }
        }
        if changes_completed && !completed.is_empty() && !self.is_indexed() {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errs.invalid(&completed_at, completed, detail);
        }
        if let Some(failed) = failed.filter(|_| changes_failed && !per_index) {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errs.invalid(&failed_at, failed, detail);
        }
        if let (Some(failed), Some(completions), true) =
            (failed, self.spec.completions, changes_failed || changes_completed)
            && let Some(shared) = indexes::overlap(completed, failed, completions)
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {shared}");
            errs.invalid(&failed_at, failed, &detail);
        }
        let (ready, active) = (self.new.ready, self.new.active.unwrap_or_default());
        if let Some(ready) = ready.filter(|ready| *ready > active)
            && (self.changes(|s| s.ready) || self.changes(|s| s.active.unwrap_or_default()))
        {
            errs.invalid(&path.child("ready"), ready, "cannot set more ready pods than active");
        }
    }

    /// What never goes back.
    fn validate_progress(&self, path: &FieldPath, errs: &mut FieldErrors) {
        let conditions = path.child("conditions");
        for condition in ["Failed", "Complete", "FailureTarget"] {
            if has(self.old, condition) && !has(self.new, condition) {
                let detail = format!("cannot disable the terminal {condition}=True condition");
                errs.invalid_without_value(&conditions, &detail);
            }
        }
        // An indexed Job that was made smaller has fewer successes.
        let resizable = self.is_indexed() && self.spec.completions == self.spec.parallelism;
        let counters = [
            ("failed", self.new.failed, self.old.failed, true),
            ("succeeded", self.new.succeeded, self.old.succeeded, !resizable),
        ];
        for (field, new, old, grows) in counters {
            let new = new.unwrap_or_default();
            if grows && new < old.unwrap_or_default() {
                errs.invalid(&path.child(field), new, &format!("cannot decrease the {field} counter"));
            }
        }
        let (ended, had_ended) = (&self.new.completion_time, &self.old.completion_time);
        if ended.is_some() && had_ended.is_some() && ended != had_ended {
            errs.invalid(&path.child("completionTime"), json(ended), "completionTime cannot be mutated");
        }
        let started = &self.old.start_time;
        // A Job that goes on after it was suspended starts anew.
        let goes_on = has(self.old, "Suspended") && self.new.start_time.is_some();
        if started.is_some() && *started != self.new.start_time && self.spec.suspend != Some(true) && !goes_on {
            errs.required(&path.child("startTime"), "startTime cannot be removed for unsuspended job");
        }
        let (met, was_met) = (has(self.new, "SuccessCriteriaMet"), has(self.old, "SuccessCriteriaMet"));
        if was_met && !met {
            errs.invalid_without_value(&conditions, "cannot disable the SuccessCriteriaMet=True condition");
        }
        if has(self.old, "Complete") && !was_met && met {
            let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            errs.invalid_without_value(&conditions, detail);
        }
    }
}

/// An error that counts only when what it is about changes.
fn check(changes: bool, error: String) -> Result<i32, String> {
    if changes { Err(error) } else { Ok(0) }
}

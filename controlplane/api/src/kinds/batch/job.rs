//! Job: pods that run to their end.
//!
//! # Source
//! Kubernetes `pkg/apis/batch/v1/defaults.go`, `pkg/apis/batch/validation/validation.go`,
//! `pkg/registry/batch/job/strategy.go`, `pkg/printers/internalversion/printers.go` (`printJob`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec, JobStatus},
        core::v1::Affinity,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, Scope, Sub, human_duration},
    kinds::{label_selector, pod},
    selector::label_selector_matches,
};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const OLD_UID_LABEL: &str = "controller-uid";
const OLD_NAME_LABEL: &str = "job-name";
/// Indexed Jobs may run so many pods at once.
const INDEXED_PARALLELISM_MAX: i32 = 100_000;
const MODES: [&str; 2] = ["Indexed", "NonIndexed"];
const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];

impl Kind for Job {
    const NAMES: Names = Names::new("batch", "v1", "Job", "jobs", "job").categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const FIELDS: &'static [Field<Self>] = &[Field {
        path: "status.successful",
        value: |j| j.status.as_ref().and_then(|s| s.succeeded).unwrap_or_default().to_string(),
    }];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Status", |j, _| Cell::from(state(j))).help("Status of the job."),
        Column::<Self>::text("Completions", |j, _| Cell::from(completions(j))).field::<JobStatus>("succeeded"),
        Column::<Self>::text("Duration", |j, now| Cell::from(duration(j, now)))
            .help("Time required to complete the job."),
        Column::AGE,
        Column::<Self>::wide_text("Containers", |j, _| {
            Cell::from(pod::template_containers(j.spec.as_ref().map(|s| &s.template)))
        })
        .help("Names of each container in the template."),
        Column::<Self>::wide_text("Images", |j, _| {
            Cell::from(pod::template_images(j.spec.as_ref().map(|s| &s.template)))
        })
        .help("Images referenced by each container in the template."),
        Column::<Self>::wide_text("Selector", |j, _| {
            Cell::from(label_selector::shown(j.spec.as_ref().and_then(|s| s.selector.as_ref())))
        })
        .field::<JobSpec>("selector"),
    ];

    fn fill_defaults(&mut self) {
        let labels = self.spec.as_ref().and_then(|s| s.template.metadata.as_ref()).and_then(|m| m.labels.clone());
        if self.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) && labels.as_ref().is_some_and(|l| !l.is_empty())
        {
            self.metadata.labels = labels;
        }
        fill_spec_defaults(self.spec.get_or_insert_default());
    }

    fn prepare_create(&mut self) {
        self.status = Some(JobStatus::default());
        let (name, uid) = (self.metadata.name.clone(), self.metadata.uid.clone());
        let spec = self.spec.get_or_insert_default();
        if spec.manual_selector != Some(true) {
            own_selector(spec, &name.unwrap_or_default(), &uid.unwrap_or_default());
        }
        // The template has got labels of its own by now.
        self.fill_defaults();
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = JobSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&default);
        let path = FieldPath::new("spec");
        let at = path.child("selector");
        match &spec.selector {
            None => errs.required(&at, ""),
            Some(selector) => {
                label_selector::validate(selector, &at, errs);
                let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
                if !label_selector_matches(Some(selector), labels) {
                    let value = serde_json::to_value(labels).unwrap_or_default();
                    let at = path.child("template").child("metadata").child("labels");
                    errs.invalid(&at, value, "`selector` does not match template `labels`");
                }
            }
        }
        validate_spec(spec, &path, errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let (Some(new), Some(before)) = (&self.spec, &old.spec) else { return };
        let indexed = before.completion_mode.as_deref() == Some("Indexed");
        // An indexed Job may be resized as a whole.
        if !indexed {
            errs.immutable(&path.child("completions"), &new.completions, &before.completions);
        } else if new.completions != before.completions
            && new.completions.is_some()
            && new.completions != new.parallelism
        {
            let detail = "can only be modified in tandem with spec.parallelism";
            errs.invalid(&path.child("completions"), new.completions, detail);
        }
        errs.immutable(&path.child("selector"), &new.selector, &before.selector);
        errs.immutable(&path.child("completionMode"), &new.completion_mode, &before.completion_mode);
        errs.immutable(&path.child("podFailurePolicy"), &new.pod_failure_policy, &before.pod_failure_policy);
        errs.immutable(
            &path.child("backoffLimitPerIndex"),
            &new.backoff_limit_per_index,
            &before.backoff_limit_per_index,
        );
        errs.immutable(&path.child("managedBy"), &new.managed_by, &before.managed_by);
        errs.immutable(&path.child("successPolicy"), &new.success_policy, &before.success_policy);
        let mut template = new.template.clone();
        let started = old.status.as_ref().is_some_and(|s| s.start_time.is_some());
        if before.suspend == Some(true) && !started {
            // Where its pods run may still be said by whoever starts it.
            let (spec, had) = (template.spec.get_or_insert_default(), before.template.spec.clone().unwrap_or_default());
            spec.node_selector = had.node_selector;
            spec.tolerations = had.tolerations;
            spec.scheduling_gates = had.scheduling_gates;
            // The affinity to nodes may change, come and go.
            let had_any = had.affinity.is_some();
            let had_affinity = had.affinity.unwrap_or_default();
            let mut affinity = spec.affinity.take().unwrap_or_default();
            affinity.node_affinity = had_affinity.node_affinity;
            spec.affinity = (had_any || affinity != Affinity::default()).then_some(affinity);
            let meta = template.metadata.get_or_insert_default();
            let had = before.template.metadata.clone().unwrap_or_default();
            meta.labels = had.labels;
            meta.annotations = had.annotations;
        }
        errs.immutable(&path.child("template"), &template, &before.template);
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("status");
        let Some(status) = &self.status else { return };
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
}

/// The defaults of a Job's spec.
fn fill_spec_defaults(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
        spec.parallelism = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let per_index = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if per_index { i32::MAX } else { 6 });
    pod::text_default(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    pod::text_default(&mut spec.pod_replacement_policy, replacement);
    if let Some(policy) = &mut spec.pod_failure_policy {
        for pattern in policy.rules.iter_mut().flat_map(|r| r.on_pod_conditions.iter_mut().flatten()) {
            if pattern.status.as_deref().unwrap_or_default().is_empty() {
                pattern.status = Some("True".to_owned());
            }
        }
    }
    pod::fill_template_defaults(&mut spec.template);
}

/// A selector that no other Job's pods match.
fn own_selector(spec: &mut JobSpec, name: &str, uid: &str) {
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in [(UID_LABEL, uid), (OLD_UID_LABEL, uid), (NAME_LABEL, name), (OLD_NAME_LABEL, name)] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let own: BTreeMap<_, _> = [(UID_LABEL.to_owned(), uid.to_owned())].into();
    let selector = spec.selector.get_or_insert_default();
    *selector = LabelSelector { match_labels: Some(own), match_expressions: selector.match_expressions.take() };
}

/// Checks everything but the selector, for Jobs and for the templates of CronJobs.
pub(super) fn validate_spec(spec: &JobSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let numbers = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (field, number) in numbers {
        errs.non_negative(&path.child(field), number.unwrap_or_default());
    }
    if let Some(mode) = spec.completion_mode.as_deref().filter(|m| !MODES.contains(m)) {
        errs.not_supported(&path.child("completionMode"), mode, &MODES);
    }
    if let Some(policy) = spec.pod_replacement_policy.as_deref().filter(|p| !REPLACEMENTS.contains(p)) {
        errs.not_supported(&path.child("podReplacementPolicy"), policy, &REPLACEMENTS);
    }
    if spec.completion_mode.as_deref() == Some("Indexed") {
        if spec.completions.is_none() {
            errs.required(&path.child("completions"), "when completion mode is Indexed");
        }
        if spec.parallelism.unwrap_or_default() > INDEXED_PARALLELISM_MAX {
            let detail =
                format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed");
            errs.invalid(&path.child("parallelism"), spec.parallelism, &detail);
        }
    } else if spec.backoff_limit_per_index.is_some() {
        let detail = "may not be specified when completion mode is not Indexed";
        errs.invalid(&path.child("backoffLimitPerIndex"), spec.backoff_limit_per_index, detail);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errs.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    let at = path.child("template");
    pod::validate_any_template(&spec.template, &at, errs);
    let restart = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    let at = at.child("spec").child("restartPolicy");
    match restart {
        "" | "Always" => errs.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" | "Never" => {}
        other => errs.not_supported(&at, other, &["OnFailure", "Never"]),
    }
    if spec.pod_failure_policy.is_some() && restart != "Never" {
        errs.invalid(&at, restart, "only \"Never\" is supported when podFailurePolicy is specified");
    }
}

fn has(job: &Job, condition: &str) -> bool {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == condition && c.status == "True")
}

fn state(job: &Job) -> &'static str {
    match () {
        () if has(job, "Complete") => "Complete",
        () if has(job, "Failed") => "Failed",
        () if job.metadata.deletion_timestamp.is_some() => "Terminating",
        () if has(job, "Suspended") => "Suspended",
        () if has(job, "FailureTarget") => "FailureTarget",
        () if has(job, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Job) -> String {
    let done = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or_default();
    let spec = job.spec.as_ref();
    match (spec.and_then(|s| s.completions), spec.and_then(|s| s.parallelism).unwrap_or_default()) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        (None, _) => format!("{done}/1"),
    }
}

fn duration(job: &Job, now: Timestamp) -> String {
    let Some(status) = &job.status else { return String::new() };
    let Some(start) = &status.start_time else { return String::new() };
    let end = status.completion_time.as_ref().map_or(now, |t| t.0);
    human_duration(end.as_second() - start.0.as_second())
}

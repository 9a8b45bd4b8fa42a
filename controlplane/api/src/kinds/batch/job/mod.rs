//! Job: pods that run to their end.
//!
//! Its policies, its status and lists of indexes are checked in the modules below.
//!
//! # Source
//! Kubernetes `pkg/apis/batch/v1/defaults.go`, `pkg/apis/batch/validation/validation.go`,
//! `pkg/registry/batch/job/strategy.go`, `pkg/printers/internalversion/printers.go` (`printJob`).

mod indexes;
mod policy;
mod status;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobSpec, JobStatus},
    core::v1::Affinity,
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, Scope, Sub, human_duration},
    kinds::{label_selector, pod},
    names,
    selector::label_selector_matches,
};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const OLD_UID_LABEL: &str = "controller-uid";
const OLD_NAME_LABEL: &str = "job-name";
/// Indexed Jobs may run so many pods at once, and let so many fail: their lists of indexes have a bound.
const INDEXED_MAX: i32 = 100_000;
/// Of Jobs with more completions than [`INDEXED_MAX`], each with a limit of its own.
const MANY_INDEXED_MAX: i32 = 10_000;
const MANAGED_BY_BYTES_MAX: usize = 63;
const MODES: [&str; 2] = ["NonIndexed", "Indexed"];
const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];

impl Kind for Job {
    const NAMES: Names = Names::new("batch", "v1", "Job", "jobs", "job").categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const ORPHANS_DEPENDENTS: bool = true;
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

    crate::kind::status_kept!();

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = JobSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&default);
        let path = FieldPath::new("spec");
        validate_spec(spec, &path, errs);
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

    fn validate_create(&self, errs: &mut FieldErrors) {
        let Some(spec) = &self.spec else { return };
        validate_own_selector(self, spec, errs);
        let Some(last) = spec.completions.filter(|c| *c > 0).map(|c| c - 1) else { return };
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let hostname = format!("{name}-{last}");
        if spec.completion_mode.as_deref() == Some("Indexed") && !names::is_dns1123_label(&hostname).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {hostname}");
            errs.invalid(&FieldPath::new("metadata").child("name"), name, &detail);
        }
    }

    fn validate_status_update(&self, old: &Self, errs: &mut FieldErrors) {
        status::validate(self, old, errs);
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

/// A selector that no other Job's pods match. What the user gave stays, and is refused when it is not right.
fn own_selector(spec: &mut JobSpec, name: &str, uid: &str) {
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in own_labels(name, uid) {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    let selector = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selector.entry(UID_LABEL.to_owned()).or_insert_with(|| uid.to_owned());
}

fn own_labels<'a>(name: &'a str, uid: &'a str) -> [(&'static str, &'a str); 4] {
    [(OLD_UID_LABEL, uid), (OLD_NAME_LABEL, name), (UID_LABEL, uid), (NAME_LABEL, name)]
}

/// Whether the labels and the selector of a Job are those that it is given.
fn validate_own_selector(job: &Job, spec: &JobSpec, errs: &mut FieldErrors) {
    let Some(selector) = spec.selector.as_ref().filter(|_| spec.manual_selector != Some(true)) else { return };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (name, uid) = (text(&job.metadata.name), text(&job.metadata.uid));
    if uid.is_empty() {
        errs.required(&FieldPath::new("metadata").child("uid"), "");
    }
    let path = FieldPath::new("spec");
    let at = path.child("template").child("metadata").child("labels");
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    for (key, wanted) in own_labels(&name, &uid) {
        let detail = format!("must be '{wanted}'");
        match labels.and_then(|l| l.get(key)) {
            None => errs.required(&at.key(key), &detail),
            Some(value) if value != wanted => {
                errs.invalid(&at.key(key), serde_json::to_value(labels).unwrap_or_default(), &detail);
            }
            Some(_) => {}
        }
    }
    let expected: BTreeMap<_, _> =
        own_labels(&name, &uid).into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if !label_selector_matches(Some(selector), Some(&expected)) {
        let value = serde_json::to_value(selector).unwrap_or_default();
        errs.invalid(&path.child("selector"), value, "`selector` not auto-generated");
    }
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
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errs.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = &spec.managed_by {
        validate_manager(manager, &path.child("managedBy"), errs);
    }
    validate_mode(spec, path, errs);
    validate_policies(spec, path, errs);
    let at = path.child("template");
    pod::validate_any_template(&spec.template, &at, errs);
    let restart = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    let at = at.child("spec").child("restartPolicy");
    match restart {
        "" | "Always" => errs.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            errs.invalid(&at, restart, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" => {}
        other => errs.not_supported(&at, other, &["OnFailure", "Never"]),
    }
}

fn validate_manager(manager: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if manager.is_empty() {
        errs.required(path, "");
    } else {
        for (part, message) in names::is_domain_prefixed_path(manager) {
            errs.invalid(path, part, &message);
        }
    }
    if manager.len() > MANAGED_BY_BYTES_MAX {
        errs.too_long(path, MANAGED_BY_BYTES_MAX);
    }
}

fn validate_mode(spec: &JobSpec, path: &FieldPath, errs: &mut FieldErrors) {
    match spec.completion_mode.as_deref().unwrap_or("NonIndexed") {
        "Indexed" => validate_indexed(spec, path, errs),
        "NonIndexed" => {
            let limits =
                [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)];
            for (field, limit) in limits {
                if let Some(limit) = limit {
                    errs.invalid(&path.child(field), limit, "requires indexed completion mode");
                }
            }
        }
        mode => errs.not_supported(&path.child("completionMode"), mode, &MODES),
    }
}

fn validate_indexed(spec: &JobSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let at_most = |field: &str, value: Option<i32>, max: i32, rest: &str, errs: &mut FieldErrors| {
        if let Some(value) = value.filter(|v| *v > max) {
            errs.invalid(&path.child(field), value, &format!("must be less than or equal to {max}{rest}"));
        }
    };
    let (parallelism, failed) = (spec.parallelism, spec.max_failed_indexes);
    let Some(completions) = spec.completions else {
        errs.required(&path.child("completions"), "when completion mode is Indexed");
        at_most("parallelism", parallelism, INDEXED_MAX, " when completion mode is Indexed", errs);
        return at_most("maxFailedIndexes", failed, INDEXED_MAX, "", errs);
    };
    at_most("parallelism", parallelism, INDEXED_MAX, " when completion mode is Indexed", errs);
    if let Some(failed) = failed.filter(|f| *f > completions) {
        errs.invalid(&path.child("maxFailedIndexes"), failed, "must be less than or equal to completions");
    }
    at_most("maxFailedIndexes", failed, INDEXED_MAX, "", errs);
    if completions > INDEXED_MAX && spec.backoff_limit_per_index.is_some() {
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {INDEXED_MAX}");
            errs.required(&path.child("maxFailedIndexes"), &detail);
        }
        let rest = format!(" when completions are above {INDEXED_MAX} and used with backoff limit per index");
        at_most("parallelism", parallelism, MANY_INDEXED_MAX, &rest, errs);
        at_most("maxFailedIndexes", failed, MANY_INDEXED_MAX, &rest, errs);
    }
}

fn validate_policies(spec: &JobSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(policy) = &spec.pod_failure_policy {
        policy::validate_failure(policy, spec, &path.child("podFailurePolicy"), errs);
    }
    if let Some(policy) = &spec.success_policy {
        let at = path.child("successPolicy");
        match (spec.completion_mode.as_deref(), spec.completions) {
            (Some("Indexed"), Some(completions)) => policy::validate_success(policy, completions, &at, errs),
            // That completions are missing was said.
            (Some("Indexed"), None) => {}
            _ => {
                let value = serde_json::to_value(policy).unwrap_or_default();
                errs.invalid(&at, value, "requires indexed completion mode");
            }
        }
    }
    let supported = if spec.pod_failure_policy.is_some() { &REPLACEMENTS[..1] } else { &REPLACEMENTS[..] };
    if let Some(policy) = spec.pod_replacement_policy.as_deref().filter(|p| !supported.contains(p)) {
        errs.not_supported(&path.child("podReplacementPolicy"), policy, supported);
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

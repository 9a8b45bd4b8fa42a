//! CronJob: a Job again and again, by the clock.
//!
//! # Source
//! Kubernetes `pkg/apis/batch/v1/defaults.go`, `pkg/apis/batch/validation/validation.go` (`ValidateCronJob*`),
//! `pkg/registry/batch/cronjob/strategy.go`, `pkg/printers/internalversion/printers.go` (`printCronJob`).

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, JobSpec};

use super::{job, schedule};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub, human_duration},
    kinds::{label_selector, pod},
};

/// Jobs get the name and eleven characters more, and must not be longer than 63.
const NAME_MAX: usize = 52;
const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];

impl Kind for CronJob {
    const NAMES: Names =
        Names::new("batch", "v1", "CronJob", "cronjobs", "cronjob").short(&["cj"]).categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Schedule", |c, _| Cell::from(c.spec.schedule.as_str())).field::<CronJobSpec>("schedule"),
        Column::<Self>::text("Timezone", |c, _| {
            Cell::from(c.spec.time_zone.clone().unwrap_or_else(|| "<none>".to_owned()))
        })
        .field::<CronJobSpec>("timeZone"),
        Column::<Self>::bool("Suspend", |c, _| {
            let suspend = c.spec.suspend.unwrap_or(false);
            Cell::from(if suspend { "True" } else { "False" })
        })
        .field::<CronJobSpec>("suspend"),
        Column::<Self>::int("Active", |c, _| {
            Cell::from(c.status.as_ref().and_then(|s| s.active.as_ref()).map_or(0, Vec::len))
        })
        .field::<CronJobStatus>("active"),
        Column::<Self>::text("Last Schedule", |c, now| Cell::from(last(c, now)))
            .field::<CronJobStatus>("lastScheduleTime"),
        Column::AGE,
        Column::<Self>::wide_text("Containers", |c, _| Cell::from(pod::template_containers(template(c))))
            .help("Names of each container in the template."),
        Column::<Self>::wide_text("Images", |c, _| Cell::from(pod::template_images(template(c))))
            .help("Images referenced by each container in the template."),
        Column::<Self>::wide_text("Selector", |c, _| {
            let job = c.spec.job_template.spec.as_ref();
            Cell::from(label_selector::shown(job.and_then(|j| j.selector.as_ref())))
        })
        .field::<JobSpec>("selector"),
    ];

    fn fill_defaults(&mut self) {
        let spec = &mut self.spec;
        pod::text_default(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        pod::fill_template_defaults(&mut spec.job_template.spec.get_or_insert_default().template);
    }

    crate::kind::status_apart!();
    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if name.len() > NAME_MAX {
            let detail = format!("must be no more than {NAME_MAX} characters");
            errs.invalid(&FieldPath::new("metadata").child("name"), name, &detail);
        }
        validate_spec(&self.spec, &FieldPath::new("spec"), errs);
    }
}

fn validate_spec(spec: &CronJobSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("schedule");
    if spec.schedule.is_empty() {
        errs.required(&at, "");
    } else if spec.schedule.contains("TZ") {
        errs.invalid(&at, spec.schedule.as_str(), "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Err(why) = schedule::check(&spec.schedule) {
        errs.invalid(&at, spec.schedule.as_str(), &why);
    }
    if let Some(zone) = &spec.time_zone {
        validate_zone(zone, &path.child("timeZone"), errs);
    }
    errs.non_negative(&path.child("startingDeadlineSeconds"), spec.starting_deadline_seconds.unwrap_or_default());
    match spec.concurrency_policy.as_deref().unwrap_or_default() {
        "" => errs.required(&path.child("concurrencyPolicy"), ""),
        policy if !POLICIES.contains(&policy) => {
            errs.not_supported(&path.child("concurrencyPolicy"), policy, &POLICIES);
        }
        _ => {}
    }
    let limits = [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ];
    for (field, limit) in limits {
        errs.non_negative(&path.child(field), i64::from(limit.unwrap_or_default()));
    }
    let at = path.child("jobTemplate").child("spec");
    let Some(job) = &spec.job_template.spec else { return errs.required(&at, "") };
    if job.manual_selector == Some(true) {
        errs.not_supported(&at.child("manualSelector"), "true", &["nil", "false"]);
    }
    if let Some(selector) = &job.selector {
        let value = serde_json::to_value(selector).unwrap_or_default();
        errs.invalid(&at.child("selector"), value, "`selector` will be auto-generated");
    }
    job::validate_spec(job, &at, errs);
}

/// Whether the zone has the form of a name of the time zone database. Which zones there are is known where they are used.
fn validate_zone(zone: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+');
    match zone {
        "" => errs.invalid(path, zone, "timeZone must be nil or non-empty string"),
        "Local" => errs.invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ),
        _ if !zone.chars().all(allowed) => errs.invalid(path, zone, &format!("unknown time zone {zone}")),
        _ => {}
    }
}

fn template(cron: &CronJob) -> Option<&k8s_openapi::api::core::v1::PodTemplateSpec> {
    Some(&cron.spec.job_template.spec.as_ref()?.template)
}

fn last(cron: &CronJob, now: Timestamp) -> String {
    match cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()) {
        Some(time) => human_duration(now.as_second() - time.0.as_second()),
        None => "<none>".to_owned(),
    }
}

//! CronJob: a Job again and again, by the clock.
//!
//! # Source
//! Kubernetes `pkg/apis/batch/v1/defaults.go`, `pkg/apis/batch/validation/validation.go` (`ValidateCronJob*`),
//! `pkg/registry/batch/cronjob/strategy.go`, `pkg/printers/internalversion/printers.go` (`printCronJob`).

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, JobSpec};

use super::{
    job,
    schedule::{Schedule, time_zone},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub, human_duration},
    kinds::{label_selector, pod},
};

/// Jobs get the name and eleven characters more, and must not be longer than 63.
const NAME_MAX: usize = 52;
const ZONE_PART_BYTES_MAX: usize = 14;
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
        validate_spec(&self.spec, &FieldPath::new("spec"), errs);
    }

    fn validate_create(&self, errs: &mut FieldErrors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if name.len() > NAME_MAX {
            let detail = format!("must be no more than {NAME_MAX} characters");
            errs.invalid(&FieldPath::new("metadata").child("name"), name, &detail);
        }
        refuse_zone_in_schedule(&self.spec, errs);
        if let Some(zone) = &self.spec.time_zone {
            validate_zone(zone, &FieldPath::new("spec").child("timeZone"), errs);
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        if !old.spec.schedule.contains("TZ") {
            refuse_zone_in_schedule(&self.spec, errs);
        } else if self.spec.schedule.contains("TZ") && self.spec.time_zone.is_some() {
            let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            errs.invalid(&FieldPath::new("spec").child("schedule"), self.spec.schedule.as_str(), detail);
        }
        if let Some(zone) = self.spec.time_zone.as_ref().filter(|_| self.spec.time_zone != old.spec.time_zone) {
            validate_zone(zone, &FieldPath::new("spec").child("timeZone"), errs);
        }
    }
}

/// CronJobs from before there was a field for it may keep the zone in their schedule.
fn refuse_zone_in_schedule(spec: &CronJobSpec, errs: &mut FieldErrors) {
    if spec.schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errs.invalid(&FieldPath::new("spec").child("schedule"), spec.schedule.as_str(), detail);
    }
}

fn validate_spec(spec: &CronJobSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("schedule");
    if spec.schedule.is_empty() {
        errs.required(&at, "");
    } else if let Err(why) = Schedule::parse(&spec.schedule) {
        errs.invalid(&at, spec.schedule.as_str(), &why);
    }
    errs.non_negative(&path.child("startingDeadlineSeconds"), spec.starting_deadline_seconds.unwrap_or_default());
    match spec.concurrency_policy.as_deref().unwrap_or_default() {
        "" => errs.required(&path.child("concurrencyPolicy"), ""),
        policy if !POLICIES.contains(&policy) => {
            errs.not_supported(&path.child("concurrencyPolicy"), policy, &POLICIES);
        }
        _ => {}
    }
    validate_job(spec, &path.child("jobTemplate").child("spec"), errs);
    let limits = [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ];
    for (field, limit) in limits {
        errs.non_negative(&path.child(field), i64::from(limit.unwrap_or_default()));
    }
}

/// The Jobs that are made get selectors of their own.
fn validate_job(spec: &CronJobSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(job) = &spec.job_template.spec else { return errs.required(path, "") };
    job::validate_spec(job, path, errs);
    if let Some(selector) = &job.selector {
        let value = serde_json::to_value(selector).unwrap_or_default();
        errs.invalid(&path.child("selector"), value, "`selector` will be auto-generated");
    }
    if job.manual_selector == Some(true) {
        errs.not_supported_value(&path.child("manualSelector"), true, &["nil", "false"]);
    }
}

/// Whether the zone is one of the IANA's: <https://data.iana.org/time-zones/theory.html#naming>.
fn validate_zone(zone: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if zone.is_empty() {
        return errs.invalid(path, zone, "timeZone must be nil or non-empty string");
    }
    let unknown = format!("unknown time zone {zone}");
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    let well_formed = |part: &str| {
        (1..=ZONE_PART_BYTES_MAX).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(allowed)
    };
    if !zone.split('/').all(well_formed) {
        return errs.invalid(path, zone, &unknown);
    }
    let local = zone.eq_ignore_ascii_case("Local");
    if local {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errs.invalid(path, zone, detail);
    }
    if time_zone(zone).is_none() {
        errs.invalid(path, zone, &unknown);
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

//! CronJob: a Job each time that its schedule says, under a name that follows from that time, so that none is made twice.
//!
//! The Job comes first, then the status names the time; a Job that shows without being in the status, since something
//! failed in between, is put there when seen.
//!
//! # Source
//! Kubernetes `pkg/controller/cronjob/cronjob_controllerv2.go`.

#[cfg(test)]
mod tests;
mod times;

use std::sync::Arc;

use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use podium_api::{
    ApiError, Kind as _, Object, ObjectKey, Reason, kind_of,
    kinds::{Schedule, time_zone},
};

use crate::{
    Action, Controller, EventNote, Key, Plan, Preconditions, Trigger, View, ViewExt,
    job::finished,
    owners::{controller_key, controller_ref, is_controlled_by},
};

/// Annotation: the time that a Job is of.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The controller of CronJobs.
pub struct CronJobs;

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn component(&self) -> &'static str {
        "cronjob-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        let of_job =
            |object: &dyn Object, _: &dyn View| controller_key(object.meta(), &CronJob::NAMES).into_iter().collect();
        vec![
            Trigger { kind: kind_of::<CronJob>(), keys: |object, _| vec![Key::of(object)] },
            Trigger { kind: kind_of::<Job>(), keys: of_job },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if let Some(cron) = view.get_as::<CronJob>(&key.object) {
            look(&cron, view, now, true, &mut plan);
        }
        plan
    }

    fn refused(&self, key: &Key, error: &ApiError, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let in_terminating_namespace = error.message.contains("because it is being terminated");
        if error.reason == Reason::AlreadyExists || in_terminating_namespace {
            return plan;
        }
        if let Some(cron) = view.get_as::<CronJob>(&key.object) {
            let message = format!("Error creating job: {error}");
            plan.push(Action::Event(EventNote::warning(&*cron, "FailedCreate", message)));
            look(&cron, view, now, false, &mut plan);
        }
        plan
    }
}

/// Plans for a CronJob. Jobs are made only when asked for.
fn look(cron: &CronJob, view: &dyn View, now: Timestamp, start: bool, plan: &mut Plan) {
    let uid = cron.metadata.uid.as_deref().unwrap_or_default();
    let mut jobs = view.owned_as::<Job>(uid);
    jobs.retain(|job| is_controlled_by(&job.metadata, uid));
    jobs.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let status = cron.status.clone().unwrap_or_default();
    let mut look = Look { cron, jobs, status, view, now, plan, told: Vec::new() };
    look.see_jobs();
    look.see_missing();
    look.clean_up();
    if start {
        look.start_what_is_due();
    }
    look.write();
}

/// One look at a CronJob.
struct Look<'a> {
    cron: &'a CronJob,
    /// By name.
    jobs: Vec<Arc<Job>>,
    /// As it is to be.
    status: CronJobStatus,
    view: &'a dyn View,
    now: Timestamp,
    plan: &'a mut Plan,
    /// What to tell once the status is written.
    told: Vec<Action>,
}

impl Look<'_> {
    fn warn(&mut self, reason: &str, message: String) {
        self.told.push(Action::Event(EventNote::warning(self.cron, reason, message)));
    }

    fn tell(&mut self, reason: &str, message: String) {
        self.told.push(Action::Event(EventNote::normal(self.cron, reason, message)));
    }

    fn is_listed(&self, uid: Option<&str>) -> bool {
        self.status.active.iter().flatten().any(|active| active.uid.as_deref() == uid)
    }

    fn unlist(&mut self, uid: Option<&str>) {
        if let Some(active) = &mut self.status.active {
            active.retain(|job| job.uid.as_deref() != uid);
        }
    }

    /// Deletes a Job with its pods.
    fn delete(&mut self, job: &Job) {
        self.plan.push(Action::Delete {
            kind: kind_of::<Job>(),
            key: ObjectKey::of(&job.metadata),
            preconditions: Preconditions { uid: job.metadata.uid.clone(), resource_version: None },
            propagation: Some("Background"),
            grace_seconds: None,
        });
        self.unlist(job.metadata.uid.as_deref());
        self.tell("SuccessfulDelete", format!("Deleted job {}", name_of(&job.metadata)));
    }

    /// Finished Jobs beyond what shall be kept go, the oldest first.
    fn clean_up(&mut self) {
        let spec = &self.cron.spec;
        let limits = [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
        for (ending, limit) in limits {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let is_meant = |job: &&Arc<Job>| {
                job.metadata.deletion_timestamp.is_none()
                    && finished(job).is_some_and(|c| c.type_ == ending)
                    && self.is_written(job)
            };
            let mut ended: Vec<Arc<Job>> = self.jobs.iter().filter(is_meant).cloned().collect();
            let started = |job: &Job| job.status.as_ref().and_then(|s| Some(s.start_time.as_ref()?.0));
            ended.sort_by_key(|job| (started(job).is_none(), started(job), job.metadata.name.clone()));
            ended.truncate(ended.len().saturating_sub(limit));
            ended.iter().for_each(|job| self.delete(job));
        }
    }

    /// Whether the status names the time of a Job: as long as it does not, the Job itself keeps it from being made again.
    fn is_written(&self, job: &Job) -> bool {
        let last = self.cron.status.as_ref().and_then(|s| Some(s.last_schedule_time.as_ref()?.0));
        self.scheduled_for(job).is_none_or(|time| last.is_some_and(|last| time <= last))
    }

    /// Keeps the list of Jobs that run, and when the last success was.
    fn see_jobs(&mut self) {
        for job in self.jobs.clone() {
            let (uid, name) = (job.metadata.uid.as_deref(), name_of(&job.metadata));
            match (finished(&job), self.is_listed(uid)) {
                (None, true) => {}
                (None, false) => match self.scheduled_for(&job) {
                    Some(time) => self.list(&job, time),
                    None => {
                        self.warn(
                            "UnexpectedJob",
                            format!("Saw a job that the controller did not create or forgot: {name}"),
                        );
                    }
                },
                (Some(condition), listed) => {
                    if listed {
                        let ending = &condition.type_;
                        self.unlist(uid);
                        self.tell("SawCompletedJob", format!("Saw completed job: {name}, condition: {ending}"));
                    }
                    if let Some(time) = self.scheduled_for(&job) {
                        self.see_time(time);
                    }
                    let completed = job.status.as_ref().and_then(|s| s.completion_time.clone());
                    if condition.type_ == "Complete" && completed > self.status.last_successful_time {
                        self.status.last_successful_time = completed;
                    }
                }
            }
        }
    }

    /// The time that a Job is of, when it was made by this CronJob.
    fn scheduled_for(&self, job: &Job) -> Option<Timestamp> {
        let time: Timestamp = job.metadata.annotations.as_ref()?.get(SCHEDULED)?.parse().ok()?;
        (self.job_name(time) == name_of(&job.metadata)).then_some(time)
    }

    fn list(&mut self, job: &Job, time: Timestamp) {
        let meta = &job.metadata;
        self.status.active.get_or_insert_default().push(ObjectReference {
            api_version: Some(Job::NAMES.api_version().into_owned()),
            kind: Some(Job::NAMES.kind.to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        });
        self.see_time(time);
    }

    fn see_time(&mut self, time: Timestamp) {
        if self.status.last_schedule_time.as_ref().is_none_or(|last| last.0 < time) {
            self.status.last_schedule_time = Some(Time(time));
        }
    }

    /// Takes off the list what is gone.
    fn see_missing(&mut self) {
        let is_there = |uid: Option<&str>| self.jobs.iter().any(|job| job.metadata.uid.as_deref() == uid);
        let missing: Vec<ObjectReference> =
            self.status.active.iter().flatten().filter(|active| !is_there(active.uid.as_deref())).cloned().collect();
        let cron: &dyn Object = self.cron;
        if missing.is_empty() {
            return;
        }
        if self.view.revision(&Job::NAMES) < cron.revision() {
            // They may just not have been heard of.
            return self.plan.requeue_in(1);
        }
        for job in missing {
            self.unlist(job.uid.as_deref());
            self.tell("MissingJob", format!("Active job went missing: {}", job.name.unwrap_or_default()));
        }
    }

    /// The schedule, unless there is none to go by; why not is told.
    fn schedule(&mut self) -> Option<Schedule> {
        let spec = &self.cron.spec;
        if let Some(zone) = spec.time_zone.as_deref().filter(|zone| time_zone(zone).is_none()) {
            let message = format!("invalid timeZone: {zone:?}: unknown time zone {zone}");
            self.warn("UnknownTimeZone", message);
            return None;
        }
        if spec.suspend == Some(true) {
            return None;
        }
        let text = match &spec.time_zone {
            _ if spec.schedule.contains("TZ") => {
                let message = format!(
                    "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
                     https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                    spec.schedule
                );
                self.warn("UnsupportedSchedule", message);
                spec.schedule.clone()
            }
            Some(zone) => format!("TZ={zone} {}", spec.schedule),
            None => spec.schedule.clone(),
        };
        match Schedule::parse(&text) {
            Ok(schedule) => Some(schedule),
            Err(why) => {
                self.warn("UnparseableSchedule", format!("unparseable schedule: {:?} : {why}", spec.schedule));
                None
            }
        }
    }

    fn start_what_is_due(&mut self) {
        if self.cron.metadata.deletion_timestamp.is_some() {
            return;
        }
        let Some(schedule) = self.schedule() else { return };
        match times::passed(self.cron, &schedule, self.now, true) {
            Err(why) => {
                self.warn("InvalidSchedule", format!("invalid schedule: {} : {why}", self.cron.spec.schedule));
                return;
            }
            Ok(passed) => {
                if passed.latest.is_some() && passed.are_too_many() {
                    let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check \
                                   clock skew";
                    self.warn("TooManyMissedTimes", message.to_owned());
                }
                if let Some(time) = passed.latest.filter(|time| self.may_start(*time)) {
                    self.start(time);
                }
            }
        }
        if let Some(at) = times::next(self.cron, &schedule, self.now) {
            self.plan.requeue_at(at, self.now);
        }
    }

    /// Whether the Job of a time is to be made now; what speaks against it is told.
    fn may_start(&mut self, time: Timestamp) -> bool {
        let spec = &self.cron.spec;
        let age = self.now.duration_since(time);
        if spec.starting_deadline_seconds.is_some_and(|deadline| age > jiff::SignedDuration::from_secs(deadline)) {
            let when = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
            self.warn("MissSchedule", format!("Missed scheduled time to start a job: {when}"));
            return false;
        }
        let name = self.job_name(time);
        let listed = self.status.active.iter().flatten().any(|job| job.name.as_deref() == Some(name.as_str()));
        if listed || self.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == time) {
            return false;
        }
        let busy = self.status.active.iter().flatten().next().is_some();
        if spec.concurrency_policy.as_deref() == Some("Forbid") && busy {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.tell("JobAlreadyActive", message.to_owned());
            return false;
        }
        true
    }

    fn start(&mut self, time: Timestamp) {
        if self.cron.spec.concurrency_policy.as_deref() == Some("Replace") {
            let doomed: Vec<Arc<Job>> =
                self.jobs.iter().filter(|job| self.is_listed(job.metadata.uid.as_deref())).cloned().collect();
            doomed.iter().for_each(|job| self.delete(job));
        }
        let name = self.job_name(time);
        let key = ObjectKey::new(self.cron.metadata.namespace.clone().unwrap_or_default(), name.as_str());
        let uid = self.cron.metadata.uid.as_deref().unwrap_or_default();
        match self.view.get_as::<Job>(&key) {
            // Made by somebody else, who will see to it.
            Some(job) if !is_controlled_by(&job.metadata, uid) => return,
            // Made before, and over by now.
            Some(_) => {}
            None => {
                let event = EventNote::normal(self.cron, "SuccessfulCreate", "Created job ");
                self.plan.push(Action::CreateAndTell(Box::new(self.job(name, time)), event));
            }
        }
        // The Job itself is put on the list when it shows.
        self.see_time(time);
    }

    fn job_name(&self, time: Timestamp) -> String {
        format!("{}-{}", name_of(&self.cron.metadata), time.as_second() / 60)
    }

    fn job(&self, name: String, time: Timestamp) -> Job {
        let template = &self.cron.spec.job_template;
        let given = template.metadata.clone().unwrap_or_default();
        let zone = self.cron.spec.time_zone.as_deref().and_then(time_zone).unwrap_or(TimeZone::UTC);
        let mut annotations = given.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED.to_owned(), shown(time, zone));
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: self.cron.metadata.namespace.clone(),
            labels: given.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(self.cron)]),
            ..ObjectMeta::default()
        };
        Job { metadata, spec: template.spec.clone(), status: None }
    }

    fn write(self) {
        let mut status = self.status;
        status.active = status.active.filter(|active| !active.is_empty());
        if status != self.cron.status.clone().unwrap_or_default() {
            self.plan.push(Action::UpdateStatus(Box::new(CronJob { status: Some(status), ..self.cron.clone() })));
        }
        self.plan.actions.extend(self.told);
    }
}

fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// RFC 3339 by the clock of a zone.
fn shown(time: Timestamp, zone: TimeZone) -> String {
    let zoned = time.to_zoned(zone);
    let end = if zoned.offset().is_zero() { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    format!("{}{end}", zoned.strftime("%Y-%m-%dT%H:%M:%S"))
}

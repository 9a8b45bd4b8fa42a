//! Which times of a schedule have passed without a Job, and when to look again.
//!
//! # Source
//! Kubernetes `pkg/controller/cronjob/utils.go`, `cronjob_controllerv2.go` (`nextScheduleTimeDuration`).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use podium_api::kinds::Schedule;

/// So much later than due the schedule is looked at, lest a clock that runs slow finds nothing to do.
const DELTA: SignedDuration = SignedDuration::from_millis(100);
/// Users are told of more than this many.
const MISSED_MAX: i64 = 100;

/// What has passed since the last time that was seen to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    earliest: Timestamp,
    /// The last time that has passed.
    pub(super) latest: Option<Timestamp>,
    missed: i64,
}

impl Passed {
    /// More than anybody wants to be told of one by one.
    pub(super) fn are_too_many(&self) -> bool {
        self.missed > MISSED_MAX
    }

    fn nothing(earliest: Timestamp) -> Self {
        Self { earliest, latest: None, missed: 0 }
    }
}

/// What has passed; with `within_deadline` only what may still be started.
///
/// # Errors
/// A schedule that never comes.
pub(super) fn passed(
    cron: &CronJob,
    schedule: &Schedule,
    now: Timestamp,
    within_deadline: bool,
) -> Result<Passed, String> {
    let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref());
    let mut earliest = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |t| t.0);
    if let Some(seconds) = cron.spec.starting_deadline_seconds.filter(|_| within_deadline) {
        let deadline = now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
        earliest = earliest.max(deadline);
    }
    let never = || "time difference between two schedules is less than 1 second".to_owned();
    let first = schedule.next(earliest).ok_or_else(never)?;
    let second = schedule.next(first).ok_or_else(never)?;
    if now < first {
        return Ok(Passed::nothing(earliest));
    }
    if now < second {
        return Ok(Passed { latest: Some(first), ..Passed::nothing(earliest) });
    }
    let between = second.as_second() - first.as_second();
    if between < 1 {
        return Err(never());
    }
    let missed = (now.as_second() - first.as_second()) / between + 1;
    // Close to the end, yet in step with schedules that have no fixed times.
    let near = SignedDuration::from_secs((missed - 2) * between);
    let mut latest = None;
    let mut at = schedule.next(first.checked_add(near).map_err(|_| never())?);
    while let Some(time) = at.filter(|time| *time <= now) {
        latest = Some(time);
        at = schedule.next(time);
    }
    Ok(Passed { earliest, latest, missed })
}

/// When to look again.
pub(super) fn next(cron: &CronJob, schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    let after = match passed(cron, schedule, now, false) {
        Ok(Passed { latest: Some(latest), .. }) => latest,
        Ok(Passed { earliest, missed: 0, .. }) => earliest,
        _ => now,
    };
    schedule.next(after)?.checked_add(DELTA).ok()
}

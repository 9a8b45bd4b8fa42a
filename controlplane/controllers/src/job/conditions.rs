//! The conditions of a Job.

use jiff::Timestamp;
use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

/// Why a Job ends, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) succeeds: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Outcome {
    pub(super) fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeds: true, reason: reason.to_owned(), message: message.into() }
    }

    pub(super) fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeds: false, reason: reason.to_owned(), message: message.into() }
    }

    /// What was decided before.
    pub(super) fn known(status: &JobStatus) -> Option<Self> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let of = |succeeds, c: &JobCondition| Self { succeeds, reason: text(&c.reason), message: text(&c.message) };
        find(status, "SuccessCriteriaMet")
            .map(|c| of(true, c))
            .or_else(|| find(status, "FailureTarget").map(|c| of(false, c)))
    }

    /// The condition that announces it, before the last pods are gone.
    pub(super) fn announced(&self, now: Timestamp) -> JobCondition {
        let kind = if self.succeeds { "SuccessCriteriaMet" } else { "FailureTarget" };
        condition(kind, "True", &self.reason, &self.message, now)
    }

    /// The condition that ends the Job.
    pub(super) fn terminal(&self, now: Timestamp) -> JobCondition {
        let kind = if self.succeeds { "Complete" } else { "Failed" };
        condition(kind, "True", &self.reason, &self.message, now)
    }
}

pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
        message: Some(message.to_owned()).filter(|m| !m.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// A condition that is true.
fn find<'s>(status: &'s JobStatus, kind: &str) -> Option<&'s JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// `Complete` or `Failed`, with when that was said.
pub(crate) fn finished(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    find(status, "Complete").or_else(|| find(status, "Failed"))
}

/// Puts a condition in its place; whether that changed anything. What was never true is not said to be false.
pub(super) fn set(status: &mut JobStatus, wanted: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let changed = match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(known)
            if (&known.status, &known.reason, &known.message) == (&wanted.status, &wanted.reason, &wanted.message) =>
        {
            false
        }
        Some(known) => {
            *known = wanted;
            true
        }
        None if wanted.status == "False" => false,
        None => {
            conditions.push(wanted);
            true
        }
    };
    if conditions.is_empty() {
        status.conditions = None;
    }
    changed
}

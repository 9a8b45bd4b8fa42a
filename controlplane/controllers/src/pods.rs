//! What a pod's status says: active, ready, available.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

const DISRUPTION: &str = "DisruptionTarget";

/// `status.phase`; empty when unset.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether it has ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither ended nor on its way out.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// On its way out, but not ended.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// Its condition `Ready`.
pub(crate) fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")
}

/// Whether its condition `Ready` is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|c| c.status == "True")
}

/// Since when it is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    ready_condition(pod).filter(|c| c.status == "True")?.last_transition_time.as_ref().map(|t| t.0)
}

/// Seconds until a ready pod counts as available: it has to stay ready for `min_ready_seconds`. `None`: not ready.
pub(crate) fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<i64> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(0);
    }
    let since = ready_since(pod)?;
    Some((i64::from(min_ready_seconds) - (now.as_second() - since.as_second())).max(0))
}

/// Why somebody other than its owner ends a pod.
pub(crate) fn disruption(reason: &str, message: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: DISRUPTION.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

/// A pod's status with that; `None` when it says so already.
pub(crate) fn with_disruption(pod: &Pod, condition: PodCondition) -> Option<PodStatus> {
    let mut status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|c| c.type_ == DISRUPTION && c.status == "True" && c.reason == condition.reason) {
        return None;
    }
    conditions.retain(|c| c.type_ != DISRUPTION);
    conditions.push(condition);
    Some(status)
}

/// Why a pod that is still to live was said to go. What its own node says of it holds, however long it takes.
pub(crate) fn standing_disruption(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let said = conditions.find(|c| c.type_ == DISRUPTION && c.status == "True")?;
    (is_active(pod) && said.reason.as_deref() != Some("TerminationByKubelet")).then_some(said)
}

/// A pod's status that says that it is not to go after all.
pub(crate) fn without_disruption(pod: &Pod, now: Timestamp) -> PodStatus {
    let mut status = pod.status.clone().unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten().filter(|c| c.type_ == DISRUPTION) {
        *condition = PodCondition {
            type_: DISRUPTION.to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(Time(now)),
            ..PodCondition::default()
        };
    }
    status
}

/// `spec.nodeName`; empty when it has none yet.
pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

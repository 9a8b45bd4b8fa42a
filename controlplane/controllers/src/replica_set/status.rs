//! What the status says of the pods.

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::selector::Selector;

use super::{Pods, replicated::Replicated};
use crate::{
    Action, Plan,
    pods::{available_in, is_ready},
};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Counts the active pods and, when the counts changed, writes them. Comes last in a plan: what was refused before keeps
/// the condition `ReplicaFailure` in place.
pub(super) fn update<R: Replicated>(rs: &R, pods: &Pods, now: Timestamp, plan: &mut Plan) {
    let min_ready_seconds = rs.min_ready_seconds();
    let available_in: Vec<i64> =
        pods.active.iter().filter_map(|pod| available_in(pod, min_ready_seconds, now)).collect();
    if let Some(next) = available_in.iter().filter(|seconds| **seconds > 0).min() {
        plan.requeue_in(*next);
    }
    let mut status = counted(rs, pods, available_in.iter().filter(|seconds| **seconds == 0).count());
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != REPLICA_FAILURE);
    }
    status.conditions = status.conditions.filter(|c| !c.is_empty());
    write(rs, status, plan);
}

fn counted<R: Replicated>(rs: &R, pods: &Pods, available: usize) -> ReplicaSetStatus {
    let labels = template_labels(rs);
    let mut status = rs.status().unwrap_or_default();
    let active = || pods.active.iter();
    status.replicas = count(pods.active.len());
    status.fully_labeled_replicas =
        nonzero(active().filter(|p| labels.matches_option(p.metadata.labels.as_ref())).count());
    status.ready_replicas = nonzero(active().filter(|p| is_ready(p)).count());
    status.available_replicas = nonzero(available);
    // Zero is told too: it is how those who sum up know that this was counted at all.
    status.terminating_replicas = R::TELLS_TERMINATING.then(|| count(pods.terminating));
    status.observed_generation = rs.metadata().generation;
    status
}

/// Says that pods could not be created or deleted and why, and how many there are all the same.
pub(super) fn failed<R: Replicated>(
    rs: &R,
    pods: &Pods,
    (reason, why): (&str, String),
    now: Timestamp,
    plan: &mut Plan,
) {
    let available = pods.active.iter().filter(|pod| available_in(pod, rs.min_ready_seconds(), now) == Some(0)).count();
    let mut status = counted(rs, pods, available);
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|c| c.type_ == REPLICA_FAILURE && c.status == "True") {
        return write(rs, status, plan);
    }
    conditions.retain(|c| c.type_ != REPLICA_FAILURE);
    conditions.push(ReplicaSetCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(why),
        last_transition_time: Some(Time(now)),
    });
    write(rs, status, plan);
}

fn write<R: Replicated>(rs: &R, status: ReplicaSetStatus, plan: &mut Plan) {
    if rs.status().as_ref() != Some(&status) {
        plan.push(Action::UpdateStatus(Box::new(rs.with_status(status))));
    }
}

fn template_labels<R: Replicated>(rs: &R) -> Selector {
    let labels = rs.template().and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    labels.map(Selector::from_labels).unwrap_or_else(Selector::everything)
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// Zero counts are left out, as in Kubernetes.
fn nonzero(pods: usize) -> Option<i32> {
    Some(count(pods)).filter(|n| *n > 0)
}

//! What a ReplicaSet's status says of its pods.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::{ApiError, selector::Selector};

use crate::{
    Action, Plan,
    pods::{available_in, is_ready},
};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Counts the active pods and, when the counts changed, writes them. Comes last in a plan: what was refused before keeps
/// the condition `ReplicaFailure` in place.
pub(super) fn update(rs: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    let min_ready_seconds = rs.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let available_in: Vec<i64> = pods.iter().filter_map(|pod| available_in(pod, min_ready_seconds, now)).collect();
    if let Some(next) = available_in.iter().filter(|seconds| **seconds > 0).min() {
        plan.requeue_in(*next);
    }
    let labels = template_labels(rs);
    let mut status = rs.status.clone().unwrap_or_default();
    status.replicas = count(pods.len());
    status.fully_labeled_replicas =
        nonzero(pods.iter().filter(|p| labels.matches_option(p.metadata.labels.as_ref())).count());
    status.ready_replicas = nonzero(pods.iter().filter(|p| is_ready(p)).count());
    status.available_replicas = nonzero(available_in.iter().filter(|seconds| **seconds == 0).count());
    status.observed_generation = rs.metadata.generation;
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != REPLICA_FAILURE);
    }
    status.conditions = status.conditions.filter(|c| !c.is_empty());
    write(rs, status, plan);
}

/// Says that pods could not be created.
pub(super) fn failed(rs: &ReplicaSet, error: &ApiError, now: Timestamp, plan: &mut Plan) {
    let mut status = rs.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|c| c.type_ == REPLICA_FAILURE && c.status == "True") {
        return;
    }
    conditions.retain(|c| c.type_ != REPLICA_FAILURE);
    conditions.push(ReplicaSetCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: "True".to_owned(),
        reason: Some("FailedCreate".to_owned()),
        message: Some(error.message.clone()),
        last_transition_time: Some(Time(now)),
    });
    write(rs, status, plan);
}

fn write(rs: &ReplicaSet, status: ReplicaSetStatus, plan: &mut Plan) {
    if rs.status.as_ref() != Some(&status) {
        plan.push(Action::UpdateStatus(Box::new(ReplicaSet { status: Some(status), ..rs.clone() })));
    }
}

fn template_labels(rs: &ReplicaSet) -> Selector {
    let template = rs.spec.as_ref().and_then(|s| s.template.as_ref());
    let labels = template.and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    labels.map(Selector::from_labels).unwrap_or_else(Selector::everything)
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// Zero counts are left out, as in Kubernetes.
fn nonzero(pods: usize) -> Option<i32> {
    Some(count(pods)).filter(|n| *n > 0)
}

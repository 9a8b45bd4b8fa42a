//! What ReplicaSets and ReplicationControllers have in common. A status is told as that of a ReplicaSet.

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus},
};
use podium_api::{Kind, selector::Selector};

/// A kind that keeps a number of pods of one template.
pub(crate) trait Replicated: Kind + Clone {
    /// Whether its status counts the pods that are on their way out.
    const TELLS_TERMINATING: bool;
    /// Which pods are its own; `None` when that cannot be read.
    fn selector(&self) -> Option<Selector>;
    /// How many it wants.
    fn wanted(&self) -> i32;
    /// For how long a pod has to be ready before it counts as available.
    fn min_ready_seconds(&self) -> i32;
    /// What its pods are made from.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// What was last said of its pods.
    fn status(&self) -> Option<ReplicaSetStatus>;
    /// The same with another status.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    const TELLS_TERMINATING: bool = true;

    fn selector(&self) -> Option<Selector> {
        Selector::from_label_selector(Some(&self.spec.as_ref()?.selector)).ok()
    }

    fn wanted(&self) -> i32 {
        super::wanted(self)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Option<ReplicaSetStatus> {
        self.status.clone()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    const TELLS_TERMINATING: bool = false;

    fn selector(&self) -> Option<Selector> {
        self.spec.as_ref()?.selector.as_ref().map(Selector::from_labels)
    }

    fn wanted(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Option<ReplicaSetStatus> {
        let known = self.status.clone()?;
        let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        Some(ReplicaSetStatus {
            available_replicas: known.available_replicas,
            conditions: known.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: known.fully_labeled_replicas,
            observed_generation: known.observed_generation,
            ready_replicas: known.ready_replicas,
            replicas: known.replicas,
            ..ReplicaSetStatus::default()
        })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let condition = |c: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        let status = ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        };
        Self { status: Some(status), ..self.clone() }
    }
}

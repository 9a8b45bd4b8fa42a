//! What the status says of nodes and pods.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetStatus},
    core::v1::Pod,
};

use super::{Work, rollout::is_new};
use crate::{
    Action, Plan,
    pods::{available_in, is_ready},
};

impl Work<'_> {
    /// Counts the nodes, each by the pod that it has had for longest, and writes what has changed.
    pub(super) fn report(&self, plan: &mut Plan) {
        let min_ready_seconds = self.spec.min_ready_seconds.unwrap_or(0);
        let should_run = self.nodes.iter().filter(|(_, placement)| placement.runs);
        let desired = should_run.clone().count();
        let first: Vec<&Arc<Pod>> = should_run.filter_map(|(node, _)| self.pods_on(node).first()).collect();
        let misplaced = self.nodes.iter().filter(|(node, p)| !p.runs && !self.pods_on(node).is_empty()).count();
        let waits = self.pods.values().flatten().filter_map(|pod| available_in(pod, min_ready_seconds, self.now));
        if let Some(next) = waits.filter(|seconds| *seconds > 0).min() {
            plan.requeue_in(next);
        }
        let that = |holds: &dyn Fn(&Pod) -> bool| count(first.iter().filter(|pod| holds(pod)).count());
        let available = that(&|pod| self.is_available(pod));
        let known = self.set.status.clone().unwrap_or_default();
        let status = DaemonSetStatus {
            collision_count: known.collision_count,
            conditions: known.conditions.clone(),
            current_number_scheduled: count(first.len()),
            desired_number_scheduled: count(desired),
            number_available: nonzero(available),
            number_misscheduled: count(misplaced),
            number_ready: that(&|pod| is_ready(pod)),
            number_unavailable: nonzero(count(desired) - available),
            observed_generation: self.set.metadata.generation,
            updated_number_scheduled: nonzero(that(&|pod| is_new(pod, self.hash))),
        };
        if status != known {
            let set = DaemonSet { status: Some(status), ..self.set.clone() };
            plan.push(Action::UpdateStatus(Box::new(set)));
        }
    }
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// Kubernetes leaves zeros out.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

//! What the status says of the pods.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetStatus},
    core::v1::Pod,
};

use super::{Work, replicas::is_running_and_ready};
use crate::{
    Action, Plan,
    controller_history::{REVISION_HASH, label},
    pods::available_in,
};

impl Work<'_> {
    /// Counts the pods as they were seen (less the `updated` ones that this plan deletes) and writes what has changed.
    pub(super) fn report(&self, pods: &[Arc<Pod>], updated: i32, plan: &mut Plan) {
        let min_ready_seconds = self.spec.min_ready_seconds.unwrap_or(0);
        let ready: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_running_and_ready(pod)).collect();
        let waits = ready.iter().filter_map(|pod| available_in(pod, min_ready_seconds, self.now));
        if let Some(next) = waits.filter(|seconds| *seconds > 0).min() {
            plan.requeue_in(next);
        }
        let at = |version: &str| {
            let alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            count(alive.filter(|pod| label(&pod.metadata, REVISION_HASH) == version).count())
        };
        let (current, update) = (&self.versions.current.name, &self.versions.update.name);
        let known = self.set.status.clone().unwrap_or_default();
        let mut status = StatefulSetStatus {
            available_replicas: Some(count(ready.iter().filter(|pod| self.is_available(pod)).count())),
            collision_count: Some(self.versions.collisions),
            conditions: known.conditions.clone(),
            current_replicas: nonzero((at(current) - updated).max(0)),
            current_revision: Some(current.clone()),
            observed_generation: self.set.metadata.generation,
            ready_replicas: nonzero(count(ready.len())),
            replicas: count(pods.len()),
            update_revision: Some(update.clone()),
            updated_replicas: nonzero(at(update)),
        };
        self.complete(&mut status);
        if status != known {
            let set = StatefulSet { status: Some(status), ..self.set.clone() };
            plan.push(Action::UpdateStatus(Box::new(set)));
        }
    }

    /// When every pod is new and ready, what was new is what is.
    fn complete(&self, status: &mut StatefulSetStatus) {
        let rolls = self.spec.update_strategy.as_ref().is_none_or(|s| s.type_.as_deref() != Some("OnDelete"));
        let wanted = self.spec.replicas.unwrap_or(1);
        let all = [status.updated_replicas.unwrap_or(0), status.ready_replicas.unwrap_or(0), status.replicas];
        if rolls && all.iter().all(|count| *count == wanted) {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
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

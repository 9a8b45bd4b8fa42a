//! Which pods go first when there are too many: those that are missed least.
//!
//! # Source
//! Kubernetes `pkg/controller/controller_utils.go`, `ActivePodsWithRanks`.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::replicated::Replicated;
use crate::{
    View, ViewExt,
    owners::controller_of,
    pods::{is_active, is_ready, node_name, phase, ready_since},
};

/// Annotation that says how much a pod's deletion costs; less goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete.
pub(super) fn victims<'p, R: Replicated>(
    rs: &R,
    pods: &'p [Arc<Pod>],
    count: usize,
    view: &dyn View,
    now: Timestamp,
) -> Vec<&'p Arc<Pod>> {
    let crowd = crowd(rs, pods, view);
    let mut ranked: Vec<_> = pods.iter().collect();
    ranked.sort_by_cached_key(|pod| rank(pod, crowd.get(node_name(pod)).copied().unwrap_or(0), now));
    ranked.truncate(count);
    ranked
}

/// Lower goes first. In order: without a node, not yet running, not ready, cheap, on a node with many of its kind,
/// ready for a shorter time, restarted more often, younger; the name last, so that the order is always the same.
type Rank = (bool, u8, bool, i32, Reverse<usize>, Reverse<i64>, Reverse<i32>, Reverse<i64>, String);

fn rank(pod: &Pod, neighbours: usize, now: Timestamp) -> Rank {
    let running = match phase(pod) {
        "" | "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let meta = &pod.metadata;
    let cost = meta.annotations.as_ref().and_then(|a| a.get(DELETION_COST)?.parse().ok()).unwrap_or(0);
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let created = meta.creation_timestamp.as_ref().map_or(now, |t| t.0);
    (
        !node_name(pod).is_empty(),
        running,
        is_ready(pod),
        cost,
        Reverse(neighbours),
        Reverse(ready_since(pod).unwrap_or(now).as_second()),
        Reverse(statuses.map(|s| s.restart_count).max().unwrap_or(0)),
        Reverse(created.as_second()),
        meta.name.clone().unwrap_or_default(),
    )
}

/// How many active pods of the same owner's ReplicaSets each node has.
fn crowd<R: Replicated>(rs: &R, pods: &[Arc<Pod>], view: &dyn View) -> HashMap<String, usize> {
    let mut crowd = HashMap::new();
    let siblings = controller_of(rs.metadata()).map(|o| view.owned_as::<R>(&o.uid)).unwrap_or_default();
    let own = rs.metadata().uid.as_deref();
    let uids = siblings.iter().filter_map(|s| s.metadata().uid.as_deref()).filter(|u| own != Some(u));
    let others = uids.flat_map(|uid| view.owned_as::<Pod>(uid));
    for pod in others.filter(|p| is_active(p)).chain(pods.iter().cloned()) {
        *crowd.entry(node_name(&pod).to_owned()).or_default() += 1;
    }
    crowd
}

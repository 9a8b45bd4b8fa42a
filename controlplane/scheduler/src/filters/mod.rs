//! The filters: where a pod cannot go. One file each.

mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;
mod topology_spread;
mod volume_binding;
mod volume_limits;
mod volume_restrictions;
mod volume_zone;

pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub(crate) use node_affinity::{affinity_matches, selector_matches, term_matches};
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_unschedulable::NodeUnschedulable;
pub use resources_fit::NodeResourcesFit;
pub use taint_toleration::TaintToleration;
pub(crate) use taint_toleration::{honors_all_taints, tolerates, tolerates_all};
pub use topology_spread::PodTopologySpread;
pub(crate) use topology_spread::domain_counts;
pub use volume_binding::VolumeBinding;
pub(crate) use volume_binding::unbound_claims;
pub use volume_limits::NodeVolumeLimits;
pub use volume_restrictions::VolumeRestrictions;
pub use volume_zone::VolumeZone;

use crate::{change::Changes, node::NodeInfo, pod::PodInfo};

/// What would have to change about a node for it to take a pod if nothing else ran there: what other pods do not change.
/// Empty: nothing. `None`: it can never take this pod.
pub(crate) fn lacks(pod: &PodInfo, node: &NodeInfo) -> Option<Changes> {
    if !pod.node_name.is_empty() && *pod.node_name != *node.name {
        return None;
    }
    let met = [
        (Changes::NODE_UNSCHEDULABLE, !node.unschedulable || node_unschedulable::tolerated(pod)),
        (Changes::NODE_TAINTS, tolerates_all(pod, node)),
        (Changes::NODE_LABELS, affinity_matches(pod, node)),
        (
            Changes::NODE_ALLOCATABLE,
            resources_fit::shortage(&pod.requests, &node.allocatable, &Default::default()).0 == 0,
        ),
    ];
    Some(met.into_iter().filter(|(_, met)| !met).fold(Changes::NONE, |all, (change, _)| all | change))
}

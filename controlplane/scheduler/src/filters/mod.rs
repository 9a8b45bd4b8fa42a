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
pub use volume_restrictions::VolumeRestrictions;
pub use volume_zone::VolumeZone;

use crate::{node::NodeInfo, pod::PodInfo};

/// Whether a node could take a pod if nothing else ran there: what other pods do not change.
pub(crate) fn suits(pod: &PodInfo, node: &NodeInfo) -> bool {
    (pod.node_name.is_empty() || *pod.node_name == *node.name)
        && (!node.unschedulable || node_unschedulable::tolerated(pod))
        && tolerates_all(pod, node)
        && affinity_matches(pod, node)
        && resources_fit::shortage(&pod.requests, &node.allocatable, &Default::default()).0 == 0
}

//! The scores: where a pod had better go. One file each.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod preferred_taints;
mod resources;
mod topology_spread;

pub use balanced_allocation::BalancedAllocation;
pub use image_locality::ImageLocality;
pub use inter_pod_affinity::PreferredPods;
pub use node_affinity::PreferredNodes;
pub use preferred_taints::PreferredTaints;
pub use resources::{Allocated, Strategy, WeightedResource};
pub use topology_spread::EvenSpread;

//! The scores: where a pod had better go. One file each.

mod balanced_allocation;
mod image_locality;
mod least_allocated;
mod preferred_taints;

pub use balanced_allocation::BalancedAllocation;
pub use image_locality::ImageLocality;
pub use least_allocated::LeastAllocated;
pub use preferred_taints::PreferredTaints;

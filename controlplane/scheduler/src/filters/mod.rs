//! The filters: where a pod cannot go. One file each.

mod node_affinity;
mod node_name;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;

pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_unschedulable::NodeUnschedulable;
pub use resources_fit::NodeResourcesFit;
pub use taint_toleration::TaintToleration;
pub(crate) use taint_toleration::tolerates;

//! Prefers nodes with much left: pods spread.

use crate::{NodeInfo, PodInfo, PreparedScore, Resources, Score, Snapshot};

/// The mean of the free shares of CPU and memory after the pod is there.
///
/// # Source
/// Kubernetes `pkg/scheduler/framework/plugins/noderesources/least_allocated.go`.
pub struct LeastAllocated;

struct Requests<'p>(&'p Resources);

impl Score for LeastAllocated {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn prepare<'p>(&self, pod: &'p PodInfo, _snapshot: &'p Snapshot) -> Option<Box<dyn PreparedScore + 'p>> {
        Some(Box::new(Requests(&pod.nonzero)))
    }
}

impl PreparedScore for Requests<'_> {
    fn score(&self, node: &NodeInfo) -> u32 {
        let cpu = free_share(node.nonzero.millicores + self.0.millicores, node.allocatable.millicores);
        let memory = free_share(node.nonzero.memory_bytes + self.0.memory_bytes, node.allocatable.memory_bytes);
        (cpu + memory) / 2
    }
}

fn free_share(used: i64, all: i64) -> u32 {
    if all <= 0 || used > all {
        return 0;
    }
    let share = i128::from(all - used) * 100 / i128::from(all);
    u32::try_from(share).unwrap_or(0)
}

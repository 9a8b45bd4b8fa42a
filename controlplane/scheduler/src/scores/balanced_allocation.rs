//! Prefers nodes where CPU and memory run out together.

use crate::{NodeInfo, PodInfo, PreparedScore, Resources, Score, Snapshot};

/// 100 less the standard deviation of the used shares of CPU and memory, in percent.
///
/// # Source
/// Kubernetes `pkg/scheduler/framework/plugins/noderesources/balanced_allocation.go`.
pub struct BalancedAllocation;

struct Requests<'p>(&'p Resources);

impl Score for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn prepare<'p>(&self, pod: &'p PodInfo, _snapshot: &'p Snapshot) -> Option<Box<dyn PreparedScore + 'p>> {
        // A pod that requests neither leaves every balance as it is.
        if pod.requests.millicores == 0 && pod.requests.memory_bytes == 0 {
            return None;
        }
        Some(Box::new(Requests(&pod.requests)))
    }
}

impl PreparedScore for Requests<'_> {
    fn score(&self, node: &NodeInfo) -> u32 {
        let cpu = used_permille(node.requested.millicores + self.0.millicores, node.allocatable.millicores);
        let memory = used_permille(node.requested.memory_bytes + self.0.memory_bytes, node.allocatable.memory_bytes);
        // The standard deviation of two values is half their distance.
        let deviation_percent = cpu.abs_diff(memory) / 20;
        100 - deviation_percent.min(100)
    }
}

fn used_permille(used: i64, all: i64) -> u32 {
    if all <= 0 || used >= all {
        return 1000;
    }
    u32::try_from(i128::from(used.max(0)) * 1000 / i128::from(all)).unwrap_or(1000)
}
